"""The benchmarks' machinery, in a small size: what it measures counts for nothing here, only that it measures."""

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.platform import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("bench")]

SERVERS = ("DATABASE_URL", "REDIS_URL", "EDGEFLOW_DATA_DIR")


def figures(suite: str, **sizes: Any) -> dict[str, Any]:
    """Run a suite in a process of its own, as ``make bench`` does; its figures by name."""
    code = (
        "import json, sys; from dataclasses import asdict; from importlib import import_module;"
        "found = import_module('bench.' + sys.argv[1]).run(**json.loads(sys.argv[2]));"
        "print(json.dumps([asdict(one) for one in found]))"
    )
    environ = {name: value for name, value in os.environ.items() if name not in SERVERS}
    done = subprocess.run(
        [sys.executable, "-c", code, suite, json.dumps(sizes)],
        cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {one["name"]: one for one in json.loads(done.stdout.splitlines()[-1])}


def test_commands() -> None:
    """Beside the peers where their packages are (``make bench`` installs them)."""
    peers = all(importlib.util.find_spec(package) for package in ("fastapi", "uvicorn", "asyncpg"))
    found = figures("commands", count=5, seconds=0.3, rounds=1, peers=peers)
    assert found["commands.per_second"]["value"] > 0
    assert found["commands.across.p50_ms"]["value"] > 0
    if peers:
        assert found["commands.ratio_to_checked_twin"]["target"] == ">= 2"
        assert all(found[f"commands.{name}_twin.p50_ms"]["value"] > 0 for name in ("bare", "checked"))


def test_tunnels() -> None:
    found = figures("tunnels", idle=20, storm=20, settle=0.4, durable=False)
    assert found["tunnels.kb_per_tunnel"]["target"] == "<= 70"
    assert found["tunnels.reconnect_20_seconds"]["value"] > 0


def test_ingest() -> None:
    found = figures("ingest", connections=5, points=100, seconds=0.5, wide=0.5, bare=1_000, durable=False)
    assert found["ingest.points_per_second"]["target"] == ">= 40000"
    assert found["ingest.points_per_second"]["value"] > 100
    assert found["ingest.wide.points_per_second"]["value"] > 100
    assert found["ingest.ratio_to_bare_copy"]["value"] > 0


def test_alerts() -> None:
    found = figures("alerts", devices=40, rules=40, ticks=2, durable=False)
    assert found["alerts: begun in it"]["value"] > 0
    assert found["alerts: tick of 40 rules over 40 devices, median"]["target"] == "<= 3"


def test_editor() -> None:
    found = figures("editor", megabytes=3, seconds=0.5, rounds=1, durable=False)
    for name in ("editor", "editor.across"):
        assert found[f"{name}.commands_p99_ratio"]["target"] == "<= 3"
        assert found[f"{name}.mb_per_second"]["value"] > 0.1
    assert found["editor.web_growth_mb"]["value"] >= 0
