"""Queries against their naive twin: the same numbers from whatever level they are read."""

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app import db
from app.clock import now
from app.metrics.grid import MAX_POINTS
from tests import make
from tests.metrics import store, twin
from tests.metrics.twin import Point
from workers import metrics

SPAN = 3 * 3600
NAME = "temperature"


@pytest.fixture(autouse=True)
def _empty() -> None:
    store.clear()


@pytest.fixture
def devices(org: UUID) -> list[UUID]:
    """One tagged twice, one that shares a tag with it, one without."""
    tags: list[list[str]] = [["pump", "roof"], ["pump"], []]
    return [make.device(org, tags=own)[0].id for own in tags]


@pytest.fixture
def lines(org: UUID, devices: list[UUID]) -> list[int]:
    return [store.series(org, device, NAME) for device in devices]


def asked(api: Any, path: str, begin: float, end: float, **more: Any) -> list[dict[str, Any]]:
    query = {"name": NAME, "from": store.moment(begin), "to": store.moment(end), **more}
    found: list[dict[str, Any]] = api.get(f"{path}?{urlencode(query, doseq=True)}", expect=200)["series"]
    return found


def of(points: Sequence[Point], *lines: int) -> list[Point]:
    return [point for point in points if point.series in lines]


def spread(lines: Sequence[int], begin: float) -> list[Point]:
    """Points in an irregular pattern with gaps, the second half of which comes late."""
    return [
        Point(line, begin + offset, float((offset * 7 + number) % 50 - 20))
        for number, line in enumerate(lines)
        for offset in range(0, SPAN, 13 + number)
        if (offset // 700) % 3 != number
    ]


def laid(lines: Sequence[int]) -> tuple[float, list[Point]]:
    """Points of which some were rolled up, some merged, and some are beyond every watermark."""
    begin = now().timestamp() // 1 - SPAN
    points = spread(lines, begin)
    store.store(points[::2])
    metrics.catch_up(60)
    store.store(points[1::2])
    return begin, points


@pytest.mark.parametrize("step", [7, 45, 60, 120, 300, 900, 3600, 7200, 86_400])
@pytest.mark.parametrize("agg", twin.AGGREGATES)
def test_every_aggregate_on_every_level(api: Any, lines: list[int], step: int, agg: str) -> None:
    begin, points = laid(lines)
    (found,) = asked(api, "/metrics", begin + 100, begin + SPAN, step=step, agg=agg)
    expected = twin.line(points, begin + 100, begin + SPAN, step, agg)
    assert found["labels"] == {}
    assert [time for time, _value in found["points"]] == [time for time, _value in expected]
    assert [value for _time, value in found["points"]] == pytest.approx([value for _time, value in expected])
    assert any(value is not None for _time, value in expected)


few = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(data=st.data())
def test_any_history_and_any_question(api: Any, lines: list[int], data: st.DataObject) -> None:
    """Random points, stored before and after random roll-ups; random range, step and aggregate."""
    store.clear()
    begin = now().timestamp() // 1 - SPAN
    offsets = st.tuples(st.integers(0, 2), st.integers(0, SPAN), st.integers(-9, 9))
    points: list[Point] = []
    for batch in data.draw(st.lists(st.lists(offsets, max_size=20), min_size=1, max_size=3)):
        fresh = [Point(lines[line], begin + offset, float(value)) for line, offset, value in batch]
        store.store(fresh)
        points += fresh
        if data.draw(st.booleans()):
            metrics.catch_up(data.draw(st.sampled_from([0, 0, 60])))
    start = begin + data.draw(st.integers(-4000, SPAN - 1))
    end = start + data.draw(st.integers(1, 9000))
    step, agg = (
        data.draw(st.sampled_from([11, 60, 180, 300, 600, 3600])),
        data.draw(st.sampled_from([*twin.AGGREGATES])),
    )
    (found,) = asked(api, "/metrics", start, end, step=step, agg=agg)
    expected = twin.line(points, start, end, step, agg)
    assert [time for time, _value in found["points"]] == [time for time, _value in expected]
    for (_time, value), (_same, wanted) in zip(found["points"], expected, strict=True):
        assert value == (None if wanted is None else pytest.approx(wanted))


def test_beyond_the_watermark_the_tail_is_there_at_once(api: Any, lines: list[int]) -> None:
    store.store([Point(lines[0], now().timestamp() - 4000, 1.0)])
    metrics.catch_up(60)
    moment = now().timestamp()
    store.store([Point(lines[0], moment - 1, 42.0)])
    (found,) = asked(api, "/metrics", moment - 600, moment + 60, step=300, agg="max")
    assert 42.0 in [value for _time, value in found["points"]]


def test_grouped_by_device(api: Any, devices: list[UUID], lines: list[int]) -> None:
    begin, points = laid(lines)
    found = asked(api, "/metrics", begin, begin + SPAN, step=300, agg="sum", group_by="device")
    assert {one["labels"]["device"]: one["points"] for one in found} == {
        str(device): twin.line(of(points, line), begin, begin + SPAN, 300, "sum")
        for device, line in zip(devices, lines, strict=True)
    }


def test_grouped_by_tag_a_device_counts_for_each_of_its_tags(api: Any, lines: list[int]) -> None:
    begin, points = laid(lines)
    found = asked(api, "/metrics", begin, begin + SPAN, step=3600, agg="count", group_by="tag")
    assert [(one["labels"], one["points"]) for one in found] == [
        ({"tag": tag}, twin.line(of(points, *members), begin, begin + SPAN, 3600, "count"))
        for tag, members in (("pump", lines[:2]), ("roof", lines[:1]))
    ]


def test_several_names_repeated_or_with_commas(org: UUID, api: Any, devices: list[UUID], lines: list[int]) -> None:
    humid = store.series(org, devices[0], "humidity")
    begin, points = laid([*lines, humid])
    for names in (["humidity", NAME, "none"], f"humidity,{NAME},none,{NAME}"):
        found = asked(api, "/metrics", begin, begin + SPAN, step=300, agg="max", name=names)
        assert [(one["name"], one["points"]) for one in found] == [
            ("humidity", twin.line(of(points, humid), begin, begin + SPAN, 300, "max")),
            (NAME, twin.line(of(points, *lines), begin, begin + SPAN, 300, "max")),
        ]


def test_a_device_has_one_series_for_each_set_of_tags(org: UUID, api: Any, devices: list[UUID]) -> None:
    disks = [store.series(org, devices[0], NAME, {"disk": disk}) for disk in ("sda", "sdb")]
    store.series(org, devices[1], NAME)
    begin, points = laid(disks)
    found = asked(api, f"/metrics/devices/{devices[0]}", begin, begin + SPAN, step=300, agg="avg")
    assert [one["labels"] for one in found] == [
        {"device": str(devices[0]), "disk": disk} for disk in ("sda", "sdb")
    ]  # fmt: skip
    for one, line in zip(found, disks, strict=True):
        expected = twin.line(of(points, line), begin, begin + SPAN, 300, "avg")
        assert [value for _time, value in one["points"]] == pytest.approx([value for _time, value in expected])
    (together,) = asked(api, "/metrics", begin, begin + SPAN, step=300, agg="count", group_by="tag", name=NAME)[:1]
    assert together["points"] == twin.line(points, begin, begin + SPAN, 300, "count")


def test_a_device_without_a_name_tells_its_newest_values(org: UUID, api: Any, devices: list[UUID]) -> None:
    line, seen = store.series(org, devices[0]), now()
    with db.transaction(org) as session:
        values = {"id": line, "at": seen}
        session.execute(text("UPDATE metric_series SET last_at = :at, last_value = 4.5 WHERE id = :id"), values)
    found = api.get(f"/metrics/devices/{devices[0]}", expect=200)
    stamp = seen.isoformat().replace("+00:00", "Z")
    labels = {"device": str(devices[0])}
    assert found == {"series": [{"name": NAME, "labels": labels, "points": [[stamp, 4.5]]}]}


def test_by_default_the_last_hour_by_the_minute(api: Any, lines: list[int]) -> None:
    moment = now().timestamp()
    store.store([Point(lines[0], moment - 90, 1.0)])
    (found,) = api.get(f"/metrics?name={NAME}", expect=200)["series"]
    assert len(found["points"]) in (60, 61)
    assert [value for _time, value in found["points"] if value is not None] == [1.0]


@pytest.mark.parametrize(("hours", "points"), [(0.1, 7), (5, 301), (24, 289), (24 * 7, 169), (24 * 30, 241)])
def test_a_default_step_gives_a_drawable_number_of_points(
    api: Any, lines: list[int], hours: float, points: int
) -> None:
    end = now().timestamp()
    (found,) = asked(api, "/metrics", end - hours * 3600, end)
    assert points - 1 <= len(found["points"]) <= points


def test_a_series_that_would_be_too_long_gets_a_step_that_works(api: Any, lines: list[int]) -> None:
    end = now().timestamp() // 1
    for days in (1, 7, 30, 400, 10_000):
        begin = end - days * 86_400
        query = {"name": NAME, "from": store.moment(begin), "to": store.moment(end), "step": 1}
        refused = api.get(f"/metrics?{urlencode(query)}", expect=400)
        assert refused["code"] == "VALIDATION_ERROR"
        (found,) = asked(api, "/metrics", begin, end, step=refused["proposed_step"])
        assert MAX_POINTS / 60 < len(found["points"]) <= MAX_POINTS
    (found,) = asked(api, "/metrics", end - MAX_POINTS, end, step=1)
    assert len(found["points"]) == MAX_POINTS


def test_a_range_that_no_step_serves(api: Any) -> None:
    query = "name=a&from=1970-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
    refused = api.get(f"/metrics?{query}", expect=400)
    assert "from" in refused["details"]
    assert "proposed_step" not in refused


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "from"),
        ("from=2100-01-01T00:00:00Z", "from"),
        ("to=1970-01-01T00:00:00Z&step=7", None),
        ("from=0001-01-01T00:00:00Z", "from"),
        ("to=9999-12-31T00:00:00Z", "to"),
        ("step=0", "step"),
        ("step=86401", "step"),
        ("agg=median", "agg"),
        ("group_by=name", "group_by"),
        ("name=" + ",".join(f"n{number}" for number in range(21)), "name"),
        ("name=a,,b", "name"),
        ("name=" + "x" * 201, "name"),
    ],
)
def test_what_makes_no_sense_is_refused_by_its_field(api: Any, query: str, field: str | None) -> None:
    answer = api.get(f"/metrics?{query}" if "name=" in query else f"/metrics?name=a&{query}")
    if field is None:
        assert answer.status_code == 200
    else:
        assert (answer.status_code, list(answer.json["details"])) == (400, [field])


