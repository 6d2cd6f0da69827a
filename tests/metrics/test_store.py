"""Points and their series: found or made once, limited in number, with last values; a tenant sees its own only."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app import db
from app.metrics import series, store
from app.metrics.store import FromDevice, StaleSeries, Stored, Used
from config import settings as configuration
from tests import make
from tests.telemetry.support import points, rows

NOW = time.time_ns() // 1000
HOUR = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Few names and series; nothing of it is remembered."""

    def set_to(names: int, count: int) -> None:
        monkeypatch.setenv("EDGEFLOW_MAX_METRIC_NAMES", str(names))
        monkeypatch.setenv("EDGEFLOW_MAX_SERIES", str(count))
        configuration.settings.cache_clear()

    yield set_to
    configuration.settings.cache_clear()
    series._full.clear()


def given(org: UUID, device: UUID, points: Any) -> FromDevice:
    return FromDevice(org, device, points, HOUR)


def add(*incoming: FromDevice) -> Stored:
    with db.transaction(system=True) as session:
        return store.add(session, incoming)


def test_points_are_stored_under_series_that_are_made_once(org: UUID) -> None:
    device = make.device(org)[0].id
    tagged = ("t", '{"room":"a"}')
    for _ in range(2):
        stored = add(
            given(org, device, [("a", NOW, 1.5, None), (tagged, NOW, 2.0, NOW - 5), ("a", NOW + 1, 3.0, None)])
        )
        assert (stored.points, stored.refused) == ({(org, HOUR): 3}, {})
    assert Counter((one.name, one.value, bool(one.tags)) for one in points(org)) == {
        ("a", 1.5, False): 2, ("a", 3.0, False): 2, ("t", 2.0, True): 2,
    }  # fmt: skip
    assert [one.claimed_at is not None for one in points(org)] == [False] * 4 + [True] * 2
    assert len(rows("SELECT 1 FROM metric_series WHERE org_id = :org", org=org)) == 2


def test_a_process_that_knows_nothing_finds_the_series(org: UUID) -> None:
    device = make.device(org)[0].id
    add(given(org, device, [("a", NOW, 1.0, None)]))
    series.known.forget([device])
    add(given(org, device, [("a", NOW + 1, 2.0, None)]))
    assert len({one.name for one in points(org)}) == 1
    assert len(rows("SELECT 1 FROM metric_series WHERE org_id = :org", org=org)) == 1


def last(org: UUID) -> Any:
    row = rows("SELECT last_at, last_value FROM metric_series WHERE org_id = :org", org=org)[0]
    return row.last_value, row.last_at and round(row.last_at.timestamp() * 1_000_000)


def test_the_last_value_is_that_of_the_newest_time_in_whatever_order_they_come(org: UUID) -> None:
    device = make.device(org)[0].id
    add(given(org, device, [("a", NOW, 1.0, None), ("a", NOW + 9, 2.0, None), ("a", NOW + 5, 3.0, None)]))
    assert last(org) == (2.0, NOW + 9)
    add(given(org, device, [("a", NOW + 8, 4.0, None)]))
    assert last(org) == (2.0, NOW + 9)
    add(given(org, device, [("a", NOW + 10, 5.0, None)]))
    assert last(org) == (5.0, NOW + 10)


def test_a_series_that_was_deleted_meanwhile_is_noticed_and_made_anew(org: UUID) -> None:
    device = make.device(org)[0].id
    incoming = given(org, device, [("a", NOW, 1.0, None)])
    add(incoming)
    rows("DELETE FROM metric_series WHERE org_id = :org RETURNING 1", org=org)
    with pytest.raises(StaleSeries):
        add(incoming)
    add(incoming)
    assert [one.value for one in points(org)] == [1.0]


def test_a_device_that_is_gone_has_no_points(org: UUID) -> None:
    stored = add(given(org, uuid4(), [("a", NOW, 1.0, None)]))
    assert (stored.points[org, HOUR], stored.refused) == (0, {})


def test_more_names_than_allowed_are_refused_and_nothing_else(org: UUID, limits: Any) -> None:
    limits(3, 1_000)
    one, other = (device.id for device, _key in make.devices(2, org))
    elsewhere = make.organization()
    foreign = make.device(elsewhere)[0].id
    stored = add(
        given(org, one, [(f"m{n}", NOW, 1.0, None) for n in range(5)]),
        given(elsewhere, foreign, [("m9", NOW, 1.0, None)]),
    )
    assert stored.points == {(org, HOUR): 3, (elsewhere, HOUR): 1}
    assert {org: reasons.total() for org, reasons in stored.refused.items()} == {org: 2}
    assert "EDGEFLOW_MAX_METRIC_NAMES" in next(iter(stored.refused[org]))
    # What there is goes on, and names that there are may get more series.
    again = add(given(org, one, [("m0", NOW + 1, 2.0, None)]), given(org, other, [("m1", NOW, 3.0, None)]))
    assert (again.points, again.refused) == ({(org, HOUR): 5 - 3}, {})
    assert {point.name for point in points(org)} == {"m0", "m1", "m2"}


def test_more_series_than_allowed_are_refused(org: UUID, limits: Any) -> None:
    limits(1_000, 4)
    members = [device.id for device, _key in make.devices(6, org)]
    stored = add(*(given(org, device, [("a", NOW, 1.0, None)] * 2) for device in members))
    assert (stored.points[org, HOUR], stored.refused[org].total()) == (8, 4)
    assert "EDGEFLOW_MAX_SERIES" in next(iter(stored.refused[org]))


def test_two_workers_at_once_keep_to_the_limit_and_make_each_series_once(org: UUID, limits: Any) -> None:
    limits(1_000, 50)
    device = make.device(org)[0].id
    refused, errors = list[int](), list[Exception]()

    def run(first: int) -> None:
        incoming = given(org, device, [(f"m{n:03d}", NOW, 1.0, None) for n in range(first, first + 40)])
        for _ in range(5):
            try:
                refused.append(add(incoming).refused.get(org, Counter()).total())
                return
            except StaleSeries:
                series._full.clear()
            except Exception as error:
                errors.append(error)
                return

    threads = [threading.Thread(target=run, args=(first,)) for first in (0, 0, 20, 40, 20, 40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert errors == []
    assert len(refused) == len(threads)
    assert sum(refused) > 0
    assert len(rows("SELECT 1 FROM metric_series WHERE org_id = :org", org=org)) == 50


def test_usage_adds_up(org: UUID) -> None:
    for _ in range(2):
        with db.transaction(system=True) as session:
            store.count(session, {org: Used(5, 2, 1), uuid4(): Used(1, 1, 1)})
    found = rows("SELECT points, refused, logs FROM metric_usage WHERE org_id = :org", org=org)
    assert [tuple(row) for row in found] == [(10, 4, 2)]


def test_a_tenant_sees_its_own_points_only(org: UUID) -> None:
    other = make.organization()
    for owner in (org, other):
        add(given(owner, make.device(owner)[0].id, [("a", NOW, 1.0, None)]))
    for owner in (org, other):
        with db.transaction(owner) as session:
            for table in ("metric_points", "metric_series"):
                assert list(session.scalars(text(f"SELECT org_id FROM {table}"))) == [owner]
    with db.transaction() as session:
        assert session.scalars(text("SELECT org_id FROM metric_points")).all() == []
