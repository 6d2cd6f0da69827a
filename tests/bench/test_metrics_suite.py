"""The suite ``metrics`` in small: it runs, and every figure comes out. Its times prove nothing."""

import pytest

from tests.bench.test_suites import figures

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bench")]


def test_metrics() -> None:
    found = figures("metrics", few=10, many=10, hours=2, singles=4, fleets=2, durable=False)
    assert found["metrics: 10 devices by tag, p99"]["target"] == "<= 500"
    assert all(one["value"] > 0 for one in found.values())
    assert len(found) == 7
