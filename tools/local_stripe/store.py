"""The server's memory: one SQLite file, a commit for each request; ``kill -9`` loses nothing that was answered."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Obj = dict[str, Any]
KEYS_SECONDS = 24 * 3_600  # as long as Stripe remembers idempotency keys
_EVENTS_SECONDS = 30 * 24 * 3_600  # and events
_MOST_REQUESTS = 100_000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL,
    customer TEXT, clock TEXT, due INTEGER, body TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS objects_kind ON objects (kind, customer, seq);
CREATE INDEX IF NOT EXISTS objects_due ON objects (clock, due) WHERE due IS NOT NULL;
CREATE TABLE IF NOT EXISTS idempotency (
    key TEXT PRIMARY KEY, fingerprint TEXT NOT NULL, status INTEGER NOT NULL, body TEXT NOT NULL,
    request_id TEXT NOT NULL, created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS requests (seq INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS deliveries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, event TEXT NOT NULL, due REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0,
    state TEXT NOT NULL DEFAULT 'pending');
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (state, due);
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, body TEXT NOT NULL);
"""


class Store:
    """Objects by id. Keys that begin with ``_`` are the server's own and are never shown."""

    def __init__(self, path: Path | str) -> None:
        self.db = sqlite3.connect(path, check_same_thread=False)
        # WAL with NORMAL: a killed process loses no commit (a lost power supply may).
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.executescript(_SCHEMA)
        self.db.commit()

    def commit(self) -> None:
        self.db.commit()

    def rollback(self) -> None:
        self.db.rollback()

    def put(self, obj: Obj, due: int | None = None) -> Obj:
        """Store an object; ``due`` is when the billing engine has to look at it (seconds, its clock's time)."""
        clock, customer = (obj.get("test_clock") or obj.get("_clock"), obj.get("customer") or obj.get("_customer"))
        row = (obj["id"], obj["object"], customer, clock, due, json.dumps(obj))
        self.db.execute(
            "INSERT INTO objects (id, kind, customer, clock, due, body) VALUES (?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (id) DO UPDATE SET customer = excluded.customer, clock = excluded.clock,"
            " due = excluded.due, body = excluded.body",
            row,
        )
        return obj

    def get(self, id: str) -> Obj | None:
        row = self.db.execute("SELECT body FROM objects WHERE id = ?", (id,)).fetchone()
        return json.loads(row[0]) if row else None

    def all(self, kind: str, customer: str | None = None, *, oldest_first: bool = False) -> Iterator[Obj]:
        """Newest first, as Stripe lists, read as they are asked for."""
        order = "ASC" if oldest_first else "DESC"
        whose, values = (" AND customer = ?", (customer,)) if customer else ("", ())
        last = -1 if oldest_first else 1 << 62
        while True:
            # By pages of their own: a cursor left open would see what is written while it is read.
            rows = self.db.execute(
                f"SELECT seq, body FROM objects WHERE kind = ?{whose}"
                f" AND seq {'>' if oldest_first else '<'} ? ORDER BY seq {order} LIMIT 200",
                (kind, *values, last),
            ).fetchall()
            yield from (json.loads(body) for _, body in rows)
            if not rows:
                return
            last = rows[-1][0]

    def next_due(self, clock: str | None, until: int) -> Obj | None:
        """What comes first in a clock's time (None: real time) up to ``until``."""
        row = self.db.execute(
            "SELECT body FROM objects WHERE clock IS ? AND due <= ? ORDER BY due, seq LIMIT 1", (clock, until)
        ).fetchone()
        return json.loads(row[0]) if row else None

    def advancing(self) -> list[str]:
        """Test clocks on their way."""
        rows = self.db.execute(
            "SELECT id FROM objects WHERE kind = 'test_helpers.test_clock' AND body ->> '$.status' = 'advancing'"
        )
        return [row[0] for row in rows]

    def tidy(self, now: float) -> None:
        """Forget what nobody can ask for any more: old keys, events and requests."""
        self.db.execute("DELETE FROM idempotency WHERE created < ?", (now - KEYS_SECONDS,))
        self.db.execute(
            "DELETE FROM objects WHERE kind = 'event' AND body ->> '$.created' < ?", (int(now) - _EVENTS_SECONDS,)
        )
        self.db.execute("DELETE FROM deliveries WHERE event NOT IN (SELECT id FROM objects WHERE kind = 'event')")
        self.db.execute("DELETE FROM requests WHERE seq <= (SELECT max(seq) FROM requests) - ?", (_MOST_REQUESTS,))
        self.db.commit()

    def forget_calls(self) -> None:
        """As if a day had passed for what is remembered of calls: idempotency keys, and identifiers of usage."""
        self.db.execute("DELETE FROM idempotency")
        self.db.execute(
            "UPDATE objects SET body = json_set(body, '$._at', body ->> '$._at' - ?)"
            " WHERE kind = 'billing.meter_event'",
            (KEYS_SECONDS,),
        )

    def due_of(self, id: str) -> int:
        return int(self.db.execute("SELECT due FROM objects WHERE id = ?", (id,)).fetchone()[0])

    def setting(self, name: str, default: Any = None) -> Any:
        row = self.db.execute("SELECT body FROM settings WHERE name = ?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def set(self, name: str, value: Any) -> None:
        self.db.execute("INSERT OR REPLACE INTO settings (name, body) VALUES (?, ?)", (name, json.dumps(value)))
