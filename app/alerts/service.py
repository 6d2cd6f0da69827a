"""Alert rules: made, changed, silenced, acknowledged, deleted. What fires is decided by ``evaluate``."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import delete, func, select, text

from app import db, rows
from app.alerts import channels, listing, queries, rules
from app.alerts.models import AlertEvent, AlertRule
from app.devices import service as devices
from app.errors import InvalidState, ValidationFailed
from app.jobs import enqueue

DEFAULTS: dict[str, dict[str, Any]] = {"log_match": {"for_seconds": rules.WINDOW_SECONDS, "threshold": 1.0}}
"""What a new rule of a type has, where others have nothing or zero."""
WATCHED = ("type", "metric", "log_q", "log_level")
"""What a rule looks at: its alerts say nothing about anything else."""


def create(org_id: UUID, actor: str, *, channels: list[dict[str, Any]] | None = None, **given: Any) -> dict[str, Any]:
    """Make a rule; new secrets of its channels are in this answer and never again. Raises ValidationFailed."""
    values = checked(org_id, given)
    stored, shown = _prepared(channels or [], None)
    rule = AlertRule(id=uuid4(), org_id=org_id, created_by=actor, channels=stored, **values)
    db.session.add(rule)
    db.session.flush()
    _note(rule, "created", actor)
    enqueue("alerts.evaluate")
    db.session.refresh(rule)
    return {**listing.described(rule), "channels": shown}


def get(org_id: UUID, rule_id: UUID) -> dict[str, Any]:
    """A rule with its state and its alerts by state. Raises NotFound."""
    return listing.described(_one(org_id, rule_id))


def update(
    org_id: UUID, actor: str, rule_id: UUID, *, channels: list[dict[str, Any]] | None = None, **given: Any
) -> dict[str, Any]:
    """Change the fields given. What does not apply any more is resolved: at once, or by the next evaluation.

    Raises NotFound or ValidationFailed.
    """
    rule = _one(org_id, rule_id, lock=True)
    changes = _columns(given)
    if (kind := changes.get("type", rule.type)) != rule.type:  # what only the former type has goes
        left = rules.OF_TYPE[rule.type] - rules.OF_TYPE[kind] - changes.keys()
        changes = {**dict.fromkeys(left), **DEFAULTS.get(kind, {}), **changes}
        changes.update({"no_data": "keep"} if "no_data" in left else {})
    _check(org_id, {name: changes.get(name, getattr(rule, name)) for name in (*rules.SPECIAL, *_COMMON)}, changes)
    shown = None
    if channels is not None:
        changes["channels"], shown = _prepared(channels, rule.channels)
    changed = sorted(name for name, value in changes.items() if getattr(rule, name) != value)
    _change(rule, actor, changes, changed)
    described = listing.described(rule)
    return described if shown is None else {**described, "channels": shown}


def remove(org_id: UUID, rule_id: UUID) -> None:
    """Delete a rule with its alerts and their history. Raises NotFound."""
    _one(org_id, rule_id, lock=True)
    db.session.execute(delete(AlertRule).where(AlertRule.org_id == org_id, AlertRule.id == rule_id))


_ACKNOWLEDGE = text("""
WITH known AS (
    UPDATE alerts SET acknowledged_at = now(), acknowledged_by = :actor, comment = :comment
    WHERE org_id = :org AND rule_id = :rule AND state = 'firing' RETURNING id, device_id, device_name
), told AS (
    INSERT INTO alert_events (org_id, rule_id, alert_id, device_id, device_name, kind, actor, data)
    SELECT :org, :rule, id, device_id, device_name, 'acknowledged', :actor,
        jsonb_strip_nulls(jsonb_build_object('comment', CAST(:comment AS text)))
    FROM known
)
SELECT count(*) FROM known
""")


def acknowledge(org_id: UUID, actor: str, rule_id: UUID, *, comment: str | None = None) -> dict[str, Any]:
    """Take note of the rule's firing alerts: they go on firing, and nobody is reminded of them.

    Raises NotFound, or InvalidState if none fires.
    """
    rule = _one(org_id, rule_id, lock=True)
    values = {"org": org_id, "rule": rule_id, "actor": actor, "comment": comment}
    if not db.session.scalar(_ACKNOWLEDGE, values):
        raise InvalidState("no alert of this rule is firing", current_state=listing.state(rule), allowed_actions=[])
    return listing.described(rule)


_COMMON = ("type", "target", "for_seconds")


def checked(org_id: UUID, given: Mapping[str, Any]) -> dict[str, Any]:
    """A new rule's columns, with the defaults of its type. Raises ValidationFailed."""
    values = {"target": {"all": True}, "for_seconds": 0, **DEFAULTS.get(given["type"], {}), **_columns(given)}
    _check(org_id, values)
    return values


def _columns(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a body as columns."""
    values = dict(given)
    if "query" in values:
        criteria = values.pop("query") or {}
        values |= {"log_q": criteria.get("q"), "log_level": criteria.get("level")}
    if "device_ids" in values.get("target", {}):
        values["target"] = {"device_ids": sorted({str(device_id) for device_id in values["target"]["device_ids"]})}
    return values


def _check(org_id: UUID, rule: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> None:
    """Raises ValidationFailed; another tenant's device is as unknown as one that is nowhere."""
    if found := rules.faults(rule):
        raise ValidationFailed(details=found)
    target = rule["target"] if changes is None else changes.get("target", {})
    if "device_ids" in target:
        named = [UUID(device_id) for device_id in target["device_ids"]]
        known = devices.select_targets(org_id, device_ids=named).subquery()
        if missing := len(named) - (db.session.scalar(select(func.count()).select_from(known)) or 0):
            raise ValidationFailed(details={"target.device_ids": [f"{missing} of these devices are unknown."]})


def _prepared(given: list[dict[str, Any]], previous: list[Any] | None) -> tuple[list[Any], list[Any]]:
    return channels.prepare(given, previous)


def _change(rule: AlertRule, actor: str, changes: dict[str, Any], changed: list[str]) -> None:
    if not changed:
        return
    for name, value in changes.items():
        setattr(rule, name, value)
    rule.next_evaluation_at = func.now()
    db.session.flush()
    reason = "rule disabled" if not rule.enabled else "rule changed" if set(WATCHED) & set(changed) else None
    if reason:
        queries.end_all(rule.id, reason)
        enqueue("alerts.notify", rule.org_id, rule.id)
    _note(rule, "changed", actor, fields=["query" if name.startswith("log_") else name for name in changed])
    enqueue("alerts.evaluate")
    db.session.refresh(rule)


def _note(rule: AlertRule, kind: str, actor: str, **data: Any) -> None:
    db.session.add(AlertEvent(org_id=rule.org_id, rule_id=rule.id, kind=kind, actor=actor, data=data))
    db.session.flush()


def _one(org_id: UUID, rule_id: UUID, *, lock: bool = False) -> AlertRule:
    query = select(AlertRule).where(AlertRule.org_id == org_id, AlertRule.id == rule_id)
    return rows.one(query, "alert", lock=lock)
