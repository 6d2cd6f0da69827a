"""Points are counted by the hour of their arrival, each once, and no more stored in a day than the plan allows."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import text

from app import db
from app.billing import plans
from app.billing import points as quota
from app.telemetry import service
from config.settings import settings
from tests import make
from tests.logs.entries import journal
from tests.telemetry.support import counted, inbox, now_ms, points, put, rows, store_all, used

NOON = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0) - timedelta(days=1)
"""Of a day that nothing else arrives in."""


def body(*values: float) -> bytes:
    return orjson.dumps({"type": "telemetry", "id": str(uuid4()), "metrics": [["a", now_ms(), one] for one in values]})


def put_at(org_id: UUID, device_id: UUID, arrived: datetime, *values: float) -> None:
    with db.transaction(system=True) as session:
        session.execute(
            text("INSERT INTO telemetry_inbox (org_id, device_id, body, received_at) VALUES (:o, :device, :body, :at)"),
            {"o": org_id, "device": device_id, "body": body(*values), "at": arrived},
        )


def hours(org_id: UUID) -> list[tuple[datetime, int, int]]:
    """Hour, points, refused."""
    query = "SELECT hour, points, refused FROM usage_points WHERE org_id = :org ORDER BY hour"
    return [tuple(row) for row in rows(query, org=org_id)]


def values(org_id: UUID) -> list[float]:
    return sorted(point.value for point in points(org_id))


@pytest.fixture
def limited(org: UUID, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``limited(100)``: so many points a day are what the organization's plan allows."""
    free = plans.plan(plans.DEFAULT)

    def limit(most: int | None) -> None:
        monkeypatch.setitem(plans.plans(), "tiny", replace(free, id="tiny", quotas={**free.quotas, quota.QUOTA: most}))
        rows("UPDATE organizations SET plan = 'tiny' WHERE id = :org RETURNING 1", org=org)

    return limit


def test_points_are_counted_in_the_hour_and_for_the_organization_of_their_arrival(org: UUID) -> None:
    device, other = make.device(org)[0].id, make.organization()
    foreign = make.device(other)[0].id
    put_at(org, device, NOON, 1, 2)
    put_at(org, device, NOON + timedelta(minutes=59, seconds=59), 3)
    put_at(org, device, NOON + timedelta(hours=1), 4, 5, 6)
    put_at(other, foreign, NOON, 7)
    store_all(org)
    store_all(other)
    assert hours(org) == [(NOON, 3, 0), (NOON + timedelta(hours=1), 3, 0)]
    assert hours(other) == [(NOON, 1, 0)]


