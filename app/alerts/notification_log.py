"""The delivery log: what a rule has told, how each try went, and telling it again."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import exists, func, select, text

from app import db
from app.alerts.models import AlertRule, Notification, NotificationAttempt
from app.alerts.notification_schemas import NotificationRead
from app.errors import NotFound
from app.jobs import enqueue
from app.pagination import Page, paginate

SHOWN_ATTEMPTS = 50
SORTABLE = {
    "created_at": Notification.created_at,
    "finished_at": Notification.finished_at,
    "state": Notification.state,
    "kind": Notification.kind,
    "id": Notification.id,
}


def list_notifications(
    org_id: UUID,
    rule_id: UUID,
    *,
    limit: int,
    offset: int,
    sort: str | None = None,
    state: str | None = None,
    kind: str | None = None,
) -> Page:
    """A rule's notifications with their tries, newest first. Raises NotFound, ValidationFailed."""
    if not db.session.scalar(select(exists().where(AlertRule.org_id == org_id, AlertRule.id == rule_id))):
        raise NotFound("alert")
    query = select(Notification).where(Notification.org_id == org_id, Notification.rule_id == rule_id)
    if state:
        query = query.where(Notification.state == state)
    if kind:
        query = query.where(Notification.kind == kind)
    page = paginate(query, limit=limit, offset=offset, sort=sort, by=SORTABLE, default="-created_at")
    return Page(_with_attempts(org_id, page.items), page.total, page.limit, page.offset)


_AGAIN = text("""
UPDATE notifications SET state = 'queued', next_attempt_at = now(), queued_at = now(), failures = 0, finished_at = NULL
WHERE org_id = :org AND rule_id = :rule AND id = :id AND state <> 'sending'
""")


def replay(org_id: UUID, rule_id: UUID, notification_id: UUID) -> dict[str, Any]:
    """Send a notification again, whatever became of it; one that is being sent is left to that. Raises NotFound."""
    db.session.execute(_AGAIN, {"org": org_id, "rule": rule_id, "id": notification_id})
    query = select(Notification).where(
        Notification.org_id == org_id, Notification.rule_id == rule_id, Notification.id == notification_id
    )
    found = db.session.scalars(query).first()
    if found is None:
        raise NotFound("notification")
    enqueue("alerts.deliver", org_id)
    return _with_attempts(org_id, [found])[0]


def _with_attempts(org_id: UUID, notifications: Sequence[Notification]) -> list[dict[str, Any]]:
    place = func.row_number().over(
        partition_by=NotificationAttempt.notification_id, order_by=NotificationAttempt.id.desc()
    )
    ids = [one.id for one in notifications]
    ranked = (
        select(NotificationAttempt.__table__, place.label("place"))
        .where(NotificationAttempt.org_id == org_id, NotificationAttempt.notification_id.in_(ids))
        .subquery()
    )
    tries = defaultdict(list)
    for row in db.session.execute(select(ranked).where(ranked.c.place <= SHOWN_ATTEMPTS).order_by(ranked.c.id.desc())):
        tries[row.notification_id].append(row)
    return [_shown(one, tries[one.id]) for one in notifications]


def _shown(notification: Notification, attempts: list[Any]) -> dict[str, Any]:
    names = NotificationRead().fields.keys() - {"attempts"}
    return {**{name: getattr(notification, name) for name in names}, "attempts": attempts}
