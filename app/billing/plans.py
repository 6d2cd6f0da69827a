"""The plans there are, as ``config/plans.toml`` has them. Pure."""

import tomllib
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path

from config.settings import settings

ROOT = Path(__file__).parents[2]
DEFAULT = "free"


@dataclass(frozen=True)
class Retention:
    """How long things are kept, and answered."""

    raw: timedelta
    minutes: timedelta
    hours: timedelta
    logs: timedelta


@dataclass(frozen=True)
class Plan:
    """``id`` is what an organization's row says, ``name`` what people read."""

    id: str
    name: str
    retention: Retention


@cache
def plans() -> dict[str, Plan]:
    """Every plan by its id, the smallest first."""
    read = tomllib.loads((ROOT / settings().plans_file).read_text())
    return {key: Plan(key, values["name"], _retention(values["retention"])) for key, values in read.items()}


def plan(name: str) -> Plan:
    """The plan of that id; the free one for a plan that is sold no more."""
    return plans().get(name) or plans()[DEFAULT]


def longest(kind: str) -> timedelta:
    """The longest time that any plan keeps ``kind`` (a field of ``Retention``)."""
    return max(getattr(one.retention, kind) for one in plans().values())


def _retention(days: dict[str, int]) -> Retention:
    return Retention(**{kind: timedelta(days=number) for kind, number in days.items()})
