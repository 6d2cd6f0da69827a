"""What a frame holds: what is as it should be, whose time is believed, and what is counted instead of stored."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.telemetry.frames import EPOCH, Contents, flatten, read

ARRIVED = datetime(2026, 11, 24, 9, 30, 0, 250_000, UTC)
MS = int(ARRIVED.timestamp() * 1000)


def of(metrics: Any = (), logs: Any = ()) -> Contents:
    return read(orjson.dumps({"type": "telemetry", "id": "1", "metrics": metrics, "logs": logs}), ARRIVED)


def us(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def test_points_with_and_without_tags() -> None:
    found = of(
        [["a.b", MS, 1.5], ["a.b", MS, 2, None], ["a.b", MS, 3, {}], ["a", MS, 4, {"z": 1, "b": True, "a": "x"}]]
    )
    assert found.points == [
        ("a.b", MS * 1000, 1.5, None),
        ("a.b", MS * 1000, 2.0, None),
        ("a.b", MS * 1000, 3.0, None),
        (("a", '{"a":"x","b":"true","z":"1"}'), MS * 1000, 4.0, None),
    ]
    assert not found.malformed
    assert not found.beyond


@pytest.mark.parametrize("value", [True, False, 0, -3, 1.0e308, 2**53])
def test_numbers_and_booleans_are_values(value: Any) -> None:
    assert [point[2] for point in of([["a", MS, value]]).points] == [float(value)]


@pytest.mark.parametrize(
    "item",
    [
        ["a", MS, "1"],
        ["a", MS, None],
        ["a", MS, [1]],
        ["a", MS],
        ["a", MS, 1, {}, 5],
        ["a", "now", 1],
        ["a", None, 1],
        ["a", True, 1],
        ["", MS, 1],
        [7, MS, 1],
        [["a"], MS, 1],
        ["a\0b", MS, 1],
        ["a\nb", MS, 1],
        ["a", MS, 1, "tags"],
        ["a", MS, 1, ["tags"]],
        ["a", MS, 1, {"a": {"b": 1}}],
        ["a", MS, 1, {"a": None}],
        ["a", MS, 1, {"a": "\0"}],
        "abc",
        "abcd",
        {"a": 1, "b": 2, "c": 3},
        5,
        None,
    ],
)
def test_what_is_no_point_is_counted_and_costs_nothing_else(item: Any) -> None:
    found = of([["a", MS, 1], item, ["a", MS, 2]])
    assert [point[2] for point in found.points] == [1.0, 2.0]
    assert found.malformed == {"point": 1}


def test_values_that_are_no_json_cost_only_their_points() -> None:
    """Python's writer makes them; JSON has none."""
    items = [["a", MS, float("nan")], ["a", MS, 1.0], ["a", MS, float("inf")], ["a", MS, -float("inf")], ["a", MS, 2.0]]
    body = json.dumps({"type": "telemetry", "id": "1", "metrics": items}).encode()
    assert b"NaN" in body
    found = read(body.replace(b"2.0", b"1e999"), ARRIVED)
    assert ([point[2] for point in found.points], found.malformed) == ([1.0], {"point": 4})


def test_names_and_tags_beyond_their_limits_are_told_apart() -> None:
    found = of(
        [
            ["n" * 200, MS, 1],
            ["n" * 201, MS, 1],
            ["a", MS, 1, {str(n): 1 for n in range(8)}],
            ["a", MS, 1, {str(n): 1 for n in range(9)}],
            ["a", MS, 1, {"t": "x" * 201}],
        ]
    )
    assert (len(found.points), found.malformed) == (2, {})
    assert found.beyond == {
        "names of more than 200 characters": 1, "more than 8 tags": 1, "tags of more than 200 characters": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    "claimed",
    [
        MS + 600_001,
        MS - 7 * 86_400_000 - 1,
        MS + 10 * 365 * 86_400_000,
        MS - 10 * 365 * 86_400_000,
        0,
        -1,
        MS // 1000,
        MS * 1000,
        2**63,
        1e300,
        -1e300,
    ],
)
def test_a_clock_that_is_too_far_off_is_not_believed_and_its_time_kept(claimed: float) -> None:
    found = of([["a", claimed, 1]], [[claimed, "info", "hello"]])
    ((_key, stored, _value, kept),) = found.points
    assert stored == us(ARRIVED)
    assert kept is not None
    within = min(max(claimed, -62_135_596_800_000), 253_402_300_799_000)
    assert kept == int(within) * 1000
    ((at, said, *_rest),) = found.lines
    assert (at, said) == (ARRIVED, EPOCH + timedelta(milliseconds=int(within)))


@pytest.mark.parametrize("claimed", [MS + 600_000, MS - 7 * 86_400_000, MS, MS + 0.5])
def test_a_clock_that_is_near_enough_is_believed(claimed: float) -> None:
    found = of([["a", claimed, 1]], [[claimed, "info", "hello"]])
    assert [(point[1], point[3]) for point in found.points] == [(int(claimed * 1000), None)]
    assert [line[1] for line in found.lines] == [None]


def test_log_lines() -> None:
    found = of(logs=[[MS, "warning", "a"], [MS, 3, "b", {"x": 1}], [MS, None, "c", None]])
    assert [line[2:] for line in found.lines] == [("warning", "a", None), (3, "b", {"x": 1}), (None, "c", None)]


@pytest.mark.parametrize(
    "item", [[MS, "info"], [MS, "info", 5], ["x", "info", "a"], [MS, "info", "a", {}, 1], "abc", 1]
)
def test_what_is_no_log_line_is_counted(item: Any) -> None:
    found = of(logs=[[MS, "info", "a"], item])
    assert (len(found.lines), found.malformed) == (1, {"log": 1})


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"7", b"\xff", b"[" * 100_000, b'{"metrics":' + b"[" * 100_000])
def test_what_is_no_frame_is_counted(body: bytes) -> None:
    assert read(body, ARRIVED).malformed == {"frame": 1}


def test_metrics_and_logs_that_are_no_lists() -> None:
    assert of({"a": 1}, "x").malformed == {"metrics": 1, "logs": 1}
    assert of(None, None).malformed == {}


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(anything, anything)
@settings(max_examples=300, deadline=None)
def test_whatever_comes_is_stored_or_counted(metrics: Any, logs: Any) -> None:
    found = of(metrics, logs)
    given_points = len(metrics) if isinstance(metrics, list) else 0
    assert len(found.points) + found.malformed["point"] + found.beyond.total() == given_points
    given_lines = len(logs) if isinstance(logs, list) else 0
    assert len(found.lines) + found.malformed["log"] == given_lines


def test_a_reading_becomes_dotted_paths_of_its_numbers() -> None:
    reading = {
        "hostname": "pi", "uptime": 5, "temperature": None, "cpu": {"usage_percent": 12.5}, "load_avg": {"1min": 0.5},
        "tags": ["a"], "ok": True,
    }  # fmt: skip
    assert flatten(reading) == [("uptime", 5), ("cpu.usage_percent", 12.5), ("load_avg.1min", 0.5), ("ok", True)]
    assert flatten(7) == flatten(None) == flatten("x") == []
