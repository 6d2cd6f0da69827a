"""Roll-ups against their naive twin: whatever comes when, every point counts once in every level."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app import db
from app.clock import now
from app.metrics import rollup
from app.metrics.levels import LEVELS
from tests import make
from tests.metrics import store, twin
from tests.metrics.twin import Point
from workers import metrics

few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
PAST = 3 * 3600


@pytest.fixture
def lines(org: UUID) -> list[int]:
    """Three series of two devices, and an empty store."""
    store.clear()
    first, second = (device.id for device, _key in make.devices(2, org))
    return [store.series(org, first), store.series(org, second), store.series(org, second, "humidity")]


def demand_exact(points: Sequence[Point]) -> None:
    """Each level holds what the twin makes of the points, up to its watermark and no further."""
    marks = store.watermarks()
    for level in LEVELS:
        expected = twin.buckets(points, level.seconds, marks.get(level.name, 0))
        assert store.rolled(level.table) == expected, level.name


def roll(level: int, spans: int) -> None:
    """One transaction of the job."""
    with db.transaction(system=True) as session:
        rollup.advance(session, LEVELS[level], LEVELS[level].span * spans)


# Whole numbers as values, so that sums do not depend on their order; many points at one time.
instants = st.integers(0, PAST * 2).map(lambda half: half / 2)
batches = st.lists(st.tuples(st.integers(0, 2), instants, st.integers(-50, 50)), min_size=1, max_size=12)
stores = st.tuples(st.just("store"), batches)
lost = st.tuples(st.just("lost"), batches)
rolls = st.tuples(st.just("roll"), st.tuples(st.integers(0, len(LEVELS) - 1), st.integers(1, 40)))
killed = st.tuples(st.just("killed"), st.integers(0, len(LEVELS) - 1))


@few
@given(steps=st.lists(st.one_of(stores, rolls, lost, killed), min_size=1, max_size=14))
def test_whatever_comes_when_every_point_counts_once(lines: list[int], steps: list[tuple[str, Any]]) -> None:
    store.clear()
    begin, kept = now().timestamp() // 1 - PAST, []
    for kind, what in steps:
        if kind == "roll":
            roll(*what)
        elif kind == "killed":
            kill_roll(what)
        else:
            points = [Point(lines[line], begin + offset, float(value)) for line, offset, value in what]
            if kind == "lost":
                kill_store(points)
            else:
                store.store(points)
                kept += points
        demand_exact(kept)
    metrics.catch_up(60)
    demand_exact(kept)


class Killed(Exception):
    """The process ends before its transaction does."""


def kill_store(points: list[Point]) -> None:
    with suppress(Killed), db.transaction(system=True) as session:
        store.put(session, points)
        raise Killed


def kill_roll(level: int) -> None:
    with suppress(Killed), db.transaction(system=True) as session:
        rollup.advance(session, LEVELS[level], LEVELS[level].span * 10)
        raise Killed


def test_the_job_completes_every_level_and_nothing_that_is_still_open(lines: list[int]) -> None:
    moment = now().timestamp()
    points = [Point(lines[0], moment - age, 1.0) for age in (*range(0, 7200, 20), -300)]
    store.store(points)
    metrics.catch_up(60)
    marks = store.watermarks()
    assert [marks[level.name] for level in LEVELS] == [
        (moment - rollup.SETTLE_SECONDS) // seconds * seconds for seconds in (60, 300, 3600)
    ] or now().timestamp() // 60 != moment // 60
    demand_exact(points)
    assert min(len(store.rolled(level.table)) for level in LEVELS) > 0


def test_after_an_outage_it_catches_up_in_pieces_and_goes_on_where_it_was(lines: list[int]) -> None:
    moment = now().timestamp()
    points = [Point(lines[0], moment - age, float(age)) for age in range(0, 3 * 3600, 30)]
    store.store(points)
    reached = []
    for _ in range(3):
        metrics.catch_up(0)  # no time at all: one transaction a level
        reached.append(store.watermarks()["1m"])
        demand_exact(points)
    assert reached[0] < reached[1] < reached[2]
    metrics.catch_up(60)
    assert store.watermarks()["1m"] > moment - 120
    demand_exact(points)


def test_a_lost_watermark_changes_nothing(lines: list[int]) -> None:
    moment = now().timestamp()
    points = [Point(lines[0], moment - age, float(age)) for age in range(0, 7200, 30)]
    store.store(points)
    metrics.catch_up(60)
    with db.transaction(system=True) as session:
        session.execute(text("DELETE FROM metric_watermarks"))
    metrics.catch_up(60)
    demand_exact(points)


def test_the_largest_numbers_stop_nobodys_roll_ups(api: Any, lines: list[int]) -> None:
    begin, largest = now().timestamp() // 3600 * 3600 - 7200, 1.7976931348623157e308
    huge = [Point(lines[0], begin + second, largest) for second in range(10)]
    store.store(huge)
    metrics.catch_up(60)
    store.store([*huge, Point(lines[1], begin, 1.0)])  # late, too
    assert store.rolled("metric_points_1h")[lines[1], int(begin)][0] == 1
    for agg, value in (("max", largest), ("last", largest), ("count", 20), ("sum", 2e291), ("avg", 1e290)):
        for step in (7, 3600):
            query = f"agg={agg}&step={step}&from={store.moment(begin)}&to={store.moment(begin + 3600)}&group_by=device"
            found = api.get(f"/metrics?name=temperature&{query}", expect=200)["series"]
            assert len(found) == 2
            if step == 3600:
                assert value in [pytest.approx(one["points"][0][1]) for one in found]


def test_points_of_a_deleted_device_are_left_out(org: UUID, api: Any, lines: list[int]) -> None:
    device, _key = make.device(org)
    gone = store.series(org, device.id)
    moment = now().timestamp()
    points = [Point(line, moment - age, 1.0) for line in (lines[0], gone) for age in range(100, 7200, 60)]
    store.store(points)
    api.delete(f"/devices/{device.id}", expect=204)
    metrics.catch_up(60)
    demand_exact([point for point in points if point.series != gone])


@pytest.mark.slow
def test_storing_and_rolling_up_at_once(lines: list[int]) -> None:
    """Four that store, late and in time, and two jobs, all in transactions of their own; some of them die."""
    begin = now().timestamp() // 1 - PAST
    kept: list[Point] = []
    noted, over, faults = threading.Lock(), threading.Event(), []

    def feed(seed: int) -> None:
        random = Random(seed)
        for _ in range(60):
            points = [
                Point(random.choice(lines), begin + random.randrange(PAST), float(random.randrange(100)))
                for _ in range(random.randrange(1, 20))
            ]
            if random.random() < 0.1:
                kill_store(points)
                continue
            store.store(points)
            with noted:
                kept.extend(points)

    def job(seed: int) -> None:
        random = Random(seed)
        while not over.is_set():
            if random.random() < 0.2:
                kill_roll(random.randrange(len(LEVELS)))
            else:
                roll(random.randrange(len(LEVELS)), random.randrange(1, 4))

    def guarded(call: Any, seed: int) -> None:
        try:
            call(seed)
        except BaseException as error:  # a thread's own error would go unseen
            faults.append(error)

    feeders = [threading.Thread(target=guarded, args=(feed, seed)) for seed in range(4)]
    jobs = [threading.Thread(target=guarded, args=(job, seed)) for seed in (10, 11)]
    for thread in (*feeders, *jobs):
        thread.start()
    for thread in feeders:
        thread.join()
    over.set()
    for thread in jobs:
        thread.join()
    assert faults == []
    demand_exact(kept)
    metrics.catch_up(60)
    demand_exact(kept)
    assert sum(row[0] for row in store.rolled("metric_points_1m").values()) > 1000
