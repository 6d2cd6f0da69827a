"""Connections of devices as they come and go: rows as the tunnel writes them, and a naive twin that looks each second.

Times are seconds since ``BEGIN``, a whole hour some hours ago.
"""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app import db

HOURS = 4
BEGIN = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=HOURS)
END = HOURS * 3600


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


@dataclass
class History:
    """One device's. ``online``: from when to when, whatever is written about it; None: until now."""

    org_id: UUID
    device_id: UUID
    entries: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    online: list[list[float | None]] = field(default_factory=list)
    row: dict[str, Any] | None = None
    deleted: bool = False

    @property
    def live(self) -> bool:
        return self.row is not None and self.row["ended"] is None

    def connect(self, when: float) -> None:
        """In place of the connection that there is, if there is one."""
        if self.deleted:
            return
        replaced, epoch = self.live, _epoch()
        if not replaced:
            self.online.append([when, None])
        self.row = {"epoch": epoch, "begun": when, "ended": None}
        self.entries.append((when, "device.connected", {"epoch": epoch, "protocol": 2, "replaced": replaced}))

    def end(self, when: float, reason: str = "silent") -> None:
        if not self.live:
            return
        assert self.row
        self.row["ended"] = when
        self.online[-1][1] = when
        self.entries.append((when, "device.disconnected", {"epoch": self.row["epoch"], "reason": reason}))

    def come_back(self, when: float) -> None:
        """Its gateway lives after all, and still holds the connection."""
        if self.row is None or self.live:
            return
        self.row["ended"] = None
        self.online.append([when, None])
        self.entries.append((when, "device.connected", {"epoch": self.row["epoch"]}))

    def delete(self, when: float) -> None:
        if self.deleted:
            return
        if self.live:
            self.online[-1][1] = when
        self.row, self.deleted = None, True
        self.entries.append((when, "device.deleted", {}))

    def seconds(self, hour: int) -> int:
        """Online within the hour that begins so many hours after ``BEGIN``: looked at second by second."""
        return sum(self.is_online(hour * 3600 + one) for one in range(3600))

    def is_online(self, second: float) -> bool:
        return any(begun <= second and (ended is None or second < ended) for begun, ended in self.online)  # type: ignore[operator]

    def write(self, *, since: float = float("-inf")) -> None:
        """Into the tables; of the journal only what is not older than ``since``."""
        with db.transaction(self.org_id) as session:
            for when, kind, fields in self.entries:
                if when >= since:
                    values = {"org": self.org_id, "device": self.device_id, "kind": kind, "at": at(when)}
                    session.execute(_ENTRY, {**values, "fields": json.dumps(fields)})
            if self.deleted:
                session.execute(text("DELETE FROM devices WHERE id = :device"), {"device": self.device_id})
            elif self.row:
                ended = None if self.row["ended"] is None else at(self.row["ended"])
                values = {"org": self.org_id, "device": self.device_id, "epoch": self.row["epoch"]}
                session.execute(_ROW, {**values, "begun": at(self.row["begun"]), "ended": ended})


def _epoch() -> int:
    with db.transaction(system=True) as session:
        return int(session.execute(text("SELECT nextval('tunnel_epochs')")).scalar_one())


_ENTRY = text(
    "INSERT INTO log_entries (org_id, device_id, time, level, source, kind, message, fields) "
    "VALUES (:org, :device, :at, 1, 'platform', :kind, :kind, CAST(:fields AS jsonb))"
)
_ROW = text(
    "INSERT INTO connections (org_id, device_id, epoch, gateway, connected_at, last_seen_at, disconnected_at) "
    "VALUES (:org, :device, :epoch, 'gone', :begun, now(), :ended)"
)


def note(org_id: UUID, when: float, kind: str, **fields: Any) -> None:
    """Any other entry of the journal."""
    values = {"org": org_id, "device": None, "kind": kind, "at": at(when), "fields": json.dumps(fields)}
    with db.transaction(org_id) as session:
        session.execute(_ENTRY, values)
