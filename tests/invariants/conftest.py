"""Invariants on real processes; some with servers of their own, because they are frozen and killed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from agent.drivers.simulated import Behaviour
from agent.enrol import Member
from agent.simulator import FleetOptions, FleetThread
from tests.invariants.servers import Servers
from tests.platform import TLS, Platform

PASSWORD = "correct horse battery"
FLOW = {"nodes": [{"id": "n", "type": "inject"}], "connections": []}


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Servers(tmp_path_factory.mktemp("servers")) as running:
        yield running


@pytest.fixture(scope="session")
def own_platform(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """One web process, a worker and a scheduler on servers of their own, with rate limits.

    Tests that use it share it: mark them ``pytest.mark.xdist_group("own_servers")``.
    """
    environ = {
        **servers.environ,
        "EDGEFLOW_RATE_LIMITS": "1",
        "EDGEFLOW_RATE_LIMIT_AUTH": "300 per minute",
        "EDGEFLOW_RATE_LIMIT_IP": "100000 per minute",
        "EDGEFLOW_RATE_LIMIT_USER": "10 per minute",
        "EDGEFLOW_DATABASE_TIMEOUT": "2",
        "EDGEFLOW_LOG_LEVEL": "DEBUG",
    }
    with Platform(tmp_path_factory.mktemp("own-platform"), environ=environ) as running:
        yield running


class Caller:
    """A person who registered, over HTTP."""

    def __init__(self, url: str) -> None:
        self.email = f"{uuid4().hex[:12]}@example.com"
        self.http = httpx.Client(base_url=f"{url}/api/v1", timeout=40, verify=TLS)
        body = {"email": self.email, "password": PASSWORD, "name": "Ada", "organization_name": "Acme"}
        self.tokens = self("POST", "/auth/register", body, expect=201)
        self.http.headers["Authorization"] = f"Bearer {self.tokens['access_token']}"

    def __call__(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        answer = self.http.request(method, path, json=body)
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def device(self) -> Any:
        return self("POST", "/devices", {"name": "pump"}, expect=201)

    def flow(self) -> str:
        """A published flow; its id."""
        flow = self("POST", "/flows", {"name": "f", "definition": FLOW}, expect=201)
        self("POST", f"/flows/{flow['id']}/publish")
        return str(flow["id"])


@contextmanager
def connected(platform: Platform, caller: Caller, device: dict[str, Any], **behaviour: Any) -> Iterator[FleetThread]:
    """The device, simulated, on its tunnel."""
    member = Member(device["name"], device["id"], device["api_key"])
    options = FleetOptions(platform.url(), devices=1, members=[member], behaviour=Behaviour(**behaviour))
    with FleetThread(options) as fleet:
        until(lambda: caller("GET", f"/devices/{device['id']}/status")["connected"])
        yield fleet


def until(check: Callable[[], Any], timeout: float = 20, every: float = 0.1) -> Any:
    """Wait until ``check`` gives something true, and give that."""
    deadline = time.monotonic() + timeout
    while not (found := check()):
        assert time.monotonic() < deadline, f"still {found!r} after {timeout} s"
        time.sleep(every)
    return found
