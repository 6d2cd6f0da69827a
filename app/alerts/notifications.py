"""What is to be told to whom: alerts become messages, one for each channel of a rule however many alerts there are.

Nobody is told twice: the statement that marks alerts as told and the messages about them commit together, so a job
that runs again, late or beside another finds nothing left. Time is always the database's ``now()``.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app import db
from app.alerts import channels
from app.alerts.channels import words
from app.alerts.models import UNTOLD
from app.clock import rfc3339
from config.settings import settings

GROUP_SECONDS = 60  # after a message of a kind, what follows within this time is gathered into the next one
NAMED = 10  # alerts that a message names; it counts the others
SWEEP = 500  # rules at once

_SILENCED = "coalesce(r.silenced_until > now(), false)"
_LISTENS = f"r.channels <> '[]' AND NOT {_SILENCED}"


def plan_for(org_id: UUID, rule_id: UUID) -> int:
    """Plan what a rule's alerts give to tell; how many messages. Safe at any time, in a transaction of the tenant.

    Firing: at once, or gathered if the rule has told of others just now. Resolved: of alerts that were told as firing.
    Reminder: while alerts fire unacknowledged, every ``repeat_seconds``. While the rule is silenced nothing is
    planned; what is still to be told then is told when the silence ends.
    """
    rule = _lock(rule_id)
    if rule is None:
        return 0
    planned = 0
    for kind, statement in (("resolved", _TELL_RESOLVED), ("firing", _TELL_FIRING)):
        if not rule.recent or kind not in rule.recent:
            told = db.session.execute(statement, {"rule": rule_id, "named": NAMED}).all()
            planned += _add(org_id, rule, kind, told, rule.channels)
    if rule.reminder_due and not planned:
        told = db.session.execute(_REMIND, {"rule": rule_id, "named": NAMED}).all()
        planned += _add(org_id, rule, "reminder", told, _reached(rule))
    return planned


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('notifications of ' || CAST(:rule AS text), 0))")
_RULE = text(f"""
SELECT r.id, r.name, r.type, r.severity, r.metric, r.condition, r.threshold, r.for_seconds, r.channels, now() AS now,
    (SELECT array_agg(DISTINCT n.kind) FROM notifications n
     WHERE n.rule_id = r.id AND n.created_at > now() - make_interval(secs => :gap)) AS recent,
    (SELECT max(n.created_at) FROM notifications n
     WHERE n.rule_id = r.id AND n.kind IN ('firing', 'reminder')) AS told_at,
    r.repeat_seconds > 0 AND NOT EXISTS (
        SELECT FROM notifications n WHERE n.rule_id = r.id AND n.kind IN ('firing', 'reminder')
          AND n.created_at > now() - make_interval(secs => r.repeat_seconds)) AS reminder_due
