"""Where log entries go: many at once, of any tenants, cleaned of what PostgreSQL cannot hold."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text
from sqlalchemy.orm import Session

from app.logs import levels

MESSAGE_CHARACTERS = 8_000
FIELDS_BYTES = 8_192

Entry = tuple[UUID, UUID, datetime, datetime | None, datetime, Any, Any, Any]
"""Organization, device, time, the time that the device claimed (if another), arrival, level, message, fields."""

_INSERT = text("""
INSERT INTO log_entries (org_id, device_id, time, claimed_at, received_at, level, source, message, fields)
SELECT e.org_id, e.device_id, e.time, e.claimed_at, e.received_at, e.level, 'device', e.message, e.fields
FROM unnest(CAST(:orgs AS uuid[]), CAST(:devices AS uuid[]), CAST(:times AS timestamptz[]),
            CAST(:claimed AS timestamptz[]), CAST(:received AS timestamptz[]), CAST(:levels AS smallint[]),
            CAST(:messages AS text[]), CAST(:fields AS jsonb[]))
    AS e (org_id, device_id, time, claimed_at, received_at, level, message, fields)
""")


def add(session: Session, rows: Iterable[Entry]) -> int:
    """Store what devices sent, in one statement; how many entries. Wants a system transaction if tenants are mixed.

    A level that is none counts as info and stays among the fields; what is too long is cut, and says so.
    """
    cleaned = [_clean(row) for row in rows]
    if not cleaned:
        return 0
    names = ("orgs", "devices", "times", "claimed", "received", "levels", "messages", "fields")
    session.execute(
        _INSERT, {name: list(column) for name, column in zip(names, zip(*cleaned, strict=True), strict=True)}
    )
    return len(cleaned)


def _clean(row: Entry) -> tuple[Any, ...]:
    org_id, device_id, time, claimed_at, received_at, level, message, fields = row
    grade = levels.grade(level)
    kept = fields if isinstance(fields, dict) else {} if fields is None else {"value": fields}
    if grade is None:
        kept = {"level": str(level)[:100], **kept} if level is not None else kept
        grade = levels.INFO
    return org_id, device_id, time, claimed_at, received_at, grade, _message(message), _json(kept)


def _message(given: Any) -> str:
    words = given if isinstance(given, str) else orjson.dumps(given, default=str).decode()
    if len(words) > MESSAGE_CHARACTERS:
        words = words[: MESSAGE_CHARACTERS - 1] + "…"
    return _storable(words)


def _json(fields: dict[str, Any]) -> str:
    try:
        written = orjson.dumps(fields, default=str, option=orjson.OPT_NON_STR_KEYS)
        if b"\\u0000" in written:
            written = orjson.dumps(_without_nul(fields), default=str, option=orjson.OPT_NON_STR_KEYS)
    except (orjson.JSONEncodeError, RecursionError):  # deeper than can be written, or no text
        return '{"dropped": "unreadable fields"}'
    if len(written) > FIELDS_BYTES:
        return orjson.dumps({"dropped": f"{len(written)} bytes of fields"}).decode()
    return written.decode()


def _without_nul(value: Any) -> Any:
    if isinstance(value, str):
        return _storable(value)
    if isinstance(value, dict):
        return {_storable(str(key)): _without_nul(inner) for key, inner in value.items()}
    return [_without_nul(inner) for inner in value] if isinstance(value, list) else value


def _storable(words: str) -> str:
    return words.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
