"""The platform as users meet it: REST over HTTP, devices over WebSockets, jobs by real workers."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import pytest

from agent.drivers.simulated import Behaviour
from agent.enrol import Member
from agent.simulator import FleetOptions, FleetThread
from tests import make
from tests.platform import TLS, Platform

FLOW = {
    "nodes": [
        {"id": "every", "type": "inject", "config": {"interval": 1}},
        {"id": "show", "type": "debug"},
    ],
    "connections": [{"source": "every", "target": "show"}],
}


def until(check: Callable[[], Any], timeout: float = 30, every: float = 0.1) -> Any:
    """Wait until ``check`` gives something true, and give that."""
    deadline = time.monotonic() + timeout
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"still {found!r} after {timeout} s"
        time.sleep(every)


class User:
    """A person with a key of his organization, working over HTTP."""

    def __init__(self, url: str, org_id: UUID) -> None:
        self.url, self.org_id = url, org_id
        self.http = httpx.Client(
            base_url=f"{url}/api/v1", headers={"X-API-Key": make.api_key(org_id)}, timeout=60, verify=TLS
        )

    def __call__(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        answer = self.http.request(method, path, json=body)
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def flow(self, marker: Any = 1) -> str:
        """A published flow; its id."""
        definition = {**FLOW, "config": {"marker": marker}}
        flow = self("POST", "/flows", {"name": "watch", "definition": definition}, expect=201)
        self("POST", f"/flows/{flow['id']}/publish")
        return str(flow["id"])

    def change(self, flow_id: str, marker: Any) -> None:
        """Publish another version of a flow."""
        self("PUT", f"/flows/{flow_id}", {"definition": {**FLOW, "config": {"marker": marker}}})
        self("POST", f"/flows/{flow_id}/publish")

    def deploy(self, flow_id: str, strategy: dict[str, Any] | None = None, **fields: Any) -> str:
        body = {"flow_id": flow_id, "target": {"all": True}, "strategy": strategy or {}, "start": True, **fields}
        return str(self("POST", "/deployments", body, expect=201)["id"])

    def deployment(self, deployment_id: str) -> Any:
        return self("GET", f"/deployments/{deployment_id}")

    def wait(self, deployment_id: str, *status: str, timeout: float = 40) -> Any:
        def there() -> Any:
            deployment = self.deployment(deployment_id)
            return deployment if deployment["status"] in status else None

        return until(there, timeout, every=0.2)

    def online(self, count: int, timeout: float = 30) -> None:
        until(lambda: self("GET", "/devices?status=online&limit=1")["total"] == count, timeout)


@pytest.fixture
def user(platform: Platform, app: Any) -> User:
    return User(platform.url(), make.organization())


@contextmanager
def fleet(
    user: User, count: int, *, url: str | None = None, made: Any = None, online: int | None = None, **behaviour: Any
) -> Iterator[FleetThread]:
    """``count`` simulated devices of the user (new ones, or ``made``), connected to ``url``.

    Waits until the organization has ``online`` devices online (default: these).
    """
    members = [Member(device.name, str(device.id), key) for device, key in made or make.devices(count, user.org_id)]
    options = FleetOptions(url or user.url, devices=count, members=members, behaviour=Behaviour(**behaviour))
    with FleetThread(options) as running:
        user.online(online or count)
        yield running