def test_an_answer_of_too_many_points_is_refused(api: Any, org: UUID) -> None:
    ids = [device.id for device, _key in make.devices(50, org)]
    for device_id in ids:
        store.series(org, device_id)
    end = now().timestamp()
    query = {"name": NAME, "from": store.moment(end - 10_500 * 60), "to": store.moment(end), "step": 60}
    refused = api.get(f"/metrics?{urlencode({**query, 'group_by': 'device'})}", expect=400)
    assert "50 series" in refused["details"]["step"][0]
    api.get(f"/metrics?{urlencode(query)}", expect=200)


def test_a_name_that_nobody_has_is_no_series(api: Any) -> None:
    assert api.get("/metrics?name=nothing", expect=200) == {"series": []}


def test_csv(api: Any, devices: list[UUID], lines: list[int]) -> None:
    begin, points = laid(lines)
    query = {"name": NAME, "from": store.moment(begin), "to": store.moment(begin + SPAN), "step": 300, "agg": "sum"}
    answer = api.get(f"/metrics?{urlencode({**query, 'group_by': 'device'})}", headers={"Accept": "text/csv"})
    assert answer.content_type.startswith("text/csv")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    expected = {str(device): line for device, line in zip(devices, lines, strict=True)}
    assert {row["device"] for row in rows} == set(expected)
    for device, line in expected.items():
        own = [[row["time"], float(row["value"]) if row["value"] else None] for row in rows if row["device"] == device]
        assert own == twin.line(of(points, line), begin, begin + SPAN, 300, "sum")


