"""What an operator is told of telemetry that could not be stored: once an hour for each thing, not each time."""

import threading
import time
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from app.db import as_json

REPEAT_SECONDS = 3_600.0
REMEMBERED = 50_000
WARNING = 2


@dataclass(frozen=True)
class Notice:
    """A line for the organization's log. ``what`` tells it from others of its kind; no device: of all of them."""

    org_id: UUID
    device_id: UUID | None
    kind: str
    what: str
    message: str
    count: int

    @property
    def subject(self) -> tuple[UUID, UUID | None, str, str]:
        return self.org_id, self.device_id, self.kind, self.what


_told: dict[tuple[UUID, UUID | None, str, str], float] = {}
_lock = threading.Lock()

# Other workers may have said it within the hour. By the device's index where there is one.
_WRITE = """
INSERT INTO log_entries (org_id, device_id, level, source, kind, message, fields)
SELECT o.id, g.device_id, {warning}, 'platform', g.kind, g.message, g.fields::jsonb
FROM unnest(CAST(:orgs AS uuid[]), CAST(:devices AS uuid[]), CAST(:kinds AS text[]), CAST(:messages AS text[]),
            CAST(:fields AS text[])) AS g (org_id, device_id, kind, message, fields)
JOIN organizations o ON o.id = g.org_id
WHERE NOT EXISTS (
    SELECT FROM log_entries l
    WHERE {same} AND l.org_id = g.org_id AND l.time > now() - interval '1 hour' AND l.source = 'platform'
      AND l.kind = g.kind AND l.fields ->> 'what' = g.fields::jsonb ->> 'what'
)
"""
_OF_DEVICES = text(_WRITE.format(warning=WARNING, same="l.device_id = g.device_id"))
_OF_ALL = text(_WRITE.format(warning=WARNING, same="l.device_id IS NULL"))


def write(session: Session, notices: list[Notice]) -> None:
    """Write those that nobody has written within the hour."""
    fresh = [one for one in notices if _is_due(one)]
    for statement, part in (
        (_OF_DEVICES, [one for one in fresh if one.device_id]),
        (_OF_ALL, [one for one in fresh if not one.device_id]),
    ):
        if part:
            session.execute(statement, _values(part))


def _values(notices: list[Notice]) -> dict[str, list[Any]]:
    return {
        "orgs": [one.org_id for one in notices],
        "devices": [one.device_id for one in notices],
        "kinds": [one.kind for one in notices],
        "messages": [one.message for one in notices],
        "fields": [as_json({"what": one.what, "count": one.count}) for one in notices],
    }


def _is_due(notice: Notice) -> bool:
    """Whether this process has not said it for an hour; from now on it has."""
    moment = time.monotonic()
    with _lock:
        if len(_told) >= REMEMBERED:
            _told.clear()
        due = moment - _told.get(notice.subject, -REPEAT_SECONDS) >= REPEAT_SECONDS
        if due:
            _told[notice.subject] = moment
    return due
