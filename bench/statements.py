"""How many statements PostgreSQL is asked for: written to its log, and counted there.

Every process's statements count, with their BEGIN and COMMIT: the rollout's own, heartbeats and presence besides.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from bench.platform import House

MARKS = (b"LOG:  statement: ", b"LOG:  execute ")


@contextmanager
def counted(house: House) -> Iterator[Callable[[], int]]:
    """Count within the block; the number is told after it."""
    log = house.folder / "data" / "log" / "postgres.log"
    lines: list[bytes] = []
    with psycopg.connect(house.superuser_url, autocommit=True) as connection:
        _write(connection, "all")
        begin = log.stat().st_size
        try:
            yield lambda: sum(line.startswith(MARKS) for line in lines)
        finally:
            _write(connection, "none")
            with log.open("rb") as written:
                written.seek(begin)
                lines += written.read().splitlines()


def _write(connection: "psycopg.Connection[tuple[object, ...]]", which: str) -> None:
    connection.execute(f"ALTER SYSTEM SET log_statement = '{which}'")
    connection.execute("SELECT pg_reload_conf()")
    time.sleep(0.5)  # sessions take it over between two statements
