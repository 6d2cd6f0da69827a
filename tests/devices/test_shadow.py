"""Shadows as plain data."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.devices import bounds, shadow
from app.errors import Forbidden, TooLarge, ValidationFailed

# The machine may be busy: how long an example takes says nothing here.
property_of_all = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

values = st.recursive(
    st.booleans() | st.integers(-5, 5) | st.floats(-5, 5) | st.sampled_from(["", "1", "é"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
documents = st.dictionaries(st.sampled_from("abcd"), values, max_size=4)
patches = st.recursive(
    st.dictionaries(st.sampled_from("abcd"), values | st.none(), max_size=4),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner | st.none(), max_size=3),
    max_leaves=4,
)


# RFC 7396, appendix A, as far as both sides are objects.
@pytest.mark.parametrize(
    ("target", "patch", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
        ({"a": 1}, {}, {"a": 1}),
    ],
)
def test_merge(target: dict[str, Any], patch: dict[str, Any], merged: dict[str, Any]) -> None:
    assert shadow.merge(target, patch) == merged


@pytest.mark.parametrize(
    ("desired", "reported", "delta"),
    [
        ({}, {}, {}),
        ({"a": 1}, {}, {"a": 1}),
        ({"a": 1}, {"a": 1}, {}),
        ({"a": 1}, {"a": 1.0}, {}),
        ({"a": True}, {"a": 1}, {"a": True}),
        ({"a": 0}, {"a": False}, {"a": 0}),
        ({"a": "1"}, {"a": 1}, {"a": "1"}),
        ({}, {"a": 1}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3, "d": 4}}, {"a": {"c": 2}}),
        ({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}, {"a": {"b": {"c": 1}}}),
        ({"a": {"b": 1, "c": 2}}, {"a": 5}, {"a": {"b": 1, "c": 2}}),
        ({"a": 5}, {"a": {"b": 1}}, {"a": 5}),
        ({"a": [1, 2]}, {"a": [1, 2]}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}, {"a": [1, 2]}),
        ({"a": [1]}, {"a": [True]}, {"a": [1]}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1.0}]}, {}),
        ({"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}, {"a": [{"b": 1}]}),
        ({"a": {}}, {"a": {"b": 1}}, {}),
        ({"a": {}}, {}, {"a": {}}),
        ({"a": {}}, {"a": []}, {"a": {}}),
    ],
)
def test_delta(desired: dict[str, Any], reported: dict[str, Any], delta: dict[str, Any]) -> None:
    found = shadow.delta(desired, reported)
    assert shadow.equal(found, delta), found


@pytest.mark.parametrize(
    ("desired", "reported", "state"),
    [
        ({"a": 1}, {}, "unknown"),
        ({}, {"a": 1}, "in_sync"),
        ({"a": 1}, {"a": 1}, "in_sync"),
        ({"a": 1}, {"a": 2}, "pending"),
        ({"a": 1}, {"a": 1, "error": "disk full"}, "error"),
        ({"a": 1}, {"a": 1, "error": ""}, "in_sync"),
    ],
)
def test_sync_state(desired: dict[str, Any], reported: dict[str, Any], state: str) -> None:
    assert shadow.sync_state(desired, reported) == state


@property_of_all
@given(documents)
def test_a_document_differs_not_from_itself(document: dict[str, Any]) -> None:
    assert shadow.delta(document, document) == {}


@property_of_all
@given(documents, documents)
def test_reporting_the_delta_brings_a_device_in_sync(desired: dict[str, Any], reported: dict[str, Any]) -> None:
    assert shadow.delta(desired, shadow.merge(reported, shadow.delta(desired, reported))) == {}


@property_of_all
@given(documents, patches)
def test_merging_twice_is_merging_once(target: dict[str, Any], patch: dict[str, Any]) -> None:
    once = shadow.merge(target, patch)
    assert shadow.equal(shadow.merge(once, patch), once)


@property_of_all
@given(documents, patches)
def test_merging_changes_neither_argument(target: dict[str, Any], patch: dict[str, Any]) -> None:
    before = repr((target, patch))
    shadow.merge(target, patch)
    shadow.clear(target, patch)
    assert repr((target, patch)) == before


@property_of_all
@given(documents, patches)
def test_clearing_only_takes_away(target: dict[str, Any], patch: dict[str, Any]) -> None:
    cleared = shadow.clear(target, patch)
    assert cleared.keys() <= target.keys()
    assert shadow.delta(cleared, target) == {}


@property_of_all
@given(documents, patches)
def test_every_leaf_has_a_time_and_nothing_else(target: dict[str, Any], patch: dict[str, Any]) -> None:
    merged = shadow.merge(target, patch)
    times = shadow.stamp(dict.fromkeys(shadow.leaves(target), "old"), patch, merged, "new")
    assert set(times) == set(shadow.leaves(merged))
    assert all(times[path] == "new" for path in shadow.leaves(patch) if path in times)


def test_times_of_untouched_keys_stay() -> None:
    old = {"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 1}}
    patch = {"b": {"c": 9}, "e": {"f": None}}
    times = shadow.stamp(dict.fromkeys(shadow.leaves(old), "old"), patch, shadow.merge(old, patch), "new")
    assert times == {"a": "old", "b.c": "new", "b.d": "old", "e": "new"}


DESIRED = {"a": {"b": 1, "c": 2}, "b": {"c": {"d": 3}}}


@pytest.mark.parametrize(
    ("patch", "left"),
    [
        ({"a": None}, {"b": {"c": {"d": 3}}}),
        ({"a": {"b": None}}, {"a": {"c": 2}, "b": {"c": {"d": 3}}}),
        ({"a": None, "b": {"c": {"d": None}}}, {"b": {"c": {}}}),
        ({}, DESIRED),
    ],
)
def test_a_device_may_clear_desired(patch: dict[str, Any], left: dict[str, Any]) -> None:
    shadow.permit(patch, {"x": 1}, by_device=True)
    assert shadow.clear(DESIRED, patch) == left


@pytest.mark.parametrize("patch", [{"a": 1}, {"a": {}}, {"a": {"b": None, "c": 0}}, {"a": [None]}, {"a": False}])
def test_a_device_may_not_write_desired(patch: dict[str, Any]) -> None:
    with pytest.raises(Forbidden):
        shadow.permit(patch, None, by_device=True)


def test_a_user_may_not_write_reported() -> None:
    shadow.permit({"a": 1}, None, by_device=False)
    with pytest.raises(Forbidden):
        shadow.permit(None, {}, by_device=False)


def nested(depth: int) -> dict[str, Any]:
    return {"a": nested(depth - 1)} if depth > 1 else {"a": 1}


def test_bounds() -> None:
    bounds.check("desired", nested(8))
    bounds.check("desired", {str(number): 1 for number in range(1024)})
    bounds.check("desired", {"a": "x" * (32 * 1024 - 8)})
    with pytest.raises(ValidationFailed):
        bounds.check("desired", nested(9))
    with pytest.raises(ValidationFailed):
        bounds.check("desired", {"a": {str(number): 1 for number in range(1024)}})
    with pytest.raises(TooLarge):
        bounds.check("desired", {"a": "x" * (32 * 1024 - 7)})
