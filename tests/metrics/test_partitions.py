"""Partitions and retention: what lies where, what goes when, and that nothing is lost on the way."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from sqlalchemy import create_engine, text

from app import db
from app.billing import plans
from app.clock import now, rfc3339
from app.metrics import partitions
from app.metrics.partitions import TABLES
from app.processes import ScheduledRun
from config.settings import settings
from tests import make
from tests.metrics import store
from workers import maintenance

TABLE_NAMES = [one.table for one in TABLES]


def tend(hour: int = 12) -> None:
    """One run of the job, for an occurrence of its own."""
    due_at = now().replace(hour=hour)
    with db.transaction() as session:
        session.merge(ScheduledRun(job="maintenance.partitions", due_at=due_at))
    maintenance.tend_partitions(rfc3339(due_at))
    with db.transaction() as session:
        session.execute(text("DELETE FROM scheduled_runs WHERE job = 'maintenance.partitions'"))


def owner(statement: str, **values: Any) -> None:
    """As the login that migrates."""
    engine = create_engine(settings().owner_url)
    with engine.begin() as connection:
        connection.execute(text(statement), values)
    engine.dispose()


def days_of(table: str) -> set[str]:
    query = (
        "SELECT right(c.relname, 8) FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
        "WHERE i.inhparent = to_regclass(:table) AND c.relname ~ '_p[0-9]{8}$'"
    )
    with db.transaction() as session:
        return set(session.execute(text(query), {"table": table}).scalars())


def add(table: str, org: UUID, moment: datetime, series: int = 1) -> None:
    """A row of that time."""
    columns = {
        "metric_points": ("series_id, value", ":series, 1"),
        "log_entries": ("level, source, message", "1, 'device', 'x'"),
    }.get(table, ("series_id, count, sum, min, max, last, last_at", ":series, 1, 1, 1, 1, 1, now()"))
    with db.transaction(system=True) as session:
        session.execute(
            text(f"INSERT INTO {table} (org_id, time, {columns[0]}) VALUES (:org, :moment, {columns[1]})"),
            {"org": org, "moment": moment, "series": series},
        )


def where(table: str, org: UUID) -> list[str]:
    """In which partitions the organization's rows lie, oldest first."""
    with db.transaction(system=True) as session:
        query = f"SELECT tableoid::regclass::text FROM {table} WHERE org_id = :org ORDER BY time"
        return list(session.execute(text(query), {"org": org}).scalars())


@pytest.fixture
def _first_days() -> Iterator[None]:
    """Tables as a migration leaves them: partitions from yesterday on."""
    for one in TABLES:
        for day in days_of(one.table):
            if datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC) < now() - timedelta(days=2):
                owner(f"DROP TABLE {one.table}_p{day}")
    yield
    tend()


@pytest.mark.usefixtures("_first_days")
@pytest.mark.parametrize("one", TABLES, ids=TABLE_NAMES)
def test_partitions_are_made_for_all_that_may_come_and_rows_move_into_theirs(
    org: UUID, one: partitions.Partitioned
) -> None:
    moments = [now() - timedelta(days=days) for days in (6, 4, 0)]
    for moment in moments:
        add(one.table, org, moment)
    unsorted = where(one.table, org)
    tend()
    form = "%Y%m01" if one.every == "month" else "%Y%m%d"
    assert where(one.table, org) == [f"{one.table}_p{moment:{form}}" for moment in moments]
    if one.every == "day":
        assert unsorted[0] == f"{one.table}_default"
    ahead = now() + timedelta(days=one.ahead if one.every == "day" else 28 * one.ahead)
    assert f"{ahead:{form}}" in days_of(one.table)


@pytest.mark.usefixtures("_first_days")
def test_rows_that_come_while_their_partition_is_made_are_neither_lost_nor_in_its_way(org: UUID) -> None:
    moment, over, stored = now() - timedelta(days=5), threading.Event(), []

    def feed() -> None:
        # Transactions that stay open for a while, as those that store do.
        while not over.is_set():
            with db.transaction(system=True) as session:
                values = {"org": org, "moment": moment}
                statement = "INSERT INTO metric_points (org_id, series_id, time, value) VALUES (:org, 1, :moment, 1)"
                session.execute(text(statement), values)
                over.wait(0.02)
            stored.append(1)

    feeders = [threading.Thread(target=feed) for _ in range(3)]
    for thread in feeders:
        thread.start()
    try:
        over.wait(0.2)
        with db.transaction(system=True):
            partitions.create(TABLES[0])
        over.wait(0.2)
    finally:
        over.set()
        for thread in feeders:
            thread.join()
    found = where("metric_points", org)
    assert len(found) == len(stored) > 10
    assert set(found) == {f"metric_points_p{moment:%Y%m%d}"}


@pytest.mark.parametrize("one", TABLES, ids=TABLE_NAMES)
def test_partitions_go_when_no_plan_keeps_them(org: UUID, one: partitions.Partitioned) -> None:
    keep = plans.longest(one.kept)
    old, kept = now() - keep - timedelta(days=40), now() - keep + timedelta(days=1)
    owner(f"UPDATE organizations SET plan = 'enterprise' WHERE id = '{org}'")
    with db.transaction(system=True) as session:
        for moment in (old, kept):
            session.execute(text(f"SELECT ensure_partition('{one.table}', '{one.every}', :at)"), {"at": moment})
    add(one.table, org, old)
    add(one.table, org, kept)
    tend()
    form = "%Y%m01" if one.every == "month" else "%Y%m%d"
    assert where(one.table, org) == [f"{one.table}_p{kept:{form}}"]
    assert f"{old:{form}}" not in days_of(one.table)