def test_the_summary(org: UUID, api: Any, devices: list[UUID], lines: list[int]) -> None:
    store.series(org, devices[0], "cpu.usage_percent")
    with db.transaction(org) as session:
        for day in ("2026-01-01", "2026-01-02"):
            values = {"org": org, "day": day}
            session.execute(
                text("INSERT INTO metric_usage (org_id, day, points, commands) VALUES (:org, :day, 5, 2)"), values
            )
    make.organization("Other")
    assert api.get("/metrics", expect=200) == {
        "devices": {"pending": 3}, "flows": 0, "deployments": 0, "commands": 4, "points_stored": 10,
        "devices_drifting": 0, "names": ["cpu.usage_percent", NAME],
    }  # fmt: skip


def test_no_tenant_sees_anothers(app: Any, api: Any, devices: list[UUID], lines: list[int]) -> None:
    begin, _points = laid(lines)
    stranger = make.client(app, make.organization("Stranger"))
    assert asked(stranger, "/metrics", begin, begin + SPAN) == []
    assert stranger.get("/metrics", expect=200)["names"] == []
    answers = []
    for device_id in (devices[0], uuid4()):
        for query in ("", f"?name={NAME}"):
            body = stranger.get(f"/metrics/devices/{device_id}{query}", expect=404)
            answers.append(json.dumps({**body, "request_id": ""}))
    assert len(set(answers)) == 1
    api.get(f"/metrics/devices/{devices[0]}", expect=200)


