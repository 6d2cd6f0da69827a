"""Settings of a device through ``PUT /edge-nodes/:id/configure``: checked here, sent as they were given, recorded."""

from uuid import UUID

import pytest
from sqlalchemy import text

from app import db
from tests import make
from tests.platform import Platform
from tests.tunnel.conftest import V2, Caller, Device

pytestmark = pytest.mark.xdist_group("gateways")


def test_how_often_it_reports_may_be_set_as_in_the_shadow(gateways: Platform, tenant: UUID, caller: Caller) -> None:
    given, key = make.device(tenant)
    device = Device(gateways.url(0), given.id, key, **V2)
    path, settings = f"/edge-nodes/{given.id}/configure", {"report_interval": 2, "telemetry_interval": 60}
    answer = caller.later("PUT", path, {"settings": settings})
    command = device.answer({"settings": settings})
    assert (command["action"], command["payload"]) == ("configure", {"settings": settings})
    assert answer.result().json() == {"settings": settings}
    with db.transaction(tenant) as session:
        assert session.scalar(text("SELECT settings FROM devices")) == settings
    device.close()


@pytest.mark.parametrize("wrong", [0, 3601, "soon", True])
def test_an_interval_that_no_agent_takes_is_refused_before_it_is_sent(
    gateways: Platform, tenant: UUID, caller: Caller, wrong: object
) -> None:
    given, key = make.device(tenant)
    device = Device(gateways.url(0), given.id, key, **V2)
    answer = caller("PUT", f"/edge-nodes/{given.id}/configure", {"settings": {"report_interval": wrong}})
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")
    assert "report_interval" in str(answer.json()["details"])
    device.close()
