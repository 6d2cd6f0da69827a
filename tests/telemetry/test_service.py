"""From the inbox into the tables: once, whatever is in it, whoever stores it at the same time."""

import threading
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from app import db
from app.clock import now
from app.logs import store as logs
from app.metrics import series
from app.metrics import store as metrics
from app.telemetry import service
from tests import make
from tests.telemetry.support import inbox, lines, now_ms, points, put, rows, store_all, used

YEARS = 10 * 365 * 86_400_000


def body(points: Any = (), logs: Any = ()) -> bytes:
    return orjson.dumps({"type": "telemetry", "id": str(uuid4()), "metrics": points, "logs": logs})


@pytest.mark.parametrize("off", [YEARS, -YEARS])
def test_a_clock_ten_years_off_is_stored_at_arrival(org: UUID, off: int) -> None:
    device = make.device(org)[0].id
    claimed = now_ms() + off
    put(org, device, body([["a", claimed, 1]], [[claimed, "info", "hello"]]), ago=30)
    store_all(org)
    ((_id, _name, _tags, at, _value, kept),) = points(org)
    assert abs(now() - timedelta(seconds=30) - at) < timedelta(seconds=10)
    assert round(kept.timestamp() * 1000) == claimed
    (line,) = lines(org)
    assert (line.time, line.claimed_at, line.received_at) == (at, kept, at)


def test_malformed_frames_and_items_are_counted_and_told_once_for_each_device_and_kind(org: UUID) -> None:
    one, other = (device.id for device, _key in make.devices(2, org))
    moment = now_ms()
    for _ in range(3):
        put(org, one, body([["a", moment, 1], ["a", moment, "1"], ["a"]], [[moment, "info", "x"], [moment]]))
        put(org, one, b"no JSON")
        put(org, other, body([["a", moment, None]]))
        store_all(org)
    assert [point.value for point in points(org)] == [1.0] * 3
    assert len(lines(org)) == 3
    assert used(org) == (3, 3 * 5, 3)
    told = lines(org, "platform")
    assert {(line.device_id, line.fields["what"]) for line in told} == {
        (one, "point"), (one, "log"), (one, "frame"), (other, "point"),
    }  # fmt: skip
    assert len(told) == 4
    assert {(line.kind, line.level) for line in told} == {("telemetry.malformed", 2)}


def test_points_beyond_the_limits_are_told_once_for_the_organization(org: UUID) -> None:
    for device, _key in make.devices(3, org):
        put(org, device.id, body([["n" * 201, now_ms(), 1], ["a", now_ms(), 2]]))
        store_all(org)
    assert used(org) == (3, 3, 0)
    (line,) = lines(org, "platform")
    assert (line.kind, line.device_id, line.level) == ("metrics.refused", None, 2)
    assert "200 characters" in line.message


def test_frames_of_a_device_that_is_gone_leave_the_inbox_and_nothing_else(org: UUID) -> None:
    put(org, uuid4(), body([["a", now_ms(), 1]], [[now_ms(), "info", "x"]]))
    store_all(org)
    assert (points(org), lines(org), used(org)) == ([], [], (0, 0, 0))


def test_a_series_deleted_under_a_worker_loses_no_point(org: UUID) -> None:
    device = make.device(org)[0].id
    for value in (1, 2):
        put(org, device, body([["a", now_ms(), value]]))
        store_all(org)
        rows("DELETE FROM metric_series WHERE org_id = :org RETURNING 1", org=org)
    put(org, device, body([["a", now_ms(), 3]]))
    store_all(org)
    assert [point.value for point in points(org)] == [3.0]  # the others went with their series
    assert used(org)[0] == 3


def test_many_workers_at_once_store_each_frame_once(org: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_turns", threading.BoundedSemaphore(8))
    monkeypatch.setattr(service, "FRAMES_AT_ONCE", 3)
    members = [device.id for device, _key in make.devices(10, org)]
    for number in range(100):
        put(org, members[number % 10], body([[f"m{number % 7}", now_ms(), number]]))
    errors = list[Exception]()

    def run() -> None:
        try:
            while inbox(org):
                service.store()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    assert sorted(point.value for point in points(org)) == [float(n) for n in range(100)]
    assert used(org) == (100, 0, 0)


def test_a_transaction_that_breaks_leaves_everything_in_the_inbox(org: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    device = make.device(org)[0].id
    put(org, device, body([["a", now_ms(), 1]]))

    def broken(*_args: Any) -> None:
        db.session.execute(text("SET LOCAL statement_timeout = 1"))
        db.session.execute(text("SELECT pg_sleep(1)"))

    with monkeypatch.context() as patch:
        patch.setattr(metrics, "count", broken)
        with pytest.raises(service.AWAY):
            service.store()
    assert (inbox(org), points(org)) == (1, [])
    store_all(org)
    assert len(points(org)) == 1


def test_one_frame_that_cannot_be_stored_costs_only_itself(org: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    device = make.device(org)[0].id
    for value in (1, 666, 3):
        put(org, device, body([["a", now_ms(), value]]))
    add = metrics.add

    def poisoned(session: Any, incoming: Any) -> Any:
        if any(point[2] == 666 for one in incoming for point in one.points):
            raise ZeroDivisionError
        return add(session, incoming)

    monkeypatch.setattr(metrics, "add", poisoned)
    store_all(org)
    assert [point.value for point in points(org)] == [1.0, 3.0]
    assert [line.fields["what"] for line in lines(org, "platform")] == ["ZeroDivisionError"]
    series.known.forget([device])


def store_without_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "count", lambda *_given: db.session.execute(text("SELECT * FROM not_there_yet")))
        with pytest.raises(ProgrammingError):
            service.store()


def test_what_no_frame_can_be_stored_for_loses_none(org: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mistake of ours, or a schema that is not there yet: nothing is wrong with the frames."""
    device = make.device(org)[0].id
    for value in (1, 2):
        put(org, device, body([["a", now_ms(), value]]))
    store_without_schema(monkeypatch)
    assert inbox(org) == 2
    store_all(org)
    assert len(points(org)) == 2


def test_a_frame_of_a_device_that_is_gone_speaks_against_no_other(org: UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is stored: it does not show that frames can be."""
    device, gone = make.device(org)[0].id, uuid4()
    put(org, gone, body([["a", now_ms(), 0]]))
    for value in (1, 2):
        put(org, device, body([["a", now_ms(), value]]))
    store_without_schema(monkeypatch)
    assert inbox(org) == 2
    store_all(org)
    assert [point.value for point in points(org)] == [1.0, 2.0]


@pytest.mark.parametrize("room", [metrics, logs])
def test_what_is_stored_of_one_kind_speaks_against_none_of_the_other(
    org: UUID, monkeypatch: pytest.MonkeyPatch, room: Any
) -> None:
    device = make.device(org)[0].id
    put(org, device, body([["a", now_ms(), 0]]))
    store_all(org)  # so that the series is there
    put(org, device, body([["a", now_ms(), 1]]))
    put(org, device, body([], [[now_ms(), "info", "hello"]]))
    add = room.add

    def broken(session: Any, incoming: Any) -> Any:
        if incoming:
            raise ZeroDivisionError
        return add(session, incoming)

    with monkeypatch.context() as patch:
        patch.setattr(room, "add", broken)
        with pytest.raises(ZeroDivisionError):
            service.store()
    store_all(org)
    assert (len(points(org)), len(lines(org))) == (2, 1)