FROM alert_rules r WHERE r.id = :rule AND {_LISTENS}
""")


def _lock(rule_id: UUID) -> Any | None:
    """The rule, for which nobody else plans until this transaction ends; None: it tells nobody now.

    Else two jobs would each tell a part, or wait for each other's alerts for ever. Not a lock of its row: evaluations
    pass over the rules whose row is locked.
    """
    db.session.execute(_LOCK, {"rule": str(rule_id)})
    return db.session.execute(_RULE, {"rule": rule_id, "gap": GROUP_SECONDS}).first()


_ABOUT = "id, device_id, device_name, deployment_id, subject, value, since, fired_at, resolved_at, acknowledged_at"
_FIRST = "min(CAST(id AS text)) OVER () AS first, count(*) OVER () AS total"
_ORDER = "ORDER BY device_name, subject LIMIT :named"

_TELL_FIRING = text(f"""
WITH told AS (
    UPDATE alerts SET notified_at = now()
    WHERE rule_id = :rule AND ({UNTOLD}) AND state = 'firing' RETURNING {_ABOUT}
)
SELECT *, {_FIRST} FROM told {_ORDER}
""")
_TELL_RESOLVED = text(f"""
WITH told AS (
    UPDATE alerts SET resolved_notified_at = now()
    WHERE rule_id = :rule AND ({UNTOLD}) AND state = 'resolved' RETURNING {_ABOUT}
)
SELECT *, {_FIRST} FROM told {_ORDER}
""")
_UNSEEN = "a.state = 'firing' AND a.notified_at IS NOT NULL AND a.acknowledged_at IS NULL"
_REMIND = text(f"SELECT {_ABOUT}, {_FIRST} FROM alerts a WHERE a.rule_id = :rule AND {_UNSEEN} {_ORDER}")


_REACHED = text("""
SELECT DISTINCT n.channel->>'id' FROM notifications n WHERE n.rule_id = :rule AND n.state IN ('queued', 'sending')
""")


def _reached(rule: Any) -> list[channels.Stored]:
    """The channels that have all they were sent: the others need no reminder of what they will get anyway."""
    waiting = set(db.session.scalars(_REACHED, {"rule": rule.id}))
    return [channel for channel in rule.channels if channel["id"] not in waiting]


_ADD = text("""
INSERT INTO notifications (org_id, rule_id, dedup_key, kind, channel, payload)
SELECT :org, :rule, m.key, :kind, m.channel, CAST(:payload AS jsonb)
FROM jsonb_to_recordset(CAST(:messages AS jsonb)) AS m (key text, channel jsonb)
ON CONFLICT (org_id, dedup_key) DO NOTHING RETURNING id
""")


def _add(org_id: UUID, rule: Any, kind: str, told: Sequence[Any], to: list[channels.Stored]) -> int:
    if not told or not to:
        return 0
    # Each alert is told once as firing and once as over, so one of a message's alerts names it; reminders follow one
    # another.
    since = rfc3339(rule.told_at) if kind == "reminder" and rule.told_at else told[0].first
    messages = [
        {"key": f"{kind}:{rule.id}:{channel['id']}:{since}", "channel": channels.masked_one(channel)} for channel in to
    ]
    values = {
        "org": org_id,
        "rule": rule.id,
        "kind": kind,
        "payload": db.as_json(payload(org_id, rule, kind, told)),
        "messages": db.as_json(messages),
    }
    return len(db.session.execute(_ADD, values).all())


def payload(org_id: UUID, rule: Any, kind: str, told: Sequence[Any]) -> dict[str, Any]:
    """What a message says, as webhooks get it (with its ``id``); ``told`` are its first alerts with their ``total``."""
    named = [_named(alert) for alert in told]
    said = {
        "kind": kind,
        "created_at": rfc3339(rule.now),
        "organization_id": str(org_id),
        "rule": {
            name: getattr(rule, name)
            for name in ("id", "name", "type", "severity", "metric", "condition", "threshold", "for_seconds")
        },
        "count": told[0].total,
        "alerts": named,
        "more": told[0].total - len(named),
        "url": f"{settings().url}/api/v1/alerts/{rule.id}",
    }
    return {**said, "title": words.title(said)}


def _named(alert: Any) -> dict[str, Any]:
    plain = ("id", "subject", "device_id", "device_name", "deployment_id", "value")
    times = ("since", "fired_at", "resolved_at", "acknowledged_at")
    moments = {name: getattr(alert, name) for name in times}
    return {
        **{name: getattr(alert, name) for name in plain},
        **{name: rfc3339(moment) if moment else None for name, moment in moments.items()},
    }


_UNTOLD_RULES = text(f"""
SELECT DISTINCT r.org_id, r.id FROM (SELECT rule_id, state FROM alerts WHERE {UNTOLD}) a
JOIN alert_rules r ON r.id = a.rule_id
WHERE {_LISTENS}
  AND NOT EXISTS (SELECT FROM notifications n WHERE n.rule_id = r.id AND n.kind = a.state
                  AND n.created_at > now() - make_interval(secs => :gap))
LIMIT :sweep
""")
_DUE_REMINDERS = text(f"""
SELECT r.org_id, r.id FROM alert_rules r
WHERE {_LISTENS} AND r.repeat_seconds > 0
  AND EXISTS (SELECT FROM alerts a WHERE a.rule_id = r.id AND {_UNSEEN})
  AND NOT EXISTS (SELECT FROM notifications n WHERE n.rule_id = r.id AND n.kind IN ('firing', 'reminder')
                  AND n.created_at > now() - make_interval(secs => r.repeat_seconds))
LIMIT :sweep
""")


def untold() -> list[tuple[UUID, UUID]]:
    """``(org_id, rule_id)`` of rules with something to tell, whatever became of their job; in a system transaction."""
    return [tuple(row) for row in db.session.execute(_UNTOLD_RULES, {"gap": GROUP_SECONDS, "sweep": SWEEP})]


def due_reminders() -> list[tuple[UUID, UUID]]:
    """``(org_id, rule_id)`` of rules that fire unacknowledged and were last told of too long ago; likewise."""
    return [tuple(row) for row in db.session.execute(_DUE_REMINDERS, {"sweep": SWEEP})]
