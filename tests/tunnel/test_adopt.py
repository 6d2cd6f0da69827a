"""A flow that was changed on its device becomes the draft in the cloud, over a real tunnel."""

from typing import Any
from uuid import UUID

import pytest

from app import db
from app.deployments.models import Installation
from app.flows.definition import content_hash
from tests import make
from tests.platform import Platform
from tests.tunnel.conftest import V2, Caller, Device

pytestmark = pytest.mark.xdist_group("gateways")

DEPLOYED = {"nodes": [{"id": "a", "type": "debug"}], "connections": []}
CHANGED = {"nodes": [{"id": "a", "type": "debug"}, {"id": "b", "type": "inject"}], "connections": []}


class Drifted:
    """A published flow, and a connected device that was given it and runs something else."""

    def __init__(self, url: str, tenant: UUID, running: Any) -> None:
        self.call = Caller(url, make.api_key(tenant))
        flow = self.call("POST", "/flows", {"name": "Watch", "definition": DEPLOYED}).json()
        self.flow = f"/flows/{flow['id']}"
        self.call("POST", f"{self.flow}/publish")
        made, key = make.device(tenant)
        with db.transaction(tenant) as session:
            values = {"org_id": tenant, "device_id": made.id, "flow_id": UUID(flow["id"])}
            session.add(Installation(**values, version=1, content_hash=flow["content_hash"]))
        reported = {"flows": {flow["id"]: {"hash": content_hash(running), "status": "running"}}}
        Caller(url, key)("PUT", f"/devices/{made.id}/shadow", {"reported": reported})
        self.path = f"/devices/{made.id}{self.flow}/adopt"
        self.device = Device(url, made.id, key, **V2)

    def adopt(self, told: Any, body: Any = None, **fields: Any) -> Any:
        """Adopt while the device answers ``told``; the whole answer."""
        asked = self.call.later("POST", self.path, body)
        command = self.device.answer(told, **fields)
        assert (command["action"], f"/flows/{command['payload']['flow_id']}") == ("get_flow", self.flow)
        return asked.result()


def test_what_runs_there_becomes_the_draft(gateways: Platform, tenant: UUID) -> None:
    drifted = Drifted(gateways.url(), tenant, CHANGED)
    told = {"flow": {"id": "x", "status": "running", "definition": {**CHANGED, "id": "x", "name": "theirs"}}}
    answer = drifted.adopt(told, {"name": "Watch closely"})
    flow = answer.json()
    assert (answer.status_code, flow["definition"], flow["name"]) == (200, CHANGED, "Watch closely")
    assert (flow["has_unpublished_changes"], flow["content_hash"]) == (True, content_hash(CHANGED))
    assert drifted.call("GET", drifted.flow).json() == flow
    again = drifted.call("POST", drifted.path)
    assert (again.status_code, again.json()["code"]) == (409, "VERSION_CONFLICT")
    assert drifted.adopt({"flow": CHANGED}, {"overwrite": True}).status_code == 200
    drifted.device.close()


@pytest.mark.parametrize(
    ("told", "status", "code"),
    [
        ({"flow": {"status": "running"}}, 502, "BAD_DEVICE_RESPONSE"), ("odd", 502, "BAD_DEVICE_RESPONSE"),
        ({"flow": {"nodes": [{"id": "a"}]}}, 400, "VALIDATION_ERROR"),
        ({"flow": {"nodes": [{"id": "a\u0000", "type": "debug"}]}}, 400, "VALIDATION_ERROR"),
    ],
)  # fmt: skip
def test_what_is_no_flow_is_not_adopted(gateways: Platform, tenant: UUID, told: Any, status: int, code: str) -> None:
    drifted = Drifted(gateways.url(), tenant, CHANGED)
    answer = drifted.adopt(told)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert drifted.call("GET", drifted.flow).json()["definition"] == DEPLOYED
    drifted.device.close()


def test_a_draft_that_changes_while_the_device_answers_is_not_lost(gateways: Platform, tenant: UUID) -> None:
    drifted = Drifted(gateways.url(), tenant, CHANGED)
    asked = drifted.call.later("POST", drifted.path)
    command = drifted.device.receive()
    mine = {"nodes": [{"id": "mine", "type": "debug"}]}
    other = Caller(gateways.url(), make.api_key(tenant))
    assert other("PUT", drifted.flow, {"definition": mine}).status_code == 200
    drifted.device.send({"type": "response", "id": command["id"], "status": "success", "data": {"flow": CHANGED}})
    assert asked.result().json()["code"] == "VERSION_CONFLICT"
    assert other("GET", drifted.flow).json()["definition"] == mine
    drifted.device.close()
