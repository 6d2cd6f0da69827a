"""Figures with their targets: a table for people, and a JSON list for whatever reads them later."""

import importlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured value. ``target`` is words (``">= 2"``, or ``"-"`` for a value that only informs)."""

    name: str
    value: float
    unit: str
    target: str
    holds: bool


def at_least(name: str, value: float, unit: str, target: float) -> Figure:
    return Figure(name, round(value, 3), unit, f">= {target:g}", value >= target)


def at_most(name: str, value: float, unit: str, target: float) -> Figure:
    return Figure(name, round(value, 3), unit, f"<= {target:g}", value <= target)


def told(name: str, value: float, unit: str) -> Figure:
    """A value without a target."""
    return Figure(name, round(value, 3), unit, "-", True)


def table(figures: Iterable[Figure]) -> str:
    """The figures as aligned lines."""
    rows = [(one.name, f"{one.value:,g}", one.unit, one.target, "yes" if one.holds else "NO") for one in figures]
    rows.insert(0, ("figure", "value", "unit", "target", "holds"))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    lines = []
    for name, value, unit, target, holds in rows:
        cells = (name.ljust(widths[0]), value.rjust(widths[1]), unit.ljust(widths[2]), target.ljust(widths[3]), holds)
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def write(path: Path, figures: Iterable[Figure]) -> None:
    """A list of ``{name, value, unit, target, holds}``; figures of other names that stand there already stay."""
    fresh = [asdict(one) for one in figures]
    names = {one["name"] for one in fresh}
    kept = [one for one in _read(path) if one["name"] not in names]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept + fresh, indent=1) + "\n")


def _read(path: Path) -> list[dict[str, object]]:
    try:
        found: list[dict[str, object]] = json.loads(path.read_text())
    except (OSError, ValueError):
        return []
    return found


def measure(suite: str) -> list[Figure]:
    """Run ``bench.<suite>``, which prints how far it is, and answer its figures."""
    measured: list[Figure] = importlib.import_module(f"bench.{suite}").run()
    return measured
