"""Events over real HTTP: streams at one web process of what another one and the worker do."""

import asyncio
import json
import signal
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from config.settings import settings
from tests import make
from tests.e2e.conftest import User, fleet, until
from tests.platform import Platform

pytestmark = pytest.mark.xdist_group("platform")
MANY = 200


class Stream:
    """A stream read in a thread of its own: its events as they came, with the time."""

    def __init__(self, user: User, url: str, deployment_id: str, last: int | None = None, most: int = 10**6) -> None:
        self.path = f"{url}/api/v1/deployments/{deployment_id}/events"
        self.headers = {**user.http.headers, "Accept": "text/event-stream"}
        if last is not None:
            self.headers["Last-Event-ID"] = str(last)
        self.most = most
        self.events: list[Any] = []
        self.times: list[float] = []
        self.failure: Exception | None = None
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            self._follow()
        except httpx.HTTPError as error:
            self.failure = error

    def _follow(self) -> None:
        with httpx.stream("GET", self.path, headers=self.headers, timeout=40) as answer:
            assert answer.headers["Content-Type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                if line.startswith("data: "):
                    self.events.append(json.loads(line[6:]))
                    self.times.append(time.monotonic())
                if len(self.events) >= self.most:
                    return

    def wait(self) -> None:
        self.thread.join(40)
        assert not self.thread.is_alive()
        assert self.failure is None


def test_a_rollout_is_followed_as_it_happens_and_resumed_elsewhere(user: User, platform: Platform) -> None:
    with fleet(user, 6, latency_ms=300):
        flow_id = user.flow()
        deployment_id = user.deploy(flow_id, {"max_in_flight": 2}, start=False)
        there = Stream(user, platform.url(1), deployment_id)
        until(lambda: there.events)
        begun = time.monotonic()
        user("POST", f"/deployments/{deployment_id}/start", expect=202)
        cut = Stream(user, platform.url(0), deployment_id, most=5)
        cut.wait()
        user.wait(deployment_id, "succeeded")
        over = time.monotonic()
        there.wait()
        assert there.times[-1] < over + 2, "the end is heard of at once"
        assert any(begun < at < over - 0.4 for at in there.times), "and so is what happens before"
        listed = user("GET", f"/deployments/{deployment_id}/events?limit=500")["items"]
        assert there.events == listed
        assert listed[-1]["data"]["status"] == "succeeded"
        done = [one["data"]["device_name"] for one in listed if one["data"].get("state") == "succeeded"]
        assert len(done) == len(set(done)) == 6
        rest = Stream(user, platform.url(1), deployment_id, last=cut.events[-1]["id"])
        rest.wait()
        assert cut.events + rest.events == listed


async def follow(port: int, deployment_id: str, key: str) -> bytes:
    """All that one stream says until it ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /api/v1/deployments/{deployment_id}/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n"
    writer.write(f"{head}Accept: text/event-stream\r\nConnection: close\r\n\r\n".encode())
    said = await reader.read()
    writer.close()
    return said


def test_many_streams_hold_no_connection_and_all_hear_the_end(user: User, platform: Platform) -> None:
    with fleet(user, 2):
        deployment_id = user.deploy(user.flow(), start=False)
        key = user.http.headers["X-API-Key"]
        said: list[bytes] = []

        async def all_of_them() -> None:
            said.extend(await asyncio.gather(*(follow(platform.ports[0], deployment_id, key) for _ in range(MANY))))

        readers = threading.Thread(target=lambda: asyncio.run(asyncio.wait_for(all_of_them(), 60)), daemon=True)
        readers.start()
        time.sleep(4)
        assert backends() <= 60, "no stream has a connection to the database"
        begun = time.monotonic()
        user.deployment(deployment_id)
        assert time.monotonic() - begun < 1, "and requests go on"
        user("POST", f"/deployments/{deployment_id}/start", expect=202)
        user.wait(deployment_id, "succeeded")
        over = time.monotonic()
        readers.join(20)
        assert not readers.is_alive()
        assert time.monotonic() - over < 10
        assert len(said) == MANY
        assert all(b"200 OK" in one and b'"status":"succeeded"' in one for one in said)


def backends() -> int:
    with psycopg.connect(settings().database_url, autocommit=True) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        (number,) = connection.execute(query).fetchone() or (0,)
        return int(number)


def test_a_web_process_that_ends_lets_its_streams_go(app: Any, tmp_path: Path) -> None:
    """In order, so that browsers come back to another one, and at once, so that nobody has to kill it."""
    org_id = make.organization()
    with Platform(tmp_path, web=1, parts=()) as platform:
        user = User(platform.url(), org_id)
        make.device(org_id)
        deployment_id = user.deploy(user.flow(), start=False)
        stream = Stream(user, platform.url(), deployment_id)
        until(lambda: stream.events)
        user.http.close()  # an idle connection would hold the process up for as long as it is kept alive
        begun = time.monotonic()
        platform.kill("web0", signal.SIGTERM)
        stream.thread.join(3)
        assert not stream.thread.is_alive()
        assert stream.failure is None, "the answer is whole"
        platform.processes["web0"].wait(timeout=8)
        assert time.monotonic() - begun < 5
