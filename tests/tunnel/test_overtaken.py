"""A worker that was stopped between claiming and sending: what others have sent since is not undone by it."""

from uuid import UUID, uuid4

import pytest

from app import db
from app.deployments.models import turns
from app.tunnel import bus
from app.tunnel.bus import Command
from tests import make
from tests.platform import Platform
from tests.tunnel.conftest import V2, Caller, Device
from tests.tunnel.test_slow_reader import gateway_of

pytestmark = pytest.mark.xdist_group("gateways")


def turn() -> int:
    with db.transaction() as session:
        return session.scalar(turns)  # type: ignore[return-value]


def send(tenant: UUID, device_id: UUID, gateway: str, number: int) -> str:
    command = Command(uuid4(), device_id, gateway, number)
    assert bus.send_many(tenant, "remove_flow", {}, [command], timeout=5, answer_to="rollouts.settle") == set()
    return str(command.id)


def test_a_command_that_later_ones_have_overtaken_is_dropped(gateways: Platform, tenant: UUID, caller: Caller) -> None:
    made, key = make.device(tenant)
    device = Device(gateways.url(0), made.id, key, **V2)
    gateway = gateway_of(caller, made.id)
    stopped, newer = turn(), turn()

    first = send(tenant, made.id, gateway, newer)
    assert device.answer()["id"] == first
    send(tenant, made.id, gateway, stopped)
    last = send(tenant, made.id, gateway, turn())
    assert device.answer()["id"] == last

    # Nor does it get through on the device's next connection to that gateway.
    device.close()
    device = Device(gateways.url(0), made.id, key, **V2)
    send(tenant, made.id, gateway, stopped)
    last = send(tenant, made.id, gateway, turn())
    assert device.answer()["id"] == last
    device.close()


def test_what_comes_again_under_its_id_is_no_older(gateways: Platform, tenant: UUID, caller: Caller) -> None:
    made, key = make.device(tenant)
    device = Device(gateways.url(0), made.id, key, **V2)
    command = Command(uuid4(), made.id, gateway_of(caller, made.id), turn())
    for _ in range(2):
        bus.send_many(tenant, "remove_flow", {}, [command], timeout=5, answer_to="rollouts.settle")
        assert device.receive()["id"] == str(command.id)
    device.close()
