"""Rules and alerts as the evaluation leaves them, made by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import select, text, update

from app import db
from app.alerts import channels
from app.alerts.models import Alert, AlertRule, Notification, NotificationAttempt
from app.clock import now
from tests import make


def rule(org_id: UUID, *told: dict[str, Any], **fields: Any) -> AlertRule:
    """A metric rule with channels as a request gives them."""
    stored, _shown = channels.prepare(told)
    values = {
        "name": "Pump too hot", "type": "metric", "metric": "temperature", "condition": "gt", "threshold": 80.0,
        "for_seconds": 60, "severity": "critical", "target": {"all": True}, "repeat_seconds": 3600,
    }  # fmt: skip
    made = AlertRule(id=uuid4(), org_id=org_id, channels=stored, **{**values, **fields})
    with db.transaction(org_id) as session:
        session.add(made)
    return made


def fire(made: AlertRule, count: int = 1, *, name: str = "pump") -> list[UUID]:
    """Alerts of new devices ``<name>-0`` … that fire now; their ids."""
    devices = make.devices(count, made.org_id, name=name)
    moment = now()
    alerts = [
        Alert(
            id=uuid4(), org_id=made.org_id, rule_id=made.id, subject=str(device.id), device_id=device.id,
            device_name=f"{name}-{number:03}", state="firing", value=81.5, since=moment, fired_at=moment,
        )
        for number, (device, _key) in enumerate(devices)
    ]  # fmt: skip
    with db.transaction(made.org_id) as session:
        session.add_all(alerts)
    return [alert.id for alert in alerts]


def change(made: AlertRule, ids: list[UUID], **fields: Any) -> None:
    with db.transaction(made.org_id) as session:
        session.execute(update(Alert).where(Alert.id.in_(ids)).values(**fields))


def resolve(made: AlertRule, ids: list[UUID]) -> None:
    change(made, ids, state="resolved", resolved_at=now())


def set_rule(made: AlertRule, **fields: Any) -> None:
    with db.transaction(made.org_id) as session:
        session.execute(update(AlertRule).where(AlertRule.id == made.id).values(**fields))


def age(made: AlertRule, seconds: float) -> None:
    """As if all messages of a rule had been planned, and tried, so much earlier."""
    past = timedelta(seconds=seconds)
    with db.transaction(made.org_id) as session:
        session.execute(
            text(
                "UPDATE notifications SET created_at = created_at - :past, queued_at = queued_at - :past, "
                "next_attempt_at = next_attempt_at - :past WHERE rule_id = :rule"
            ),
            {"past": past, "rule": made.id},
        )


def notifications(made: AlertRule) -> list[Notification]:
    """Of a rule, in the order in which they were planned."""
    with db.transaction(made.org_id) as session:
        query = select(Notification).where(Notification.rule_id == made.id)
        return list(session.scalars(query.order_by(Notification.created_at, Notification.dedup_key)))


def attempts(made: AlertRule) -> list[NotificationAttempt]:
    with db.transaction(made.org_id) as session:
        return list(session.scalars(select(NotificationAttempt).order_by(NotificationAttempt.id)))


@contextmanager
def settings_with(monkeypatch: Any, module: Any, **values: Any) -> Iterator[None]:
    """The module sees other settings."""
    from dataclasses import replace

    from config.settings import settings

    changed = replace(settings(), **values)
    with monkeypatch.context() as patch:
        patch.setattr(module, "settings", lambda: changed)
        yield