def test_a_transaction_that_breaks_counts_nothing(org: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    put_at(org, make.device(org)[0].id, NOON, 1, 2)

    def broken(*given: Any) -> None:
        count(*given)
        db.session.execute(text("SET LOCAL statement_timeout = 1"))
        db.session.execute(text("SELECT pg_sleep(1)"))

    count = quota.count
    with monkeypatch.context() as patch:
        patch.setattr(quota, "count", broken)
        with pytest.raises(service.AWAY):
            service.store()
    assert (inbox(org), hours(org)) == (1, [])
    store_all(org)
    assert hours(org) == [(NOON, 2, 0)]


def test_what_is_over_the_days_limit_is_not_stored_but_taken_and_hours(org: UUID, limited: Any) -> None:
    limited(5)
    device = make.device(org)[0].id
    put_at(org, device, NOON, 1, 2, 3)
    store_all(org)
    put_at(org, device, NOON + timedelta(hours=1), 4, 5, 6, 7)
    put_at(org, device, NOON + timedelta(hours=2), 8)
    store_all(org)
    assert values(org) == [1.0, 2.0, 3.0, 4.0, 5.0]  # the first ones
    assert hours(org) == [(NOON + timedelta(hours=n), *numbers) for n, numbers in enumerate([(3, 0), (2, 2), (0, 1)])]
    assert inbox(org) == 0
    assert used(org)[:2] == (5, 3)


def test_the_next_day_has_room_again(org: UUID, limited: Any) -> None:
    limited(2)
    device, midnight = make.device(org)[0].id, NOON - timedelta(hours=12)
    put_at(org, device, midnight - timedelta(seconds=1), 1, 2, 3)
    put_at(org, device, midnight, 4, 5, 6)  # in one transaction with the former
    store_all(org)
    assert values(org) == [1.0, 2.0, 4.0, 5.0]
    assert hours(org) == [(midnight - timedelta(hours=1), 2, 1), (midnight, 2, 1)]


def test_the_organization_is_told_once_a_day(org: UUID, limited: Any) -> None:
    limited(1)
    device = make.device(org)[0].id
    for hours in (0, 1, 2, 24):
        put_at(org, device, NOON - timedelta(hours=24 - hours), 1, 2)
        store_all(org)
    told = journal(org, "quota.exceeded")
    assert [(one.level, one.fields["day"], one.fields["limit"]) for one in told] == [
        (2, f"{NOON - timedelta(days=1):%Y-%m-%d}", 1),
        (2, f"{NOON:%Y-%m-%d}", 1),
    ]


def test_log_lines_are_stored_over_the_limit(org: UUID, limited: Any) -> None:
    limited(0)
    device = make.device(org)[0].id
    frame = {"metrics": [["a", now_ms(), 1]], "logs": [[now_ms(), "info", "still here"]]}
    put(org, device, orjson.dumps(frame))
    store_all(org)
    assert used(org) == (0, 1, 1)


@pytest.mark.parametrize("off", [True, False])
def test_without_a_limit_points_are_only_hours(
    org: UUID, limited: Any, monkeypatch: pytest.MonkeyPatch, off: bool
) -> None:
    limited(1 if off else None)
    if off:
        monkeypatch.setattr(quota, "settings", lambda: replace(settings(), billing=False))
    put_at(org, make.device(org)[0].id, NOON, 1, 2, 3)
    store_all(org)
    assert hours(org) == [(NOON, 3, 0)]
    assert journal(org, "quota.exceeded") == []


def store_at_once(org_id: UUID, monkeypatch: pytest.MonkeyPatch, threads: int) -> list[Exception]:
    """Many workers, each with a frame at a time, until the inbox is empty."""
    monkeypatch.setattr(service, "_turns", threading.BoundedSemaphore(threads))
    monkeypatch.setattr(service, "FRAMES_AT_ONCE", 1)
    errors, ready = list[Exception](), threading.Barrier(threads)

    def run() -> None:
        ready.wait()
        try:
            while inbox(org_id):
                service.store()
        except Exception as error:
            errors.append(error)

    running = [threading.Thread(target=run) for _ in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join(60)
    return errors


def test_fifty_workers_at_the_limit_store_exactly_what_is_left(
    org: UUID, limited: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(100)
    members = [device.id for device, _key in make.devices(5, org)]
    for number in range(60):
        put_at(org, members[number % 5], NOON + timedelta(hours=number % 3), number, number, number)
    assert store_at_once(org, monkeypatch, 50) == []
    assert len(points(org)) == 100
    assert counted(org) == (100, 80)
    assert len(journal(org, "quota.exceeded")) == 1


def test_many_store_at_once_while_the_limit_is_far_and_find_out_when_it_was_not(
    org: UUID, limited: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight that have all seen room for themselves, in other hours of one day: none has waited for another."""
    limited(10)
    for number, (device, _key) in enumerate(make.devices(8, org)):
        put_at(org, device.id, NOON + timedelta(hours=number), number, number)
    together, passed, overtaken = threading.Barrier(8), list[bool](), list[bool]()

    def room(*given: Any) -> Any:
        found = look(*given)
        if len(passed) < 8:
            passed.append(not found.left)
            together.wait(20)
        return found

    def count(*given: Any) -> None:
        try:
            add_up(*given)
        except quota.Overtaken:
            overtaken.append(True)
            raise

    look, add_up = quota.room, quota.count
    monkeypatch.setattr(quota, "room", room)
    monkeypatch.setattr(quota, "count", count)
    assert store_at_once(org, monkeypatch, 8) == []
    assert passed == [True] * 8
    assert len(overtaken) >= 3
    assert len(points(org)) == 10
    assert counted(org) == (10, 6)