@pytest.fixture
def planned(org: UUID) -> Callable[[str], None]:
    def choose(plan: str) -> None:
        with db.transaction(org) as session:
            session.execute(text("UPDATE organizations SET plan = :plan WHERE id = :org"), {"plan": plan, "org": org})

    return choose


@pytest.mark.parametrize(
    ("days", "step", "seen"),
    [
        (6, 30, "free"),
        (8, 30, "pro"),
        (20, 30, "enterprise"),
        (29, 300, "free"),
        (31, 300, "pro"),
        (100, 60, "enterprise"),
        (364, 3600, "free"),
        (366, 3600, "pro"),
        (800, 3600, "enterprise"),
    ],
)
def test_a_plan_shows_what_it_keeps(
    api: Any, lines: list[int], planned: Callable[[str], None], days: int, step: int, seen: str
) -> None:
    """Also before any of it has been deleted."""
    moment = now().timestamp() - days * 86_400
    point = Point(lines[0], moment, 1.0)
    with db.transaction(system=True) as session:
        session.execute(text("SELECT ensure_partition('metric_points', 'day', to_timestamp(:at))"), {"at": moment})
    store.store([point, Point(lines[1], now().timestamp() - 100, 1.0)])
    metrics.catch_up(900)
    order = ["free", "pro", "enterprise"]
    for plan in order:
        planned(plan)
        (found,) = asked(api, "/metrics", moment - 2 * step, moment + 2 * step, step=step)
        kept = [value for _time, value in found["points"] if value is not None]
        assert kept == ([1.0] if order.index(plan) >= order.index(seen) else []), plan


def test_a_default_step_finds_what_only_the_hours_still_hold(api: Any, lines: list[int]) -> None:
    moment = now().timestamp() - 60 * 86_400
    store.store([Point(lines[0], moment, 1.0)])
    metrics.catch_up(900)
    (found,) = asked(api, "/metrics", moment - 7200, moment + 7200)
    assert [value for _time, value in found["points"] if value is not None] == [1.0]
