"""The released agent only answers: the gateway that holds it asks, and what it tells is stored like telemetry."""

import time
from uuid import UUID, uuid4

import pytest

from app.tunnel.polling import FIRST_AFTER
from tests import make
from tests.e2e.conftest import until
from tests.platform import Platform
from tests.telemetry.support import TELEMETRY, points, store_all
from tests.tunnel.conftest import Device
from tests.twins.v1_agent import V1Agent

pytestmark = pytest.mark.xdist_group("gateways")


def soon() -> UUID:
    """An id whose place in the minute comes just after the first moment at which its device may be asked."""
    place = int((time.time() + FIRST_AFTER + 3) % 60 * 1000)
    number = uuid4().int
    return UUID(int=number - number % 60_000 + place)


def test_a_v1_agent_is_asked_for_its_figures_and_they_are_stored(gateways: Platform, tenant: UUID) -> None:
    members = [make.device(tenant, id=soon()) for _ in range(2)]
    agents = [V1Agent(gateways.url(0), device_id=str(made.id), api_key=key) for made, key in members[:1]]
    made, key = members[1]
    newer = Device(gateways.url(0), made.id, key, **TELEMETRY)
    for agent in agents:
        agent.start()
        agent.wait_connected()
    (agent,) = agents
    try:
        until(lambda: [one for one in agent.commands() if one["action"] == "get_system_metrics"], 25)
        assert agent.dropped == []
        time.sleep(1)
        store_all(tenant)
        until(lambda: store_all(tenant) or points(tenant), 5)
        found = {one.name: one for one in points(tenant)}
        assert {"cpu.usage_percent", "memory.percent", "load_avg.1min", "network.rx_bytes"} <= found.keys()
        assert "hostname" not in found
        assert {one.device_id for one in found.values()} == {members[0][0].id}
        assert all(abs(one.time.timestamp() - time.time()) < 15 for one in found.values())
    finally:
        agent.stop()
    newer.send({"type": "ping"})
    assert newer.receive()["type"] == "pong"  # nobody asked the one that offers telemetry
    newer.close()
