"""A device's status: decided once, the same in list, filter, detail and ``/status``."""

from typing import Any
from uuid import UUID

import pytest

from app import db
from app.clock import now
from app.devices import service
from tests import make
from tests.devices.helpers import connect

CASES = [
    ("never connected", {}, None, "pending", False),
    ("heard from now", {}, {}, "online", True),
    ("silent for a minute", {}, {"silent": 60}, "online", True),
    ("silent for longer", {}, {"silent": 80}, "offline", False),
    ("disconnected", {}, {"gone": True}, "offline", False),
    ("there, with an error", {"error": "disk full"}, {}, "error", True),
    ("gone, with an error", {"error": "disk full"}, {"silent": 80}, "offline", False),
    ("disabled, still there", {"disabled_at": now()}, {}, "disabled", True),
    ("disabled, never connected", {"disabled_at": now()}, None, "disabled", False),
]


@pytest.mark.parametrize(("fields", "tunnel", "status", "connected"), [case[1:] for case in CASES], ids=lambda c: None)
def test_status(
    org: UUID, api: Any, fields: dict[str, Any], tunnel: dict[str, Any] | None, status: str, connected: bool
) -> None:
    device, _ = make.device(org, **fields)
    if tunnel is not None:
        connect(org, device.id, **tunnel)
    live = api.get(f"/devices/{device.id}/status", expect=200)
    assert (live["status"], live["connected"]) == (status, connected)
    assert live["gateway"] == ("web-1" if connected else None)
    assert (live["last_seen_at"] is None) == (tunnel is None)
    detail = api.get(f"/devices/{device.id}", expect=200)
    assert detail["status"] == status
    assert (detail["last_seen_at"], detail["connected_at"]) == (live["last_seen_at"], live["connected_at"])
    for wanted in ("pending", "online", "offline", "error", "disabled"):
        listed = api.get(f"/devices?status={wanted}", expect=200)
        assert [item["status"] for item in listed["items"]] == ([status] if wanted == status else [])
        assert listed["total"] == len(listed["items"])


def test_live_status_is_whole(app: Any, org: UUID, api: Any) -> None:
    device, key = make.device(org, agent_version="1.0.0", protocol=2)
    path = f"/devices/{device.id}"
    assert api.get(f"{path}/status", expect=200) == {
        "device_id": str(device.id), "status": "pending", "connected": False, "error": None, "last_seen_at": None,
        "connected_at": None, "agent_version": "1.0.0", "protocol": 2, "gateway": None, "flows_running": None,
        "shadow_sync": "unknown",
    }  # fmt: skip
    agent = make.Client(app, {"X-API-Key": key})
    for reported, running in ((3, 3), (True, None), ("3", None), (0, 0)):
        agent.put(f"{path}/shadow", {"reported": {"flows_running": reported}}, expect=200)
        assert api.get(f"{path}/status", expect=200)["flows_running"] == running
    api.put(f"{path}/shadow", {"desired": {"rate": 5}}, expect=200)
    assert api.get(f"{path}/status", expect=200)["shadow_sync"] == "pending"


def test_reachable(org: UUID) -> None:
    made = [make.device(org)[0].id for _ in range(3)]
    disabled = make.device(org, disabled_at=now())[0].id
    connect(org, made[0], gateway="web-2")
    connect(org, made[1], silent=80)
    connect(org, disabled)

    def gateway(device_id: UUID) -> str | None:
        with db.transaction(org):
            device, connection = service.reachable(org, device_id)
            assert device.id == device_id
            return connection.gateway if connection else None

    assert [gateway(device_id) for device_id in (*made, disabled)] == ["web-2", None, None, None]
    with db.transaction(org):
        assert service.last_seen_at(org, made[1]) is not None
        assert service.last_seen_at(org, made[2]) is None
