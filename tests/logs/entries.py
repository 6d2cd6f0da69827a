"""Log entries as rows, and how tests read them."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from app import db
from app.logs import store

NOON = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)


def add(org: UUID, *messages: str, device: UUID | None = None, **fields: Any) -> None:
    """What a device sent, a second apart; ``time`` is the first one's, ``level`` and ``fields`` are everybody's."""
    time = fields.get("time", NOON)
    rows = [
        (org, device or uuid4(), time + timedelta(seconds=number), None, datetime.now(UTC),
         fields.get("level", "info"), message, fields.get("fields"))
        for number, message in enumerate(messages)
    ]  # fmt: skip
    with db.transaction(org) as session:
        store.add(session, rows)


def journal(org: UUID, kind: str | None = None) -> list[Any]:
    """The platform's entries of an organization, in the order of their writing."""
    query = "SELECT * FROM log_entries WHERE source = 'platform' AND (kind = :kind OR :kind IS NULL) ORDER BY id"
    with db.transaction(org) as session:
        return list(session.execute(text(query), {"kind": kind}))


def messages(items: list[Any]) -> list[str]:
    return [item["message"] for item in items]
