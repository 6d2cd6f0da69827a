"""Usage by the hour: what a naive twin finds, added up once however often it is, and told in buckets without gaps."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, example, given, settings
from sqlalchemy import text

from app import db, retention
from app.billing import usage, usage_queries
from app.errors import ValidationFailed
from tests import make
from tests.billing.histories import BEGIN, END, HOURS, History, at, note

COLUMNS = "device_seconds, commands, deployments, points"


def execute(statement: str, **values: Any) -> Any:
    with db.transaction(system=True) as session:
        return session.execute(text(statement), values)


def hours(org_id: UUID) -> dict[int, tuple[int, ...]]:
    """Hours since ``BEGIN`` to device_seconds, commands, deployments, points."""
    found = execute(f"SELECT hour, {COLUMNS} FROM usage_hours WHERE org_id = :org", org=org_id)
    return {round((row.hour - BEGIN).total_seconds() / 3600): tuple(row[1:]) for row in found}


def online(org_id: UUID) -> list[int]:
    """Device-seconds of each of the hours since ``BEGIN``."""
    found = hours(org_id)
    return [found.get(hour, (0,))[0] for hour in range(HOURS)]


def aggregate() -> int:
    return usage.aggregate(at(0), at(END))


def count_points(org_id: UUID, begun: float, number: int, refused: int = 0) -> None:
    """As storing does, in the hour that begins so many seconds after ``BEGIN``."""
    statement = "INSERT INTO usage_points (org_id, hour, points, refused) VALUES (:org, :hour, :number, :refused)"
    execute(statement, org=org_id, hour=at(begun), number=number, refused=refused)


moments = st.integers(-2 * 3600, END - 1)
steps = st.tuples(st.sampled_from(["connect", "connect", "end", "end", "come_back", "delete"]), moments)


def lived(org_id: UUID, device_id: UUID, given_steps: list[tuple[str, int]]) -> History:
    """A device's history, its moments in order and no two the same."""
    history = History(org_id, device_id)
    for when, name in sorted({when: name for name, when in given_steps}.items()):
        getattr(history, name)(when)
    return history


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.lists(steps, max_size=12), min_size=1, max_size=3), st.none() | st.integers(-7200, 3600))
@example([[("connect", -3600)]], 0)  # of its beginning the journal knows nothing any more
@example([[("connect", -3600), ("end", 9000)]], 0)
@example([[("connect", -3600), ("connect", 9000)]], 0)
@example([[("connect", -3600), ("delete", 9000)]], None)
@example([[("connect", 0), ("end", 3600), ("come_back", 3601), ("connect", 7200)]], None)
@example([[("connect", 100), ("end", 200), ("connect", END - 1)]], None)
def test_time_online_is_what_a_look_at_every_second_finds(
    histories: list[list[tuple[str, int]]], kept_since: int | None
) -> None:
    org, other = make.organization(), make.organization()
    lives = list[History]()
    for number, given_steps in enumerate(histories):
        owner = other if number == 2 else org
        lives.append(lived(owner, make.device(owner)[0].id, given_steps))
    for one in lives:
        # A device that is gone has no row that could tell what the journal has forgotten.
        since = float("-inf") if kept_since is None or one.deleted else min(kept_since, 0)
        one.write(since=since)
    aggregate()
    for owner in (org, other):
        wanted = [sum(one.seconds(hour) for one in lives if one.org_id == owner) for hour in range(HOURS)]
        assert online(owner) == wanted


def test_an_end_that_bears_a_later_time_than_the_next_beginning_ends_only_its_own_connection(org: UUID) -> None:
    """Times are those at which transactions began: they need not be in the order of the commits."""
    history = History(org, make.device(org)[0].id)
    history.connect(100)
    history.end(300)
    history.connect(250)  # its transaction began first, and ended last
    history.write()
    aggregate()
    assert online(org) == [3500] + [3600] * (HOURS - 1)


def test_a_connection_that_was_given_up_and_lives_is_online_although_nothing_was_noted(org: UUID) -> None:
    history = History(org, make.device(org)[0].id)
    history.connect(0)
    history.end(1800)
    assert history.row
    history.row["ended"] = None
    history.write()
    aggregate()
    assert online(org) == [3600] * HOURS


def test_many_devices_count_each_for_itself_and_none_more_than_its_hour(org: UUID) -> None:
    for device, _key in make.devices(5, org):
        history = History(org, device.id)
        for when in (-50, -40, 10, 20, 7300):  # each in place of the one before
            history.connect(when)
        history.write()
    aggregate()
    assert online(org) == [5 * 3600] * HOURS


