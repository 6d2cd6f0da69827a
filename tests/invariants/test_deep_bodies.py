"""JSON that can be read but not written again: nobody's body gets as far as a device's socket, a row or a message."""

from typing import Any

import httpx
import pytest

from tests.invariants.conftest import Caller, connected
from tests.platform import TLS, Platform

pytestmark = pytest.mark.xdist_group("platform")

LEVELS = [95, 200, 260, 1000, 50_000]


def nested(field: str, levels: int) -> bytes:
    return f'{{"{field}": '.encode() + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


@pytest.fixture
def ada(platform: Platform) -> Caller:
    return Caller(platform.url())


def put(caller: Caller, url: str, path: str, content: bytes) -> Any:
    headers = {**caller.http.headers, "Content-Type": "application/json"}
    return httpx.put(f"{url}/api/v1{path}", content=content, headers=headers, timeout=30, verify=TLS)


def test_a_deep_flow_neither_fails_nor_blocks_its_device(platform: Platform, ada: Caller) -> None:
    device = ada.device()
    path = f"/edge-nodes/{device['id']}/flows/f?timeout=5"
    with connected(platform, ada, device):
        for url in (platform.url(0), platform.url(1)):
            found = [put(ada, url, path, nested("flow", levels)).status_code for levels in LEVELS]
            assert found == [404, 400, 400, 400, 400]
            assert put(ada, url, path, b'{"flow": {"id": "f"}}').status_code == 404


@pytest.mark.parametrize("levels", LEVELS[1:])
def test_a_deep_object_is_the_callers_error(platform: Platform, ada: Caller, levels: int) -> None:
    organization = f"/organizations/{ada.tokens['organization']['id']}"
    device = ada.device()["id"]
    for path, field in (
        (organization, "settings"),
        (f"/devices/{device}", "metadata"),
        (f"/devices/{device}/shadow", "desired"),
    ):
        answer = put(ada, platform.url(), path, nested(field, levels))
        assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR"), (path, answer.text)
