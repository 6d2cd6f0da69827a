"""Provisioning as released agents do it."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from flask_limiter.constants import ExemptionScope
from sqlalchemy import func, select, update

from app import db, limits
from app.devices.models import Device, DeviceKey
from app.devices.provisioning import fingerprint
from tests import make
from tests.devices.helpers import at_once

BOARD = {"serial": "1000-a", "machine_id": "m1", "arch": "arm64"}
NETWORK = {"hostname": "pump-7", "ip_address": "192.0.2.17"}

# What the released agent tells: nothing in hardware_info is its own, and ram_mb is another number at every start.
V1_BOARD = {"os": "linux", "arch": "arm64", "kernel": "", "board_model": "Pi 5", "cpu_cores": 4, "ram_mb": 7}
V1_NETWORK = {"hostname": "pump-7", "mac_address": "02:00:5e:10:00:07", "connection_type": "ethernet"}


@pytest.fixture
def made(api: Any) -> Any:
    return api.post("/devices", {"name": "pump-7"}, expect=201)


@pytest.fixture
def stranger(app: Any) -> Any:
    """A caller without credentials."""
    return make.Client(app, {})


def body(made: Any, hardware: Any = None, network: Any = None) -> dict[str, Any]:
    return {
        "provisioning_code": made["provisioning_code"],
        "hardware_info": hardware or BOARD,
        "network_info": network or NETWORK,
    }


def set_device(org: UUID, made: Any, **values: Any) -> None:
    with db.transaction(org) as session:
        session.execute(update(Device).where(Device.id == UUID(made["id"])).values(**values))


def opens(app: Any, made: Any, key: str) -> bool:
    return make.Client(app, {"X-API-Key": key}).get(f"/devices/{made['id']}/shadow").status_code == 200


def test_an_agent_gets_its_id_and_a_key(app: Any, api: Any, made: Any, stranger: Any) -> None:
    answer = stranger.post("/devices/provision", body(made), expect=201)
    assert answer.keys() == {"device_id", "api_key"}
    assert answer["device_id"] == made["id"]
    assert opens(app, made, answer["api_key"])
    device = api.get(f"/devices/{made['id']}", expect=200)
    assert (device["hardware_info"], device["network_info"], device["status"]) == (BOARD, NETWORK, "pending")


def test_the_same_hardware_comes_again_and_gets_a_fresh_key(app: Any, org: UUID, made: Any, stranger: Any) -> None:
    first = stranger.post("/devices/provision", body(made), expect=201)
    set_device(org, made, provisioning_expires_at=func.now() - timedelta(days=30))
    second = stranger.post("/devices/provision", body(made, {**BOARD, "fan": "on"}, {"hostname": "moved"}), expect=201)
    assert (first["device_id"], second["device_id"]) == (made["id"], made["id"])
    assert first["api_key"] != second["api_key"]
    assert opens(app, made, first["api_key"])
    assert opens(app, made, second["api_key"])
    with db.transaction(org) as session:
        ends = session.execute(select(DeviceKey.expires_at - func.now()).order_by(DeviceKey.created_at)).scalars().all()
        assert ends[-1] is None
        assert all(end is not None and timedelta(minutes=9) < end <= timedelta(minutes=10) for end in ends[:-1])
        session.execute(update(DeviceKey).where(DeviceKey.expires_at.is_not(None)).values(expires_at=func.now()))
    assert not opens(app, made, first["api_key"])
    assert not opens(app, made, made["api_key"])
    third = stranger.post("/devices/provision", body(made), expect=201)
    with db.transaction(org) as session:
        assert session.scalar(select(func.count()).select_from(DeviceKey)) == 2
    assert opens(app, made, third["api_key"])


def test_the_released_agent_is_the_same_after_a_restart(made: Any, stranger: Any) -> None:
    stranger.post("/devices/provision", body(made, V1_BOARD, V1_NETWORK), expect=201)
    again = body(made, {**V1_BOARD, "ram_mb": 12}, {**V1_NETWORK, "ip_address": "192.0.2.9"})
    stranger.post("/devices/provision", again, expect=201)
    other = body(made, V1_BOARD, {**V1_NETWORK, "mac_address": "02:00:5e:10:00:08"})
    stranger.post("/devices/provision", other, expect=401)


def test_other_hardware_an_unknown_and_an_expired_code_are_refused_alike(
    org: UUID, api: Any, made: Any, stranger: Any
) -> None:
    stranger.post("/devices/provision", body(made), expect=201)
    expired, disabled = (api.post("/devices", {"name": name}, expect=201) for name in ("late", "off"))
    set_device(org, expired, provisioning_expires_at=func.now())
    api.put(f"/devices/{disabled['id']}", {"disabled": True}, expect=200)
    refused = [
        stranger.post("/devices/provision", wrong, expect=401)
        for wrong in (
            body(made, {**BOARD, "serial": "1000-b"}), body({"provisioning_code": "code_guess"}), body(expired),
            body(disabled), body({"provisioning_code": made["api_key"]}),
        )
    ]  # fmt: skip
    assert len({(answer["error"], answer["code"], answer["status"]) for answer in refused}) == 1
    assert api.get(f"/devices/{made['id']}", expect=200)["hardware_info"] == BOARD
    assert api.get(f"/devices/{expired['id']}", expect=200)["hardware_info"] is None


def test_a_deleted_device_cannot_come_back(api: Any, made: Any, stranger: Any) -> None:
    stranger.post("/devices/provision", body(made), expect=201)
    api.delete(f"/devices/{made['id']}", expect=204)
    stranger.post("/devices/provision", body(made), expect=401)


def test_a_race_makes_one_device_and_every_answer_is_usable(app: Any, api: Any, made: Any, stranger: Any) -> None:
    answers = at_once(30, lambda _: make.Client(app, {}).post("/devices/provision", body(made), expect=201))
    assert {answer["device_id"] for answer in answers} == {made["id"]}
    assert len({answer["api_key"] for answer in answers}) == 30
    assert all(opens(app, made, answer["api_key"]) for answer in answers)
    assert api.get("/devices", expect=200)["total"] == 1


def test_of_two_boards_that_race_one_is_bound(app: Any, made: Any) -> None:
    def come(number: int) -> int:
        return make.Client(app, {}).post("/devices/provision", body(made, {"serial": str(number)})).status_code

    assert sorted(at_once(10, come)) == [201] + [401] * 9


def test_a_lost_answer_can_be_asked_for_again(made: Any, stranger: Any) -> None:
    same = {"Idempotency-Key": "agent-1"}
    answers = [stranger.post("/devices/provision", body(made), headers=same, expect=201) for _ in range(2)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    "change",
    [
        {"hardware_info": None}, {"hardware_info": "Pi"}, {"hardware_info": {"serial": "\0"}}, {"firmware": 1},
        {"provisioning_code": ""}, {"provisioning_code": "a\0"}, {"network_info": []}, {"provisioning_code": 7},
        {"hardware_info": {"a": [[[[[[[[1]]]]]]]]}},
    ],
)  # fmt: skip
def test_what_is_not_valid_is_refused(made: Any, stranger: Any, change: Any) -> None:
    assert stranger.post("/devices/provision", body(made) | change, expect=400)["code"] == "VALIDATION_ERROR"


def test_a_fleet_behind_one_address_is_not_held_back(app: Any) -> None:
    manager = limits.limiter.limit_manager
    assert manager.exemption_scope(app, "devices.provision", "devices") & ExemptionScope.APPLICATION
    assert not manager.exemption_scope(app, "devices.Devices", "devices") & ExemptionScope.APPLICATION


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (({"serial": "1", "ram": 1}, {}), ({"ram": 2, "serial": "1"}, {"mac_address": "x"}), True),
        (({"serial": "1"}, {}), ({"serial": "2"}, {}), False),
        (({"mac": "1"}, {}), ({"serial": "1"}, {}), False),
        (({"serial": "", "arch": "arm"}, {"mac_address": "1"}), ({"arch": "x86"}, {"mac_address": "1"}), True),
        (({"arch": "arm", "cores": 4}, {}), ({"arch": "arm", "cores": 8}, {"hostname": "a"}), True),
        (({"arch": "arm"}, {}), ({"arch": "x86"}, {}), False),
    ],
)
def test_fingerprint(one: Any, other: Any, same: bool) -> None:
    assert (fingerprint(*one) == fingerprint(*other)) is same
