"""Who leads: the scheduler whose database session holds the advisory lock.

The leader writes through that same session and no other. So a leader that was stopped (SIGSTOP, a frozen host) and
continues can write nothing: the server has ended its session, and with it the lock, and another one leads.
"""

import threading

import psycopg
import structlog

from scheduler.occurrences import Ledger
from scheduler.ticker import ticker

log = structlog.get_logger("scheduler")

LOCK = 0x45444753  # "EDGS"; advisory locks are kept per database
IDLE_SECONDS = 8  # the server ends a silent leader's session; with the next try below, takeover takes at most 10 s
PING_SECONDS = 2
TRY_SECONDS = 1


def take_part(database_url: str, stopping: threading.Event) -> None:
    """Lead whenever no other scheduler does, until ``stopping`` is set. Survives a database that goes away."""
    while not stopping.is_set():
        try:
            with _session(database_url) as session:
                _stand_by(session, stopping)
        except psycopg.Error as error:
            log.warning("session lost, trying again", error=str(error).splitlines()[0])
            stopping.wait(TRY_SECONDS)


def _session(database_url: str) -> psycopg.Connection:
    session = psycopg.connect(
        database_url,
        autocommit=True,
        application_name="edgeflow-scheduler",
        connect_timeout=2,
        tcp_user_timeout=5_000,  # ms: a link that died in silence is noticed too
    )
    session.execute("SET ROLE edgeflow_app")
    session.execute("SET statement_timeout = '5s'")
    session.execute(f"SET idle_session_timeout = '{IDLE_SECONDS}s'")
    return session


def _stand_by(session: psycopg.Connection, stopping: threading.Event) -> None:
    while not stopping.is_set():
        row = session.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
        if row and row[0]:
            return _lead(session, stopping)
        stopping.wait(TRY_SECONDS)


def _lead(session: psycopg.Connection, stopping: threading.Event) -> None:
    log.info("leading")
    running = ticker(Ledger(session))
    running.start()
    try:
        while not stopping.wait(PING_SECONDS):
            session.execute("SELECT 1")
    finally:
        running.shutdown(wait=False)
