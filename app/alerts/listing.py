"""Alert rules as they are answered, the alerts of a rule, and what has happened to it."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, case, exists, func, select

from app import db
from app.alerts import channels
from app.alerts.models import Alert, AlertEvent, AlertRule
from app.errors import NotFound
from app.pagination import Page, paginate

SORTABLE = {
    name: getattr(AlertRule, name)
    for name in ("id", "name", "type", "severity", "enabled", "created_at", "updated_at", "evaluated_at")
}
SORTABLE_ALERTS = {
    name: getattr(Alert, name)
    for name in ("id", "since", "fired_at", "resolved_at", "state", "device_name", "subject", "value")
}


def _open(state: str) -> ColumnElement[bool]:
    return exists().where(Alert.org_id == AlertRule.org_id, Alert.rule_id == AlertRule.id, Alert.state == state)


_STATE: ColumnElement[str] = case((_open("firing"), "firing"), (_open("pending"), "pending"), else_="ok")


def list_rules(
    org_id: UUID, *, limit: int, offset: int, sort: str | None = None, state: str | None = None, **equal: Any
) -> Page:
    """A page of rules, newest first. ``equal``: type, severity, enabled. Raises ValidationFailed."""
    query = select(AlertRule).where(AlertRule.org_id == org_id).filter_by(**equal)
    if state is not None:
        query = query.where(_STATE.in_([state]))
    page = paginate(query, limit=limit, offset=offset, sort=sort, by=SORTABLE, default="-created_at")
    return Page(_all_described(page.items), page.total, page.limit, page.offset)


def described(rule: AlertRule) -> dict[str, Any]:
    """A rule with every field of its answer; its channels' secrets are masked."""
    return _all_described([rule])[0]


def state(rule: AlertRule) -> str:
    """``firing`` if one of its alerts does, else ``pending`` if one may, else ``ok``."""
    return str(described(rule)["state"])


_COUNTED = (
    func.count().filter(Alert.state == "pending").label("pending"),
    func.count().filter(Alert.state == "firing").label("firing"),
    func.count().filter(Alert.state == "firing", Alert.acknowledged_at.is_not(None)).label("acknowledged"),
    func.count().filter(Alert.state == "resolved").label("resolved"),
)


def _all_described(found: Sequence[AlertRule]) -> list[dict[str, Any]]:
    query = select(Alert.rule_id, *_COUNTED).where(Alert.rule_id.in_([rule.id for rule in found]))
    counts = {row.rule_id: row._asdict() for row in db.session.execute(query.group_by(Alert.rule_id))}
    return [_described(rule, counts.get(rule.id, {})) for rule in found]


def _described(rule: AlertRule, counts: dict[str, Any]) -> dict[str, Any]:
    columns = {column.key: getattr(rule, column.key) for column in AlertRule.__mapper__.columns}
    alerts = {name: counts.get(name, 0) for name in ("pending", "firing", "acknowledged", "resolved")}
    criteria = {name: value for name, value in (("q", rule.log_q), ("level", rule.log_level)) if value is not None}
    return {
        **columns,
        "query": criteria or None,
        "channels": channels.masked(rule.channels),
        "alerts": alerts,
        "state": "firing" if alerts["firing"] else "pending" if alerts["pending"] else "ok",
    }


def instances(org_id: UUID, rule_id: UUID, *, limit: int, offset: int, sort: str | None = None, **equal: Any) -> Page:
    """The alerts of a rule, newest first. ``equal``: state, device_id. Raises NotFound, ValidationFailed."""
    _known(org_id, rule_id)
    query = select(Alert).where(Alert.org_id == org_id, Alert.rule_id == rule_id).filter_by(**equal)
    return paginate(query, limit=limit, offset=offset, sort=sort, by=SORTABLE_ALERTS, default="-since")


def events(
    org_id: UUID, rule_id: UUID, *, limit: int, offset: int, sort: str | None = None, kind: str | None = None
) -> Page:
    """What has happened to a rule and its alerts, newest first. Raises NotFound, ValidationFailed."""
    _known(org_id, rule_id)
    query = select(AlertEvent).where(AlertEvent.org_id == org_id, AlertEvent.rule_id == rule_id)
    if kind is not None:
        query = query.where(AlertEvent.kind == kind)
    by = {"id": AlertEvent.id}
    return paginate(query, limit=limit, offset=offset, sort=sort, by=by, default="-id")


def _known(org_id: UUID, rule_id: UUID) -> None:
    if not db.session.scalar(select(exists().where(AlertRule.org_id == org_id, AlertRule.id == rule_id))):
        raise NotFound("alert")
