"""What the maintenance jobs leave and take."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app import db
from app.auth.models import RefreshToken, Session
from app.clock import now, rfc3339
from app.devices.models import Connection
from app.idempotency import IdempotencyKey
from app.organizations.models import Invitation
from app.processes import Process, ScheduledRun
from config.settings import settings
from tests import make
from workers import maintenance

AGES = {"minute": timedelta(minutes=1), "day": timedelta(days=1, minutes=1), "month": timedelta(days=31)}


def add(*rows: Any) -> None:
    with db.transaction(system=True) as session:
        for row in rows:
            session.merge(row)


def occurrence(job: str) -> str:
    due_at = now()
    add(ScheduledRun(job=job, due_at=due_at))
    return rfc3339(due_at)


def gateway(silent: float) -> str:
    """A web process whose heartbeat is that many seconds old."""
    process = Process(id=uuid4(), kind="web", host="test", pid=1, heartbeat_at=now() - timedelta(seconds=silent))
    add(process)
    return str(process.id)


def connect(org: UUID, gateway: str, silent: float = 0) -> UUID:
    device, _key = make.device(org)
    heard = now() - timedelta(seconds=silent)
    began = now() - timedelta(hours=1)
    add(
        Connection(
            org_id=org, device_id=device.id, epoch=1, gateway=gateway, connected_at=began, last_seen_at=heard,
            in_flight=3,
        )
    )  # fmt: skip
    return device.id


def reason(device_id: UUID) -> str | None:
    with db.transaction(system=True) as session:
        connection = session.get_one(Connection, device_id)
        assert (connection.disconnected_at is None) == (connection.disconnect_reason is None)
        return connection.disconnect_reason


def exists(model: type[Any], key: Any) -> bool:
    with db.transaction(system=True) as session:
        return session.get(model, key) is not None


def test_connections_of_dead_gateways_are_closed_in_every_organization(org: UUID) -> None:
    other = make.organization("Other")
    dead, alive, gone = gateway(silent=20), gateway(silent=5), str(uuid4())
    held = [connect(org, dead), connect(other, dead), connect(org, gone), connect(org, alive)]
    maintenance.sweep_gateways(occurrence("maintenance.sweep_gateways"))
    assert [reason(device_id) for device_id in held] == ["gateway lost", "gateway lost", "gateway lost", None]


def test_a_gateway_that_has_just_begun_is_waited_for(org: UUID) -> None:
    begun = str(uuid4())
    connect(org, begun)
    device_id = connect(org, begun)
    with db.transaction(system=True) as session:
        session.get_one(Connection, device_id).connected_at = now()
    maintenance.sweep_gateways(occurrence("maintenance.sweep_gateways"))
    assert reason(device_id) is None


def test_silent_devices_are_closed(org: UUID) -> None:
    alive = gateway(silent=0)
    quiet, heard = settings().offline_after + 5, settings().offline_after - 5
    silent, speaking = connect(org, alive, silent=quiet), connect(org, alive, silent=heard)
    maintenance.sweep_gateways(occurrence("maintenance.sweep_gateways"))
    assert (reason(silent), reason(speaking)) == ("silent", None)


def test_a_connection_that_is_being_written_is_left_to_the_next_sweep(org: UUID) -> None:
    device_id = connect(org, gateway(silent=20))
    with db.engine().connect() as other:
        other.execute(text("SET LOCAL ROLE edgeflow_system"))
        other.execute(text("SELECT FROM connections WHERE device_id = :id FOR UPDATE"), {"id": device_id})
        maintenance.sweep_gateways(occurrence("maintenance.sweep_gateways"))
        assert reason(device_id) is None
    maintenance.sweep_gateways(occurrence("maintenance.sweep_gateways"))
    assert reason(device_id) == "gateway lost"


def test_long_dead_processes_are_forgotten() -> None:
    dead, dying = gateway(silent=90_000), gateway(silent=20)
    maintenance.sweep_gateways(occurrence("maintenance.sweep_gateways"))
    assert (exists(Process, UUID(dead)), exists(Process, UUID(dying))) == (False, True)


def test_an_occurrence_delivered_twice_sweeps_once(org: UUID) -> None:
    due_at = occurrence("maintenance.sweep_gateways")
    maintenance.sweep_gateways(due_at)
    device_id = connect(org, gateway(silent=20))
    maintenance.sweep_gateways(due_at)
    assert reason(device_id) is None


def old_rows(org: UUID, user_id: UUID, past: datetime) -> dict[type[Any], tuple[Any, Any]]:
    """One row of each kind whose time was up at ``past``, with its key."""
    key, session_id, invitation_id, job = uuid4().bytes, uuid4(), uuid4(), f"test.{uuid4()}"
    return {
        IdempotencyKey: (key, IdempotencyKey(key_hash=key, org_id=org, request_hash=b"", created_at=past)),
        Session: (session_id, Session(id=session_id, user_id=user_id, org_id=org, expires_at=past)),
        RefreshToken: (key, RefreshToken(token_hash=key, session_id=session_id, expires_at=past)),
        Invitation: (
            invitation_id,
            Invitation(
                id=invitation_id, org_id=org, email=f"{job}@example.com", role="viewer", token_hash=key, expires_at=past
            ),
        ),
        ScheduledRun: ((job, past), ScheduledRun(job=job, due_at=past)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("age", "kept"),
    [
        ("minute", {IdempotencyKey, Session, RefreshToken, Invitation, ScheduledRun}),
        ("day", {Session, RefreshToken, Invitation}),
        ("month", set()),
    ],
)
def test_clean_keeps_each_kind_for_its_time(org: UUID, age: str, kept: set[type[Any]]) -> None:
    rows = old_rows(org, make.user(org).id, now() - AGES[age])
    add(*(row for _key, row in rows.values()))
    maintenance.clean(occurrence("maintenance.clean"))
    assert {model for model, (key, _row) in rows.items() if exists(model, key)} == kept


def test_clean_forgets_sessions_revoked_long_ago_though_they_would_still_live(org: UUID) -> None:
    session = Session(
        id=uuid4(), user_id=make.user(org).id, org_id=org, expires_at=now() + AGES["month"],
        revoked_at=now() - AGES["month"],
    )  # fmt: skip
    add(session)
    maintenance.clean(occurrence("maintenance.clean"))
    assert not exists(Session, session.id)