def test_commands_deployments_and_points_are_counted_in_their_hour(org: UUID) -> None:
    for when in (0, 3599.999, 3600):
        note(org, when, "command", action="list_flows", outcome="ok")
    note(org, 7200, "execution.succeeded", attempt=3)
    note(org, 7200, "execution.failed", attempt=3, error_code="UNHEALTHY")
    note(org, 7200, "execution.canceled", attempt=0)
    note(org, 7200, "auth.signed_in")
    note(org, 10, "deployment.status", status="created", previous_status=None)
    note(org, 20, "deployment.status", status="running", previous_status="created")
    for hour, number in ((0, 5), (3, 7)):
        count_points(org, hour * 3600, number)
    aggregate()
    assert hours(org) == {0: (0, 2, 1, 5), 1: (0, 1, 0, 0), 2: (0, 3, 0, 0), 3: (0, 0, 0, 7)}


def test_idle_hours_leave_no_row_and_what_is_gone_is_taken_back(org: UUID) -> None:
    note(org, 10, "command")
    aggregate()
    assert hours(org) == {0: (0, 1, 0, 0)}
    execute("DELETE FROM log_entries WHERE org_id = :org", org=org)
    aggregate()
    assert hours(org) == {0: (0, 0, 0, 0)}


def test_a_second_aggregation_changes_nothing_and_what_came_late_counts(org: UUID) -> None:
    lived(org, make.device(org)[0].id, [("connect", 60)]).write()
    aggregate()
    before = execute("SELECT * FROM usage_hours WHERE org_id = :org ORDER BY hour", org=org).all()
    aggregate()
    assert execute("SELECT * FROM usage_hours WHERE org_id = :org ORDER BY hour", org=org).all() == before
    note(org, 61, "command")
    aggregate()
    assert hours(org)[0] == (3540, 1, 0, 0)


def test_what_stripe_was_told_or_is_being_told_stands(org: UUID) -> None:
    note(org, 0, "command")
    note(org, 3600, "command")
    aggregate()
    execute("UPDATE usage_hours SET reported_at = now() WHERE org_id = :org AND hour = :hour", org=org, hour=at(0))
    execute(
        "INSERT INTO billing_operations (id, org_id, kind, payload) VALUES (gen_random_uuid(), :org, 'meter.report', "
        "jsonb_build_object('hour', CAST(:hour AS text)))",
        org=org, hour=at(3600).isoformat(),
    )  # fmt: skip
    for when in (1, 3601):
        note(org, when, "command")
        count_points(org, when - 1, 9)
    aggregate()
    with db.transaction(system=True):
        usage_queries.count_late(at(0))
    assert hours(org) == {0: (0, 1, 0, 0), 1: (0, 1, 0, 0)}


@pytest.fixture
def alone() -> None:
    """Nobody has used anything."""
    execute("DELETE FROM usage_hours")


