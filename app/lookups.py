"""What every request asks of PostgreSQL, for all callers of a process on one connection.

A request begins with one statement: who is calling, and what else it always needs. By itself each cost a connection of
the pool and a round trip, which together took longer than the rest of a short request. Here those that come together
are written together, as psycopg's own ``Connection.pipeline`` would, but below it: at the level of libpq, where a
statement costs a tenth. Each is followed by a Sync, so it is a transaction of its own: what it sets ends with it, and
its failure is nobody else's.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from functools import cache
from itertools import count
from typing import Any, Protocol, cast

import psycopg
import structlog
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, Format
from psycopg.waiting import Ready, Wait
from sqlalchemy import TextClause
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import DBAPIError

log = structlog.get_logger(__name__)

AT_ONCE = 200
PING_SECONDS = 2.0  # how long a connection that lay idle has to show that it lives
FRESH_SECONDS = 0.5  # what was used within this time is believed to live

Row = tuple[Any, ...]
Exchange = Generator[Wait, Ready, None]


class Connection(Protocol):
    """What is asked of a connection: ``app.db`` makes them."""

    patience: float
    pgconn: Any

    def wait(self, gen: Any, interval: float = ..., timeout: float | None = ...) -> Any: ...

    def close(self) -> None: ...


class Lookups:
    """Statements that are asked by many threads and sent by one; the connection is made at first use.

    Where it breaks, what was not answered is asked once more on a new one: nothing that is asked here changes anything
    that outlasts its statement. ``connect`` makes a connection; ``seconds``: how long one has to answer.
    """

    def __init__(self, connect: Callable[[], Connection], seconds: float) -> None:
        self._connect, self._seconds = connect, seconds
        self._waiting: deque[_Asked] = deque()
        self._wake = threading.Event()
        self._start = threading.Lock()
        self._thread: threading.Thread | None = None
        self._link: _Link | None = None
        self._busy = self._closed = False

    def ask(self, statement: TextClause, values: dict[str, Any]) -> Row | None:
        """The first row; None without one. Raises sqlalchemy.exc.DBAPIError, as a session does."""
        asked = _Asked(statement, values)
        self._waiting.append(asked)
        if self._thread is None:
            self._begin()
        self._wake.set()
        # Longer than all that it may have to stand behind: a thread that is alive answers everybody.
        if not asked.done.wait(4 * self._seconds + PING_SECONDS):
            asked.error = psycopg.OperationalError("no answer in time")
        if asked.error is not None:
            raise _as_sqlalchemy(asked) from asked.error
        return asked.row

    def close(self) -> None:
        """End its thread and its connection."""
        self._closed = True
        self._wake.set()

    def status(self) -> dict[str, int]:
        """Connections in use and open: one or none."""
        return {"in_use": int(self._busy), "open": int(self._link is not None)}

    def _begin(self) -> None:
        """Not before the first use: a process that forks takes no threads along."""
        with self._start:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="lookups", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            self._busy = True
            while self._waiting:
                self._carry_out([self._waiting.popleft() for _ in range(min(AT_ONCE, len(self._waiting)))])
            self._busy = False
        self._hang_up()

    def _carry_out(self, asked: "list[_Asked]") -> None:
        try:
            self._once_more_if_cut(asked)
        except Exception as error:  # whatever it was: its callers are told, and the thread goes on
            if not isinstance(error, psycopg.Error):
                log.exception("look-ups failed")
            self._hang_up()
            for one in asked:
                one.settle(error)

    def _once_more_if_cut(self, asked: "list[_Asked]") -> None:
        """Raises psycopg.Error when the second connection breaks too, and when one just does not answer."""
        known = self._link is not None
        try:
            self._exchange(asked)
        except psycopg.OperationalError as error:
            if not known or self._link is None or not self._link.broken:
                raise
            log.info("look-ups asked again: their connection broke", error=str(error).splitlines()[0])
            self._hang_up()
            self._exchange([one for one in asked if not one.done.is_set()])

    def _exchange(self, asked: "list[_Asked]") -> None:
        if self._link and not self._link.lives():
            self._hang_up()
        if self._link is None:
            self._link = _Link(self._connect())
        self._link.exchange(asked, self._seconds)

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None


class _Asked:
    __slots__ = ("done", "error", "lost", "row", "statement", "values")

    def __init__(self, statement: TextClause, values: dict[str, Any]) -> None:
        self.statement, self.values = statement, values
        self.row: Row | None = None
        self.error: Exception | None = None
        self.lost = False
        self.done = threading.Event()

    def settle(self, error: Exception | None = None, *, lost: bool = True) -> None:
        """Answer who asked, once."""
        if not self.done.is_set():
            self.error, self.lost = error, lost and error is not None
            self.done.set()


class _Prepared:
    """A statement on one connection, for parameters of the types that it was first asked with."""

    def __init__(self, name: bytes, connection: Any) -> None:
        self.name = name
        self.known = False
        self.loaded = False
        self.transformer = Transformer(connection)


class _Link:
    """One connection in libpq's pipeline mode; used by one thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._pgconn = connection, connection.pgconn
        self._pgconn.nonblocking = 1
        self._pgconn.enter_pipeline_mode()
        self._prepared: dict[tuple[Any, ...], _Prepared] = {}
        self._names = count()
        self._used_at = time.monotonic()

    @property
    def broken(self) -> bool:
        return bool(self._pgconn.status == ConnStatus.BAD)

    def lives(self) -> bool:
        """Whether it may be used: after a pause it has to show that it lives."""
        if time.monotonic() - self._used_at < FRESH_SECONDS:
            return True
        try:
            self._wait([], PING_SECONDS)
        except psycopg.Error as error:
            log.info("the look-ups' connection did not live any more", error=str(error).splitlines()[0])
            return False
        return True

    def exchange(self, asked: Sequence[_Asked], seconds: float) -> None:
        """Settle all of these. Raises psycopg.OperationalError: the connection is of no use any more."""
        self._wait(asked, seconds)
        self._used_at = time.monotonic()

    def close(self) -> None:
        self._connection.close()

    def _wait(self, asked: Sequence[_Asked], seconds: float) -> None:
        self._connection.wait(self._converse(asked), 0.1, seconds)

    def _converse(self, asked: Sequence[_Asked]) -> Exchange:
        """Write all, then read all. Of none, a lone Sync is written, which the server answers."""
        sent = [(one, statement) for one in asked if (statement := self._send(one))]
        if not asked:
            self._pgconn.pipeline_sync()
        while self._pgconn.flush():
            if (yield Wait.RW) & Ready.R:
                self._pgconn.consume_input()
        for one, prepared in sent:
            yield from self._receive(one, prepared)
        if not asked:
            yield from self._results()

    def _send(self, asked: _Asked) -> _Prepared | None:
        """Queue a statement and its Sync; None when its values cannot be sent, which its caller is told."""
        sql, names = _numbered(asked.statement)
        values = [asked.values[name] for name in names]
        key = (sql, *map(type, values))
        prepared = self._prepared.get(key)
        if prepared is None:
            prepared = _Prepared(b"lookup_%d" % next(self._names), self._connection)
            self._prepared[key] = prepared
        transformer = prepared.transformer
        try:
            parameters = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
        except (psycopg.Error, ValueError) as error:
            asked.settle(error, lost=False)
            return None
        if not prepared.known:
            self._pgconn.send_prepare(prepared.name, sql, transformer.types)
            prepared.known = True
        self._pgconn.send_query_prepared(prepared.name, parameters, transformer.formats, Format.BINARY)
        self._pgconn.pipeline_sync()
        return prepared

    def _receive(self, asked: _Asked, prepared: _Prepared) -> Exchange:
        results = yield from self._results()
        failed = next((one for one in results if one.status == ExecStatus.FATAL_ERROR), None)
        if failed is None:
            asked.row = _first_row(results[-1], prepared)
            asked.settle()
            return
        # Prepared anew next time: what it reads may have changed its shape.
        self._prepared = {key: one for key, one in self._prepared.items() if one is not prepared}
        error = error_from_result(failed)
        if self.broken:
            raise error
        asked.settle(error, lost=False)

    def _results(self) -> Generator[Wait, Ready, list[Any]]:
        """What comes up to the next Sync. Raises psycopg.OperationalError when the connection ends before it."""
        results = list[Any]()
        while True:
            while self._pgconn.is_busy():
                yield Wait.R
                self._pgconn.consume_input()
            result = self._pgconn.get_result()
            if result is None:
                if self.broken:
                    raise psycopg.OperationalError("the connection was lost")
            elif result.status == ExecStatus.PIPELINE_SYNC:
                return results
            else:
                results.append(result)


def _first_row(result: Any, prepared: _Prepared) -> Row | None:
    if not result.ntuples:
        return None
    prepared.transformer.set_pgresult(result, set_loaders=not prepared.loaded, format=Format.BINARY)
    prepared.loaded = True
    row: Row | None = prepared.transformer.load_row(0, tuple)
    return row


@cache
def _numbered(statement: TextClause) -> tuple[bytes, tuple[str, ...]]:
    """The statement with ``$1`` …, and the names of its values in that order."""
    compiled: Any = statement.compile(dialect=postgresql.dialect(paramstyle="numeric_dollar"))  # type: ignore[no-untyped-call]
    return compiled.string.encode(), tuple(compiled.positiontup or ())


def _as_sqlalchemy(asked: _Asked) -> BaseException:
    error: Any = asked.error
    sql = _numbered(asked.statement)[0].decode()
    raised: Any = DBAPIError.instance(
        sql, None, error, psycopg.Error, hide_parameters=True, connection_invalidated=asked.lost
    )
    return cast(BaseException, raised)
