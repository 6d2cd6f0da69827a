"""Redis away: slower, never open. PostgreSQL away: 503 with Retry-After, never 500. Both come back by themselves (R9).

Frozen servers are the hard case: their sockets stand, and whoever waits for an answer without a limit hangs.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import psycopg
import pytest

from tests.invariants.conftest import Caller, connected, until
from tests.invariants.servers import Servers
from tests.platform import TLS, Platform

pytestmark = pytest.mark.xdist_group("own_servers")

WAYS = pytest.mark.parametrize("way", ["frozen", "killed"])


@contextmanager
def away(servers: Servers, name: str, way: str) -> Iterator[None]:
    """The server is gone within the block."""
    servers.freeze(name) if way == "frozen" else servers.kill(name)
    try:
        yield
    finally:
        servers.thaw(name) if way == "frozen" else servers.start(name)


def timed(http: httpx.Client, method: str, path: str, **options: Any) -> tuple[float, httpx.Response]:
    started = time.monotonic()
    answer = http.request(method, path, **options)
    return time.monotonic() - started, answer


@WAYS
def test_without_redis_requests_are_answered_and_limits_and_sign_in_hold(
    servers: Servers, own_platform: Platform, way: str
) -> None:
    ada, eve = Caller(own_platform.url()), Caller(own_platform.url())
    device, flow_id = ada.device(), ada.flow()
    deployment = {"flow_id": flow_id, "target": {"all": True}, "start": True}
    eve("POST", "/auth/logout", expect=204)
    with connected(own_platform, ada, device):
        with away(servers, "valkey", way):
            answers = [timed(ada.http, "GET", "/devices") for _ in range(5)]
            answers.append(timed(ada.http, "PUT", f"/devices/{device['id']}/shadow", json={"desired": {"a": 1}}))
            created = timed(ada.http, "POST", "/deployments", json=deployment)
            assert eve.http.get("/devices").status_code == 401
            assert httpx.get(f"{own_platform.url()}/api/v1/devices", verify=TLS).status_code == 401
            profile = [ada.http.get("/auth/profile").status_code for _ in range(13)]
        assert [answer.status_code for _, answer in (*answers, created)] == [200] * 6 + [201]
        assert max(seconds for seconds, _ in (*answers, created)) < 3
        assert profile == [200] * 10 + [429] * 3
        until(lambda: ada("GET", f"/deployments/{created[1].json()['id']}")["status"] == "succeeded")


def answers_200(answer: httpx.Response) -> bool:
    assert answer.status_code in (200, 503), answer.text
    return answer.status_code == 200


@WAYS
def test_without_postgresql_every_answer_is_503_and_all_parts_come_back(
    servers: Servers, own_platform: Platform, way: str
) -> None:
    ada = Caller(own_platform.url())
    pids = {name: process.pid for name, process in own_platform.processes.items()}
    login = {"email": ada.email, "password": "x"}
    paths: list[tuple[str, str, Any]] = [("GET", "/devices", None), ("POST", "/auth/login", login)] * 8
    with away(servers, "postgres", way), ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda one: timed(ada.http, one[0], one[1], json=one[2]), paths))
        answers.append(timed(ada.http, "POST", "/devices", json={"name": "x"}))
        ready = httpx.get(f"{own_platform.url()}/readyz", timeout=30, verify=TLS)
    for _, answer in answers:
        body = answer.json()
        assert (answer.status_code, body["code"], body["status"]) == (503, "SERVICE_UNAVAILABLE", 503), answer.text
        assert int(answer.headers["Retry-After"]) >= 1
        assert body["request_id"]
    assert max(seconds for seconds, _ in answers) < 14
    assert (ready.status_code, ready.json()["checks"]["postgresql"]) == (503, False)
    until(lambda: answers_200(ada.http.get("/devices")), 10)
    until(lambda: httpx.get(f"{own_platform.url()}/readyz", verify=TLS).status_code == 200, 15)
    with psycopg.connect(servers.superuser_url, autocommit=True) as database:
        started = database.execute("SELECT now()").fetchone()[0]
        query = "SELECT count(*) FROM scheduled_runs WHERE job = 'rollouts.reconcile' AND started_at > %s"
        until(lambda: database.execute(query, [started]).fetchone()[0], 20)  # the scheduler led, the worker worked
    assert {name: process.pid for name, process in own_platform.processes.items()} == pids
    assert all(process.poll() is None for process in own_platform.processes.values())
