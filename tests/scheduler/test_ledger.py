"""The table of when, and the ledger of occurrences."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
import redis

from app import db, jobs, occurrences
from app.clock import now, rfc3339
from config.settings import settings
from scheduler.occurrences import Ledger
from scheduler.schedule import Entry

JOB = "ledgertest.run"  # a queue that no worker listens to


@pytest.fixture
def session() -> Iterator[psycopg.Connection]:
    with psycopg.connect(settings().database_url, autocommit=True) as connection:
        connection.execute("DELETE FROM scheduled_runs WHERE job = %s", [JOB])
        yield connection


@pytest.fixture
def due() -> datetime:
    return now().replace(microsecond=0)


def state(session: psycopg.Connection) -> list[tuple[bool, bool]]:
    query = "SELECT enqueued_at IS NOT NULL, started_at IS NOT NULL FROM scheduled_runs WHERE job = %s"
    return session.execute(query, [JOB]).fetchall()


def messages() -> int:
    jobs.broker().declare_queue("ledgertest")
    return int(redis.Redis.from_url(settings().redis_url).llen(f"{jobs.NAMESPACE}:ledgertest"))  # type: ignore[arg-type]


def test_an_occurrence_is_a_whole_multiple_of_the_interval() -> None:
    moment = datetime(2026, 11, 22, 21, 51, 5, 999_999, UTC)
    assert Entry("x", 2).due_at(moment) == datetime(2026, 11, 22, 21, 51, 4, tzinfo=UTC)
    assert Entry("x", 5).due_at(moment) == datetime(2026, 11, 22, 21, 51, 5, tzinfo=UTC)
    assert Entry("x", 3600).due_at(moment) == datetime(2026, 11, 22, 21, tzinfo=UTC)


def test_two_leaders_record_and_send_one_occurrence_once(session: psycopg.Connection, due: datetime) -> None:
    before = messages()
    for _ in range(2):
        ledger = Ledger(session)
        ledger.record(JOB, due)
        ledger.send()
    assert (state(session), messages() - before) == ([(True, False)], 1)


def test_what_a_dead_leader_recorded_but_did_not_send_is_sent(session: psycopg.Connection, due: datetime) -> None:
    Ledger(session).record(JOB, due)
    before = messages()
    Ledger(session).send()
    assert (state(session), messages() - before) == ([(True, False)], 1)


def test_a_long_past_occurrence_is_not_sent_after_a_newer_one(session: psycopg.Connection, due: datetime) -> None:
    ledger, before = Ledger(session), messages()
    ledger.record(JOB, due - timedelta(hours=2))
    ledger.record(JOB, due)
    ledger.send()
    assert (sorted(state(session)), messages() - before) == ([(False, False), (True, False)], 1)


def test_the_last_occurrence_of_a_rare_job_is_sent_however_long_ago_it_was(
    session: psycopg.Connection, due: datetime
) -> None:
    """A daily job whose hour passed while nobody was there must not wait for the next day."""
    ledger = Ledger(session)
    ledger.record(JOB, due - timedelta(hours=13))
    ledger.send()
    assert state(session) == [(True, False)]


def test_an_occurrence_is_claimed_once(session: psycopg.Connection, due: datetime) -> None:
    Ledger(session).record(JOB, due)
    claims = []
    for _ in range(2):
        with db.transaction():
            claims.append(occurrences.claim(JOB, rfc3339(due)))
    assert claims == [True, False]


def claim_and_fail(due_at: str) -> None:
    with db.transaction():
        assert occurrences.claim(JOB, due_at)
        raise RuntimeError


def test_work_that_fails_gives_its_occurrence_back(session: psycopg.Connection, due: datetime) -> None:
    Ledger(session).record(JOB, due)
    with pytest.raises(RuntimeError):
        claim_and_fail(rfc3339(due))
    with db.transaction():
        assert occurrences.claim(JOB, rfc3339(due))
