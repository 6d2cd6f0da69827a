"""Who may write points while roll-ups are made."""

from sqlalchemy import text
from sqlalchemy.orm import Session

ROLLUP_LOCK = 0x0E_F1_0_1
"""Held shared by transactions that store points, and alone by the one that rolls them up."""


def lock_shared(session: Session) -> None:
    """Keep roll-ups from moving on until this transaction ends: what it stores is either before or after them."""
    session.execute(text("SELECT pg_advisory_xact_lock_shared(:key)"), {"key": ROLLUP_LOCK})


def merge_late(session: Session) -> None:
    """Add the points of ``incoming_points`` to the buckets that are complete already; so far none is."""
    del session
