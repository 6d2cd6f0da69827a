"""R1: a process that is stopped within a transaction holds up the others for seconds only."""

import time
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app import db
from config.settings import settings

LONGEST = 10.0  # seconds; well below the minute within which everything has to converge


def test_the_servers_patience_with_a_silent_transaction_is_short(app: Any) -> None:
    assert 1 <= db.IDLE_SECONDS <= LONGEST


def test_a_silent_transaction_loses_its_locks(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "IDLE_SECONDS", 1)
    silent, other = (db.make_engine(settings().database_url, 20) for _ in range(2))
    lock = text("SELECT pg_advisory_xact_lock(4711)")
    with silent.connect() as held, other.connect() as waiting:
        held.execute(lock)
        began = time.monotonic()
        waiting.execute(lock)
        assert 0.5 < time.monotonic() - began < 5
        with pytest.raises(DBAPIError):
            held.execute(text("SELECT 1"))
    silent.dispose()
    other.dispose()
