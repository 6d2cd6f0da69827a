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

# By way of a temporary table, since COPY into a table with row-level security is refused. It stays in the pooled
# session and belongs to the role that made it, so each role has one.
_COLUMNS = "org_id, device_id, time, claimed_at, received_at, level, message, fields"
_INCOMING = """
CREATE TEMPORARY TABLE IF NOT EXISTS {table} (
    org_id uuid, device_id uuid, time timestamptz, claimed_at timestamptz, received_at timestamptz, level smallint,
    message text, fields jsonb
) ON COMMIT DELETE ROWS
"""
_INSERT = f"""
WITH taken AS (DELETE FROM {{table}} RETURNING *)
INSERT INTO log_entries ({_COLUMNS}, source) SELECT {_COLUMNS}, 'device' FROM taken
"""


def add(session: Session, rows: Iterable[Entry]) -> int:
    """Store what devices sent, by COPY; how many entries. Wants a system transaction if tenants are mixed.

    A level that is none counts as info and stays among the fields; what is too long is cut, and says so.
    """
    cleaned = [_clean(row) for row in rows]
    if not cleaned:
        return 0
    table = "incoming_logs_of_all" if session.info.get("system") else "incoming_logs"
    session.execute(text(_INCOMING.format(table=table)))
    driver: Any = session.connection().connection.driver_connection
    with driver.cursor() as cursor, cursor.copy(f"COPY {table} ({_COLUMNS}) FROM STDIN") as copy:
        for row in cleaned:
            copy.write_row(row)
    session.execute(text(_INSERT.format(table=table)))
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
