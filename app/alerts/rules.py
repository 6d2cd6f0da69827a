"""What a rule makes of a value: pure, over one rule and one subject at a time.

``queries`` says the same set-wise in SQL; a property test holds the two together.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import eq, ge, gt, le, lt, ne
from typing import Any

TYPES = ("metric", "device_offline", "deployment_failed", "log_match")
CONDITIONS = {"gt": gt, "gte": ge, "lt": lt, "lte": le, "eq": eq, "ne": ne}
SEVERITIES = ("info", "warning", "critical")
NO_DATA = ("keep", "ok", "alert")
STATES = ("ok", "pending", "firing")

STALE_SECONDS = 300
"""A value says nothing any more after this time, or three times ``for_seconds`` if that is longer."""
WINDOW_SECONDS = 300
"""In which the matches of a ``log_match`` rule are counted unless it says another."""

BREACHED, HOLDING, CLEARED, UNKNOWN, GONE = "breached", "holding", "cleared", "unknown", "gone"
"""Verdicts. Holding: between both thresholds, too good to fire and not good enough to be over."""

OF_TYPE = {
    "metric": {"metric", "condition", "threshold", "clear_threshold", "no_data"},
    "log_match": {"threshold", "clear_threshold", "log_q", "log_level"},
    "device_offline": set[str](),
    "deployment_failed": set[str](),
}
"""The fields that only rules of that type have."""
SPECIAL = frozenset[str]().union(*OF_TYPE.values())


@dataclass(frozen=True)
class Rule:
    """The part of a rule that decides."""

    condition: str = "gt"
    threshold: float = 0.0
    clear_threshold: float | None = None
    for_seconds: int = 0
    no_data: str = "keep"

    @property
    def wait(self) -> timedelta:
        return timedelta(seconds=self.for_seconds)

    @property
    def stale(self) -> timedelta:
        return timedelta(seconds=max(STALE_SECONDS, 3 * self.for_seconds))


@dataclass(frozen=True)
class Standing:
    """An alert that is open. ``state``: pending or firing."""

    state: str
    since: datetime


def verdict(rule: Rule, values: Iterable[float]) -> str:
    """What the fresh values of a device say together: its worst series counts. Without any, ``no_data`` says it."""
    given = list(values)
    if not given:
        return {"keep": UNKNOWN, "ok": CLEARED, "alert": BREACHED}[rule.no_data]
    holds = CONDITIONS[rule.condition]
    if any(holds(value, rule.threshold) for value in given):
        return BREACHED
    clear = rule.threshold if rule.clear_threshold is None else rule.clear_threshold
    return HOLDING if any(holds(value, clear) for value in given) else CLEARED


def step(
    standing: Standing | None, seen: str, rule: Rule, now: datetime, since: datetime | None = None
) -> Standing | None:
    """How a subject stands after one more verdict; None: nothing is open.

    ``since``: when the breach began, where the source knows it (a device's silence); else it begins with the verdict.
    What has never fired goes when the condition fails for once (Prometheus); what fires stays until it is cleared.
    """
    if seen == UNKNOWN:
        return standing
    if seen == BREACHED:
        if standing is not None and standing.state == "firing":
            return standing
        began = since or (standing.since if standing else now)
        return Standing("firing" if now - began >= rule.wait else "pending", began)
    if seen == HOLDING and standing is not None and standing.state == "firing":
        return standing
    return None


def faults(rule: Mapping[str, Any]) -> dict[str, list[str]]:
    """Why a rule cannot be, by field; empty if it can. ``None`` counts as not given."""
    kind = rule["type"]
    given = {name for name in SPECIAL if rule.get(name) is not None} - ({"no_data"} if _default(rule) else set())
    found = {_shown(name): ["Not of a rule of this type."] for name in given - OF_TYPE[kind]}
    if kind == "metric":
        for name in sorted({"metric", "condition", "threshold"} - given):
            found[name] = ["Missing data for required field."]
    if kind == "log_match":
        found |= _log_faults(rule, given)
    if kind == "deployment_failed" and "all" not in rule["target"]:
        found["target"] = ["Only {all: true}: every deployment is watched."]
    if not found and rule.get("clear_threshold") is not None:
        found |= _clear_faults(rule)
    return found


def _default(rule: Mapping[str, Any]) -> bool:
    return rule.get("no_data") == "keep"


def _shown(name: str) -> str:
    return "query" if name.startswith("log_") else name


def _log_faults(rule: Mapping[str, Any], given: set[str]) -> dict[str, list[str]]:
    found = {}
    if not given & {"log_q", "log_level"}:
        found["query"] = ["Give q, level or both."]
    if "threshold" in given and rule["threshold"] < 1:
        found["threshold"] = ["Must be at least 1: so many entries within for_seconds."]
    if not rule["for_seconds"]:
        found["for_seconds"] = ["Must be at least 1: the entries within so many seconds are counted."]
    return found


def _clear_faults(rule: Mapping[str, Any]) -> dict[str, list[str]]:
    condition, clear, threshold = rule.get("condition") or "gte", rule["clear_threshold"], rule["threshold"]
    if condition in ("eq", "ne"):
        return {"clear_threshold": ["Only with gt, gte, lt, lte."]}
    beyond = clear > threshold if condition in ("gt", "gte") else clear < threshold
    return {"clear_threshold": ["Must lie on the good side of threshold."]} if beyond else {}
