"""Series, found or made set-wise and remembered by this process, and how many an organization may have."""

import struct
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.orm import Session

from config.settings import settings

Key = str | tuple[str, str]
"""A metric of a device: its name, with the tags as canonical JSON if there are any."""
Wanted = tuple[UUID, UUID, Key]
"""Organization, device, key."""

REMEMBERED = 500_000
FULL_SECONDS = 30.0
"""So long an organization that has reached its limits is not counted anew."""

# The beginning of a point's row in COPY's binary format: five fields, org_id, series_id, and the size of the time.
_HEAD = struct.Struct("!hi16siqi")


class Series:
    """A series that is known: its id, and how each of its points' rows begins."""

    __slots__ = ("head", "id")

    def __init__(self, org_id: UUID, series_id: int) -> None:
        self.id, self.head = series_id, _HEAD.pack(5, 16, org_id.bytes, 8, series_id, 8)


class Known:
    """What this process remembers, by device and key. A series may be deleted meanwhile: its use shows that."""

    def __init__(self) -> None:
        self._by_device: dict[UUID, dict[Key, Series]] = {}
        self._count = 0
        self._lock = threading.Lock()

    def of(self, device_id: UUID) -> dict[Key, Series]:
        """A device's series; not to be written to."""
        return self._by_device.get(device_id) or {}

    def add(self, device_id: UUID, key: Key, series: Series) -> None:
        with self._lock:
            if self._count >= REMEMBERED:
                self._by_device, self._count = {}, 0
            self._by_device.setdefault(device_id, {})[key] = series
            self._count += 1

    def forget(self, device_ids: Iterable[UUID]) -> None:
        with self._lock:
            for device_id in device_ids:
                self._count -= len(self._by_device.pop(device_id, {}))


@dataclass
class Room:
    """How many names and series an organization may still get. ``names`` are those that it has."""

    names: set[str]
    series: int
    until: float = field(default_factory=lambda: time.monotonic() + FULL_SECONDS)

    def refuses(self, name: str) -> str | None:
        """Why a new series with that name cannot be made; None if it can."""
        if self.series >= settings().max_series:
            return f"more than {settings().max_series} series (EDGEFLOW_MAX_SERIES)"
        if name not in self.names and len(self.names) >= settings().max_metric_names:
            return f"more than {settings().max_metric_names} metric names (EDGEFLOW_MAX_METRIC_NAMES)"
        return None

    def take(self, name: str) -> None:
        self.names.add(name)
        self.series += 1

    @property
    def full(self) -> bool:
        return self.series >= settings().max_series or len(self.names) >= settings().max_metric_names


known = Known()
_full: dict[UUID, Room] = {}

_FIND = text("""
SELECT s.org_id, s.device_id, s.name, s.tags_key, s.id
FROM unnest(CAST(:devices AS uuid[]), CAST(:names AS text[]), CAST(:tags AS text[])) AS g (device_id, name, tags_key)
JOIN metric_series s USING (device_id, name, tags_key)
""")
_MAKE = text("""
INSERT INTO metric_series (org_id, device_id, name, tags_key, tags)
SELECT d.org_id, d.id, g.name, g.tags_key, coalesce(NULLIF(g.tags_key, ''), '{}')::jsonb
FROM unnest(CAST(:devices AS uuid[]), CAST(:names AS text[]), CAST(:tags AS text[])) AS g (device_id, name, tags_key)
JOIN devices d ON d.id = g.device_id
ORDER BY d.id, g.name, g.tags_key
ON CONFLICT DO NOTHING
RETURNING org_id, device_id, name, tags_key, id
""")
_COUNT = text("SELECT name, count(*) FROM metric_series WHERE org_id = :org GROUP BY name")
# Two workers that make series of one organization at once would both count before either has added.
_TURN = text("SELECT pg_advisory_xact_lock(hashtextextended('series ' || CAST(:org AS text), 0))")


def find_or_make(session: Session, wanted: set[Wanted]) -> dict[Wanted, str]:
    """Make the series known that can be; why not, for each that its organization has no room for.

    One whose device is gone is neither. Should ``session`` roll back, what it made is known and not there: using it
    shows that.
    """
    missing = _remember(session, _FIND, wanted)
    if not missing:
        return {}
    orgs = sorted({org_id for org_id, _device, _key in missing})
    for org_id in orgs:
        if not _is_full(org_id):
            session.execute(_TURN, {"org": str(org_id)})
    missing = _remember(session, _FIND, missing)
    refused = dict[Wanted, str]()
    for org_id in orgs:
        refused |= _refused(session, org_id, [one for one in missing if one[0] == org_id])
    _remember(session, _MAKE, missing - refused.keys())
    return refused


def _is_full(org_id: UUID) -> bool:
    room = _full.get(org_id)
    return room is not None and room.until > time.monotonic()


def _refused(session: Session, org_id: UUID, wanted: list[Wanted]) -> dict[Wanted, str]:
    """Which of an organization's new series find no room, and why. The order of names decides, as it would again."""
    room = _full[org_id] if _is_full(org_id) else _room(session, org_id)
    refused = dict[Wanted, str]()
    for one in sorted(wanted, key=lambda one: (_parts(one[2]), one[1])):
        name = _parts(one[2])[0]
        reason = room.refuses(name)
        if reason:
            refused[one] = reason
        else:
            room.take(name)
    if room.full:
        _full[org_id] = room
    return refused


def _room(session: Session, org_id: UUID) -> Room:
    counts: dict[str, int] = {row[0]: row[1] for row in session.execute(_COUNT, {"org": org_id})}
    return Room(set(counts), sum(counts.values()))


def _parts(key: Key) -> tuple[str, str]:
    return (key, "") if isinstance(key, str) else key


def _remember(session: Session, statement: Any, wanted: set[Wanted]) -> set[Wanted]:
    """Run a statement that answers series; those of ``wanted`` that it did not."""
    if not wanted:
        return wanted
    parts = [(device_id, *_parts(key)) for _org, device_id, key in wanted]
    devices, names, tags = (list(column) for column in zip(*parts, strict=True))
    found = set[Wanted]()
    for org_id, device_id, name, tags_key, series_id in session.execute(
        statement, {"devices": devices, "names": names, "tags": tags}
    ):
        key: Key = (name, tags_key) if tags_key else name
        known.add(device_id, key, Series(org_id, series_id))
        found.add((org_id, device_id, key))
    return wanted - found
