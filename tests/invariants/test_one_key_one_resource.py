"""One Idempotency-Key, one resource, through real web processes that race and are killed (R8)."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text

from app import db
from tests.invariants.conftest import FLOW, PASSWORD, Caller, connected, until
from tests.platform import TLS, Platform

pytestmark = pytest.mark.xdist_group("platform")

AT_ONCE, ROUNDS, KILLS = 30, 3, 5

Body = Callable[[Caller], dict[str, Any]]
RESOURCES: dict[str, tuple[str, Body]] = {
    "devices": ("/devices", lambda _caller: {"name": f"pump-{uuid4()}"}),
    "flows": ("/flows", lambda _caller: {"name": f"flow-{uuid4()}", "definition": FLOW}),
    "deployments": (
        "/deployments",
        lambda caller: {"name": f"d-{uuid4()}", "flow_id": caller.flow(), "target": {"all": True}, "start": True},
    ),
    "users": (
        "/auth/register",
        lambda _caller: {
            "email": f"{uuid4()}@example.com",
            "password": PASSWORD,
            "name": "Ada",
            "organization_name": "Acme",
        },
    ),
}


@pytest.fixture
def ada(platform: Platform) -> Caller:
    caller = Caller(platform.url())
    caller.device()
    return caller


def count(table: str, body: dict[str, Any]) -> int:
    column = "email" if table == "users" else "name"
    with db.transaction(system=True) as session:
        query = text(f"SELECT count(*) FROM {table} WHERE {column} = :value")
        return int(session.scalar(query, {"value": body[column]}) or 0)


def post_at_once(number: int, caller: Caller, platform: Platform, path: str, body: Any) -> list[httpx.Response]:
    """The same request under one new key, over both web processes."""
    key = str(uuid4())
    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(lambda n: post(caller, platform.url(n % 2), path, body, key), range(number)))


def post(caller: Caller, url: str, path: str, body: Any, key: str) -> httpx.Response:
    headers = {**caller.http.headers, "Idempotency-Key": key}
    return httpx.post(f"{url}/api/v1{path}", json=body, headers=headers, timeout=30, verify=TLS)


@pytest.mark.parametrize("table", RESOURCES)
def test_many_at_once_make_one(platform: Platform, ada: Caller, table: str) -> None:
    path, make = RESOURCES[table]
    for _ in range(ROUNDS):
        body = make(ada)
        answers = post_at_once(AT_ONCE, ada, platform, path, body)
        assert {answer.status_code for answer in answers} == {201}, [answer.text for answer in answers][:3]
        assert len({answer.content for answer in answers}) == 1
        assert len({answer.headers.get("Location") for answer in answers}) == 1
        assert sum("Idempotent-Replayed" not in answer.headers for answer in answers) == 1
        assert count(table, body) == 1


def test_a_web_process_killed_before_the_answer_makes_no_second_one(platform: Platform, ada: Caller) -> None:
    cut_off = 0
    for number in range(KILLS):
        wanted = {table: (path, make(ada), str(uuid4())) for table, (path, make) in RESOURCES.items()}
        with ThreadPoolExecutor(len(wanted)) as pool:
            asked = [pool.submit(post, ada, platform.url(1), *one) for one in wanted.values()]
            time.sleep(0.01 * (number + 1))  # before, within and after their transactions
            platform.kill("web1")
        platform.start("web1")
        for first, (table, one) in zip(asked, wanted.items(), strict=True):
            again = [post(ada, platform.url(0), *one) for _ in range(2)]
            assert [answer.status_code for answer in again] == [201, 201], again[0].text
            assert again[0].content == again[1].content
            if isinstance(first.exception(), httpx.HTTPError):
                cut_off += 1
            else:
                assert first.result().content == again[0].content
            assert count(table, one[1]) == 1
        platform.wait_ready()
    assert cut_off


def test_a_command_to_a_device_is_sent_once(platform: Platform, ada: Caller) -> None:
    device = ada.device()
    flow = {"flow": {"id": "f1", **FLOW}}
    path = f"/edge-nodes/{device['id']}/flows"
    with connected(platform, ada, device, latency_ms=200) as fleet:
        for number in range(2):
            answers = post_at_once(6, ada, platform, path, flow)
            # The first one's answer, or its outcome is not known yet: never a second command.
            assert {answer.status_code for answer in answers} <= {200, 409, 501}
            assert sum(answer.status_code != 409 for answer in answers) >= 1
            sent = until(lambda: fleet.fleet.ledger[device["id"]])
            assert len(sent) == number + 1
