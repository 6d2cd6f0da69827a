"""From a device's frame to its acknowledgement: stored once, whichever gateway it comes to and however often."""

import random
import threading
import time
from contextlib import suppress
from uuid import UUID, uuid4

import pytest
from websockets.exceptions import ConnectionClosed

from tests import make
from tests.e2e.conftest import until
from tests.platform import Platform
from tests.telemetry.support import (
    TELEMETRY,
    acknowledged,
    counted,
    frame,
    inbox,
    lines,
    now_ms,
    points,
    rows,
    store_all,
    used,
)
from tests.tunnel.conftest import Device

pytestmark = pytest.mark.xdist_group("gateways")


def test_points_and_logs_are_acknowledged_and_stored(gateways: Platform, tenant: UUID) -> None:
    made, key = make.device(tenant)
    device = Device(gateways.url(), made.id, key, **TELEMETRY)
    assert "telemetry" in device.first["capabilities"]
    moment = now_ms()
    sent = frame(
        [["cpu.usage_percent", moment, 12.5], ["cpu.usage_percent", moment + 1, True], ["t", moment, 3, {"room": "a"}]],
        [[moment, "warning", "valve stuck", {"valve": 3}], [moment, "error", "pump stopped"]],
    )
    device.send(sent)
    assert acknowledged(device) == sent["id"]
    store_all(tenant)
    found = points(tenant)
    assert [(one.name, one.tags, one.value) for one in found] == [
        ("cpu.usage_percent", {}, 12.5), ("cpu.usage_percent", {}, 1.0), ("t", {"room": "a"}, 3.0),
    ]  # fmt: skip
    assert {one.device_id for one in found} == {made.id}
    assert [round(one.time.timestamp() * 1000) for one in found] == [moment, moment + 1, moment]
    assert [(one.message, one.level, one.fields) for one in lines(tenant)] == [
        ("valve stuck", 2, {"valve": 3}), ("pump stopped", 3, {}),
    ]  # fmt: skip
    assert used(tenant) == (3, 0, 2)
    device.close()


def test_a_resend_stores_nothing_twice_also_over_another_gateway(gateways: Platform, tenant: UUID) -> None:
    made, key = make.device(tenant)
    sent = frame([["a", now_ms(), 1]])
    for gateway in (0, 0, 1):
        device = Device(gateways.url(gateway), made.id, key, **TELEMETRY)
        for _ in range(3):
            device.send(sent)
            assert acknowledged(device) == sent["id"]
        store_all(tenant)
        assert len(points(tenant)) == 1
        assert counted(tenant) == (1, 0)
        device.close()


def test_a_resend_within_one_batch_is_stored_once(gateways: Platform, tenant: UUID) -> None:
    made, key = make.device(tenant)
    device = Device(gateways.url(), made.id, key, **TELEMETRY)
    sent = frame([["a", now_ms(), 1]])
    for _ in range(5):
        device.send(sent)
    assert {acknowledged(device) for _ in range(5)} == {sent["id"]}
    assert inbox(tenant) <= 1
    store_all(tenant)
    assert len(points(tenant)) == 1
    device.close()


def test_the_same_frames_over_two_gateways_at_once_are_stored_once(gateways: Platform, tenant: UUID) -> None:
    """A device whose first link is half open: what it sent there arrives after it has dialled anew."""
    members = make.devices(20, tenant)
    sent = {made.id: [frame([["a", now_ms(), n]]) for n in range(8)] for made, _key in members}
    first = {made.id: Device(gateways.url(0), made.id, key, **TELEMETRY) for made, key in members}

    def send(device: Device) -> None:
        for one in sent[UUID(device.device_id)]:
            device.send(one)

    def again(made: object, key: str) -> None:
        time.sleep(random.uniform(0.2, 0.35))  # while the first gateway hands over what came first
        device = Device(gateways.url(1), made.id, key, **TELEMETRY)  # type: ignore[attr-defined]
        send(device)
        wanted = {one["id"] for one in sent[UUID(device.device_id)]}
        assert {acknowledged(device) for _ in wanted} == wanted
        done.append(device)

    done = list[Device]()
    threads = [threading.Thread(target=send, args=(device,)) for device in first.values()]
    threads += [threading.Thread(target=again, args=one) for one in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(done) == len(members)
    store_all(tenant)
    assert len(points(tenant)) == 20 * 8
    for device in [*done, *first.values()]:
        device.close()


def test_a_former_connection_stores_nothing_and_is_told_nothing(gateways: Platform, tenant: UUID) -> None:
    """The routing table has moved on and the old socket still stands: the epoch decides, not its gateway."""
    made, key = make.device(tenant)
    device = Device(gateways.url(), made.id, key, **TELEMETRY)
    rows("UPDATE connections SET epoch = nextval('tunnel_epochs') WHERE device_id = :id RETURNING 1", id=made.id)
    device.send(frame([["a", now_ms(), 1]]))
    seen = list[str]()
    with suppress(TimeoutError, ConnectionClosed):  # its gateway may learn meanwhile that the device has moved on
        while True:
            seen.append(device.receive(1.5)["type"])
    assert "ack" not in seen
    store_all(tenant)
    assert points(tenant) == []
    device.close()


def test_frames_that_are_no_telemetry(gateways: Platform, tenant: UUID) -> None:
    made, key = make.device(tenant)
    device = Device(gateways.url(), made.id, key, **TELEMETRY)
    for bad in ({"type": "telemetry"}, {"type": "telemetry", "id": 7}, {"type": "telemetry", "id": "x" * 65}):
        device.send({**bad, "metrics": [["a", now_ms(), 1]]})
    unordered = {"metrics": [["a", now_ms(), 2]], "id": str(uuid4()), "type": "telemetry"}
    device.send(unordered)
    assert acknowledged(device) == unordered["id"]
    broken = str(uuid4())
    device.send(f'{{"type": "telemetry", "id": "{broken}", "metrics": [[')
    assert acknowledged(device) == broken
    store_all(tenant)
    assert [one.value for one in points(tenant)] == [2.0]
    told = [one.kind for one in lines(tenant, "platform")]
    assert [kind for kind in told if kind.startswith("telemetry.")] == ["telemetry.malformed"]
    device.close()


def test_telemetry_that_was_not_offered_is_not_taken(gateways: Platform, tenant: UUID) -> None:
    made, key = make.device(tenant)
    device = Device(gateways.url(), made.id, key)
    device.send(frame([["a", now_ms(), 1]]))
    device.send({"type": "ping"})
    assert device.receive()["type"] == "pong"
    until(lambda: inbox(tenant) == 0, 1)
    assert points(tenant) == []
    device.close()


def test_too_much_that_waits_is_not_taken_and_comes_again(gateways: Platform, tenant: UUID) -> None:
    """More than an agent may have under way: the rest is not acknowledged, and nothing that was is missing."""
    made, key = make.device(tenant)
    device = Device(gateways.url(), made.id, key, **TELEMETRY)
    sent = [frame([["a", now_ms(), n]]) for n in range(60)]
    for one in sent:
        device.send(one)
    acks = list[str]()
    while True:
        try:
            acks.append(acknowledged(device, 1.5))
        except TimeoutError:
            break
    assert 16 <= len(acks) < 60
    store_all(tenant)
    assert len(points(tenant)) == len(acks)
    device.close()