@pytest.fixture
def tenants() -> dict[str, UUID]:
    """An organization of each plan, and one whose plan is sold no more: it counts as free."""
    found = {plan: make.organization(plan) for plan in (*plans.plans(), "sold no more")}
    for plan, org_id in found.items():
        with db.transaction(org_id) as session:
            values = {"plan": plan, "org": org_id}
            session.execute(text("UPDATE organizations SET plan = :plan WHERE id = :org"), values)
    return found


@pytest.mark.parametrize("one", TABLES, ids=TABLE_NAMES)
def test_each_hour_goes_what_a_shorter_plan_has_just_ceased_to_keep(
    tenants: dict[str, UUID], one: partitions.Partitioned
) -> None:
    keep = {plan: getattr(plans.plan(plan).retention, one.kept) for plan in tenants}
    for past in sorted(set(keep.values())):
        with db.transaction(system=True) as session:
            for age in (past - timedelta(minutes=30), past + timedelta(minutes=30)):
                session.execute(
                    text(f"SELECT ensure_partition('{one.table}', '{one.every}', :at)"), {"at": now() - age}
                )
    for plan, org_id in tenants.items():
        for age in (timedelta(minutes=-30), timedelta(minutes=30)):
            add(one.table, org_id, now() - keep[plan] + age)
    tend()
    longest = plans.longest(one.kept)
    left = {plan: len(where(one.table, org_id)) for plan, org_id in tenants.items()}
    # What the longest plan ceased to keep goes with its partition, when all of that is too old.
    assert left == {plan: 2 if keep[plan] == longest else 1 for plan in tenants}


@pytest.mark.usefixtures("_first_days")
def test_once_a_day_goes_what_a_changed_plan_left_behind(tenants: dict[str, UUID]) -> None:
    moment = now() - timedelta(days=12)
    with db.transaction(system=True) as session:
        session.execute(text("SELECT ensure_partition('metric_points', 'day', :at)"), {"at": moment})
    for org_id in tenants.values():
        add("metric_points", org_id, moment)
    tend(hour=12)
    assert [len(where("metric_points", org_id)) for org_id in tenants.values()] == [1, 1, 1, 1]
    tend(hour=3)
    left = {plan: len(where("metric_points", org_id)) for plan, org_id in tenants.items()}
    assert left == {"free": 0, "pro": 1, "enterprise": 1, "sold no more": 0}


@pytest.mark.usefixtures("_first_days")
def test_what_lies_before_every_partition_goes_too(tenants: dict[str, UUID]) -> None:
    for org_id in tenants.values():
        add("metric_points", org_id, now() - timedelta(days=400))
    tend(hour=3)
    assert [where("metric_points", org_id) for org_id in tenants.values()] == [[], [], [], []]


def test_a_table_that_is_busy_holds_up_none_of_the_others(org: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "LOCK_WAIT", "SET LOCAL lock_timeout = '50ms'")
    old = now() - timedelta(days=300)
    for table in ("metric_points", "log_entries"):
        with db.transaction(system=True) as session:
            session.execute(text(f"SELECT ensure_partition('{table}', 'day', :at)"), {"at": old})
    with psycopg.connect(settings().owner_url) as busy:
        busy.execute("LOCK TABLE metric_points IN ACCESS SHARE MODE")
        tend()
        assert f"{old:%Y%m%d}" in days_of("metric_points")
        assert f"{old:%Y%m%d}" not in days_of("log_entries")
    tend()
    assert f"{old:%Y%m%d}" not in days_of("metric_points")


def test_an_occurrence_delivered_twice_tends_once(org: UUID) -> None:
    due_at = now()
    with db.transaction() as session:
        session.merge(ScheduledRun(job="maintenance.partitions", due_at=due_at))
    maintenance.tend_partitions(rfc3339(due_at))
    old = now() - timedelta(days=300)
    with db.transaction(system=True) as session:
        session.execute(text("SELECT ensure_partition('metric_points', 'day', :at)"), {"at": old})
    maintenance.tend_partitions(rfc3339(due_at))
    assert f"{old:%Y%m%d}" in days_of("metric_points")


def test_the_plans() -> None:
    assert list(plans.plans()) == ["free", "pro", "enterprise"]
    free = plans.plan("free")
    assert (free.name, free.retention.raw, free.retention.hours) == ("Free", timedelta(days=7), timedelta(days=365))
    assert plans.plan("none such") is free
    for kind in ("raw", "minutes", "hours", "logs"):
        kept = [getattr(plan.retention, kind) for plan in plans.plans().values()]
        assert kept == sorted(kept)
        # A device's own clock may be a week late.
        assert min(kept) >= timedelta(days=7)
        assert plans.longest(kind) == kept[-1]


def test_the_store_of_these_tests_knows_every_table() -> None:
    assert {*store.TABLES, "log_entries"} == set(TABLE_NAMES)