def test_a_crash_on_the_way_costs_nothing(org: UUID, alone: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """After days without a scheduler; the worker dies after the first of many transactions."""
    days = timedelta(days=usage.REACH.days - 1)
    for hour in (-int(days.total_seconds()), -86400, 0):
        count_points(org, hour, 4)
    aggregate_some, count = usage_queries.aggregate, [0]

    def dying(*span: Any) -> int:
        count[0] += 1
        if count[0] == 6:
            raise SystemExit
        return aggregate_some(*span)

    with monkeypatch.context() as patch:
        patch.setattr(usage_queries, "aggregate", dying)
        with pytest.raises(SystemExit):
            usage.catch_up()
    assert 0 < len(hours(org)) < 3
    usage.catch_up()
    assert sorted(hours(org)) == [-int(days.total_seconds()) // 3600, -24, 0]
    assert usage.catch_up() == 0


def test_points_that_were_counted_long_after_their_hour_are_taken_over(org: UUID, alone: None) -> None:
    note(org, 0, "command")
    note(org, END - 1, "command")
    usage.catch_up()
    count_points(org, 0, 4)
    usage.catch_up()
    assert hours(org)[0] == (0, 1, 0, 4)


def test_usage_is_kept_for_thirteen_months(org: UUID) -> None:
    for days in (390, 400):
        hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(days=days)
        execute(f"INSERT INTO usage_hours (org_id, hour, {COLUMNS}) VALUES (:o, :h, 1, 1, 1, 1)", o=org, h=hour)
        execute("INSERT INTO usage_points (org_id, hour, points) VALUES (:o, :h, 1)", o=org, h=hour)
    with db.transaction(system=True):
        retention.clean()
    for table in ("usage_hours", "usage_points"):
        ages = execute(f"SELECT now() - hour AS age FROM {table} WHERE org_id = :o", o=org).all()
        assert [row.age.days for row in ages] == [390]


# What is told


def read(org_id: UUID, *given_range: Any) -> dict[str, Any]:
    with db.transaction(org_id):
        return usage.read(org_id, *given_range)


def settled() -> datetime:
    """Hours that end by then are told as they were added up."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)


def test_an_organization_sees_its_month_so_far_by_the_day_and_the_present_hour_live(org: UUID) -> None:
    found = read(org)
    now = datetime.now(UTC)
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    assert found["period_start"] == today.replace(day=1)
    assert found["period_end"] == today + timedelta(days=1)
    assert [one["start"] for one in found["buckets"]] == [today.replace(day=n + 1) for n in range(now.day)]
    assert not any(found["totals"].values())
    count_points(org, END, 3, refused=2)
    last = read(org)["buckets"][-1]
    assert (last["points"], last["points_refused"], last["provisional"]) == (3, 2, True)


def test_buckets_add_up_to_the_totals_from_settled_and_provisional_hours(org: UUID) -> None:
    lived(org, make.device(org)[0].id, [("connect", 1800)]).write()
    note(org, 0, "command")
    aggregate()
    found = read(org, at(0), at(END + 1), "hour")
    seconds = [one["device_seconds"] for one in found["buckets"]]
    assert seconds[:HOURS] == [1800, 3600, 3600, 3600]
    assert 0 <= seconds[HOURS] <= 3600
    assert [one["provisional"] for one in found["buckets"]] == [one["end"] > settled() for one in found["buckets"]]
    assert (found["buckets"][0]["provisional"], found["buckets"][-1]["provisional"]) == (False, True)
    assert found["totals"]["device_seconds"] == sum(seconds)
    assert found["buckets"][0]["device_hours"] == 0.5
    assert (found["totals"]["commands"], found["buckets"][0]["commands"]) == (1, 1)


def test_settled_hours_are_read_and_provisional_ones_added_up(org: UUID) -> None:
    """Each hour counts from one of the two only."""
    execute(f"INSERT INTO usage_hours (org_id, hour, {COLUMNS}) SELECT :o, h, 7, 7, 7, 7 FROM unnest(CAST(:h AS "
            "timestamptz[])) h", o=org, h=[at(hour * 3600) for hour in range(HOURS)])  # fmt: skip
    found = read(org, at(0), at(END), "hour")
    assert [one["commands"] for one in found["buckets"]] == [7 * (one["end"] <= settled()) for one in found["buckets"]]
    assert {one["commands"] for one in found["buckets"]} == {0, 7}


def test_months_and_days_begin_at_midnight_utc_whatever_zone_is_asked_in(org: UUID) -> None:
    """Clocks were changed in Europe on 2026-10-25; days of usage have 24 hours."""
    zone = datetime.fromisoformat("2026-10-24T23:30:00-05:00")
    found = read(org, zone, datetime.fromisoformat("2026-11-02T01:00:00+02:00"), "day")
    days = [one["start"] for one in found["buckets"]]
    assert (days[0], days[-1]) == (datetime(2026, 10, 25, tzinfo=UTC), datetime(2026, 11, 1, tzinfo=UTC))
    assert {one["end"] - one["start"] for one in found["buckets"]} == {timedelta(days=1)}
    for hour in (datetime(2026, 2, 28, 23, tzinfo=UTC), datetime(2026, 3, 1, tzinfo=UTC)):
        execute(f"INSERT INTO usage_hours (org_id, hour, {COLUMNS}) VALUES (:o, :h, 1, 1, 1, 1)", o=org, h=hour)
    found = read(org, datetime(2026, 1, 31, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC), "month")
    assert [(one["start"].month, one["points"]) for one in found["buckets"]] == [(1, 0), (2, 1), (3, 1)]
    assert found["period_end"] == datetime(2026, 4, 1, tzinfo=UTC)


def test_another_organizations_usage_is_not_seen(org: UUID) -> None:
    other = make.organization()
    note(other, END - 1, "command")
    lived(other, make.device(other)[0].id, [("connect", 0)]).write()
    aggregate()
    assert not any(read(org)["totals"].values())


@pytest.mark.parametrize(
    ("begin", "end", "granularity", "field"),
    [
        (at(10), at(10), "hour", "from"),
        (at(10), at(0), "day", "from"),
        (datetime.now(UTC) + timedelta(hours=1), None, "day", "from"),
        (datetime(2010, 1, 1, tzinfo=UTC), None, "hour", "from"),
        (datetime.fromisoformat("0001-01-01T00:00:00+14:00"), None, "month", "from"),
        (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, tzinfo=UTC), "month", "from"),
        (at(0) - timedelta(hours=usage.MOST_BUCKETS), at(1), "hour", "from"),
        (at(0), at(10), "week", "granularity"),
    ],
)
def test_ranges_that_cannot_be_answered(
    org: UUID, begin: datetime, end: datetime | None, granularity: str, field: str
) -> None:
    with pytest.raises(ValidationFailed) as refused:
        read(org, begin, end, granularity)
    assert list(refused.value.extra["details"]) == [field]


def test_the_longest_range_is_answered(org: UUID) -> None:
    found = read(org, at(0) - timedelta(hours=usage.MOST_BUCKETS - 1), at(1), "hour")
    assert len(found["buckets"]) == usage.MOST_BUCKETS
