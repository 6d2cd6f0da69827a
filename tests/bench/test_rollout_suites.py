"""The suites ``rollout`` and ``devices`` in small: they run, and every figure comes out. Their times prove nothing."""

import json
import math
import subprocess
import sys

import pytest

from tests.platform import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bench")]

RUN = """
import json
from dataclasses import asdict
from bench import {suite}
print(json.dumps([asdict(one) for one in {suite}.run(**{sizes}, durable=False)]))
"""
FIGURES = {
    "rollout": {
        "rollout.devices_per_second",
        "rollout.seconds_24_over_8",
        "rollout.statements_per_device",
        "rollout.ratio_to_bare_claim_and_settle",
        "executions.by_cursor_over_first_page",
        "executions.by_rare_state_over_first_page",
        "executions.by_common_state_over_first_page",
    },
    "devices": {"devices.per_second", "devices.p99_over_p50", "devices.ratio_to_bare_twin"},
}
SIZES = {
    "rollout": {"few": 8, "many": 24, "repeats": 1, "rows": 200},
    "devices": {"devices": 60, "seconds": 0.5, "rounds": 1},
}


@pytest.mark.parametrize("suite", FIGURES)
def test_a_suite_measures(suite: str) -> None:
    """In a process of its own, for a suite points its process at servers of its own."""
    program = RUN.format(suite=suite, sizes=SIZES[suite])
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    figures = {one["name"]: one for one in json.loads(done.stdout.splitlines()[-1])}
    assert set(figures) >= FIGURES[suite]
    for one in figures.values():
        assert math.isfinite(one["value"]), one
        assert one["value"] >= 0, one
    assert all(figures[name]["value"] > 0 for name in FIGURES[suite])
