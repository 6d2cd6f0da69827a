"""Time as the API writes it."""

from datetime import UTC, datetime


def now() -> datetime:
    """The current time, aware, in UTC. Leases compare with the database's ``now()`` instead."""
    return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """``2026-11-22T21:51:05.123456Z``: always with a zone, because agents drop frames whose times lack one."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
