"""PostgreSQL: the engine, the session of the current transaction, and who a transaction acts for.

Row-level security decides what a transaction sees. Each one starts as the role ``edgeflow_app``, which reads a tenant
table only through ``app.org_id``; nothing set means no rows. Sweeps over all tenants use ``edgeflow_system``.
"""

import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import gevent.monkey
import gevent.socket
import orjson
import psycopg
from psycopg.pq import TransactionStatus
from psycopg.waiting import Ready, Wait
from sqlalchemy import TIMESTAMP, Engine, ForeignKey, Text, TextClause, create_engine, event, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.schema import MetaData

from app.errors import AppError
from app.lookups import FRESH_SECONDS, PING_SECONDS, Lookups
from config.settings import settings

CONNECT_SECONDS = 3
IDLE_SECONDS = 10  # a transaction of a process that stands still holds its locks for no longer

GREENLETS = gevent.monkey.is_module_patched("select")

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class TextList(ARRAY[str]):
    """``text[]``, read as psycopg gives it, a list of str: the general type would copy it through an iterator."""

    cache_ok = True
    render_bind_cast = True

    def __init__(self) -> None:
        super().__init__(Text)

    def adapt(self, cls: Any, **_options: Any) -> Any:
        return TextList()  # not the dialect's type, which reads as the general one does

    def result_processor(self, dialect: Any, coltype: object) -> Any:
        return None


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {
        datetime: TIMESTAMP(timezone=True),
        str: Text,
        dict[str, Any]: JSONB,
        list[str]: TextList,
    }


class Tenant:
    """A table whose rows belong to one organization: the migration gives it forced row-level security."""

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that nobody waits on for ever: a server that hangs keeps its sockets open and answers nothing.

    Past ``patience`` (seconds) a wait raises OperationalError and the connection is closed, since its state is unknown.
    """

    patience = PING_SECONDS
    used_at = 0.0

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        seconds = self.patience if timeout is None else timeout
        try:
            if GREENLETS:
                return _wait_for_answer(gen, self.pgconn.socket, seconds)
            return super().wait(gen, interval, seconds)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


def _wait_for_answer(gen: Any, fileno: int, seconds: float) -> Any:
    """``Connection.wait`` for greenlets, without the emulated poll() that costs them half of a short statement."""
    deadline = time.monotonic() + seconds
    late = psycopg.OperationalError("wait timeout expired")
    try:
        wanted = next(gen)
        while True:
            left = max(0.0, deadline - time.monotonic())
            if wanted == Wait.R:
                gevent.socket.wait_read(fileno, left, late)
                wanted = gen.send(Ready.R)
            else:  # a large statement: the server may want to be read before it takes the rest
                readable, writable, _ = select.select([fileno], [fileno], [], left)
                if not readable and not writable:
                    raise late
                wanted = gen.send((Ready.R if readable else 0) | (Ready.W if writable else 0))
    except StopIteration as done:
        return done.value


def make_engine(url: str, statement_seconds: float) -> Engine:
    """An engine whose connections act as the unprivileged role, whatever login the URL names."""
    engine = create_engine(
        url,
        pool_size=settings().database_pool,
        max_overflow=0,
        pool_timeout=10,
        pool_pre_ping=True,
        # As requests are parsed: 1e300 stays a float. As an int it could never be answered (64 bits is JSON's end).
        json_deserializer=orjson.loads,
        connect_args={"connect_timeout": CONNECT_SECONDS, "application_name": "edgeflow"},
        hide_parameters=True,  # of failed statements, which are logged
    )
    event.listen(engine, "do_connect", _connect)
    _ping_the_idle(engine.dialect)

    @event.listens_for(engine, "connect")
    def become_app(connection: Any, _record: Any) -> None:
        _become_app(connection, statement_seconds)
        connection.autocommit = False

    @event.listens_for(engine, "checkout")
    def be_patient(connection: Any, _record: Any, _proxy: Any) -> None:
        connection.patience = statement_seconds + 1  # the server's own limit speaks first, if it can

    @event.listens_for(engine, "checkin")
    def expect_a_ping(connection: Any, _record: Any) -> None:
        if connection is not None:
            connection.patience = PING_SECONDS
            connection.used_at = time.monotonic()

    return engine


def _ping_the_idle(dialect: Any) -> None:
    """Spare the ping, a round trip, to connections that were used just now."""
    ping = dialect.do_ping

    def do_ping(connection: Any) -> bool:
        return time.monotonic() - connection.used_at < FRESH_SECONDS or ping(connection)

    dialect.do_ping = do_ping


def _become_app(connection: Any, statement_seconds: float) -> None:
    connection.autocommit = True
    connection.execute("SET ROLE edgeflow_app")
    connection.execute("SET TIME ZONE 'UTC'")
    connection.execute(f"SET statement_timeout = '{statement_seconds}s'")
    connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")


def _make_lookups(made: Engine, statement_seconds: float) -> Lookups:
    """As the engine's own connections, with a transaction for each statement."""
    arguments, options = made.dialect.create_connect_args(made.url)

    def connect() -> BoundedConnection:
        connection = BoundedConnection.connect(
            *arguments, **options, connect_timeout=CONNECT_SECONDS, application_name="edgeflow"
        )
        _become_app(connection, statement_seconds)
        return connection

    return Lookups(connect, statement_seconds + 1)


def _connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> BoundedConnection:
    return BoundedConnection.connect(*arguments, **options)


_maker = sessionmaker(expire_on_commit=False)
_lookups: Lookups | None = None
_unit = threading.local()


def _make_session() -> Session:
    return _maker(info=getattr(_unit, "info", None))


session: scoped_session[Session] = scoped_session(_make_session)  # type: ignore[arg-type]


def configure(url: str, statement_seconds: float | None = None) -> Engine:
    """Bind the sessions of this process to a database, whose statements may take so long."""
    global _lookups
    seconds = statement_seconds or settings().database_timeout
    engine = make_engine(url, seconds)
    _maker.configure(bind=engine)
    if _lookups is not None:
        _lookups.close()
    _lookups = _make_lookups(engine, seconds)
    return engine


def engine() -> Engine:
    """The engine of this process; connects lazily."""
    bound = _maker.kw.get("bind")
    if bound is None:
        bound = configure(settings().database_url)
    return bound


@event.listens_for(_maker, "after_begin")
def _act_for(current: Session, _transaction: Any, connection: Any) -> None:
    if current.info.get("system"):
        connection.execute(text("SET LOCAL ROLE edgeflow_system"))
    org_id = current.info.get("org_id")
    if org_id is not None:
        connection.execute(text("SELECT set_config('app.org_id', :org, true)"), {"org": str(org_id)})


def act_for(org_id: UUID | None, *, told: bool = False) -> None:
    """From here on this session's transactions see one organization. ``told``: the database knows already."""
    if not session.registry.has():
        _unit.info = {"org_id": org_id}  # for the session that may be made later
        return
    current = session()
    current.info["org_id"] = org_id
    if current.in_transaction() and not told:
        current.execute(text("SELECT set_config('app.org_id', :org, true)"), {"org": str(org_id or "")})


def after_commit(call: Callable[[], None]) -> None:
    """Run ``call`` once the current transaction has committed; a rollback forgets it."""
    session().info.setdefault("after_commit", []).append(call)


def commit() -> None:
    """Commit now, then run what waits for it. The next statement begins a new transaction for the same tenant."""
    if not session.registry.has():
        return
    current = session()
    if current.in_transaction():
        current.commit()
    for call in current.info.pop("after_commit", []):
        call()


@contextmanager
def transaction(org_id: UUID | None = None, *, system: bool = False) -> Iterator[Session]:
    """One unit of work: commits at the end, rolls back on an error (unless the error keeps its changes).

    ``org_id``: the tenant it acts for. ``system``: it sees all tenants (workers' sweeps only).
    """
    with unit():
        current = session()
        current.info.update(org_id=org_id, system=system)
        yield current


@contextmanager
def unit() -> Iterator[None]:
    """As ``transaction``, for a tenant that ``act_for`` tells later. Without a use of ``session`` it costs nothing."""
    engine()
    _forget()
    try:
        yield
        commit()
    except AppError as error:
        if error.keeps_changes:
            commit()
        raise
    finally:
        _forget()


def _forget() -> None:
    if session.registry.has():  # most requests of a kind that only looks up have none: to remove it costs more
        session.remove()
    _unit.info = {}


def look_up(statement: TextClause, values: dict[str, Any]) -> tuple[Any, ...] | None:
    """The first row of one statement that is a transaction of its own; None without one.

    For what every request asks: without a session, in one round trip that it shares with others who ask just now. It
    may be asked twice, should the connection break. What the statement sets for its transaction ends with it. Raises
    what a session raises.
    """
    engine()
    assert _lookups is not None
    return _lookups.ask(statement, values)


def as_json(value: Any) -> str:
    """A value as the text of a ``jsonb`` parameter."""
    return orjson.dumps(value).decode()


def pool_status() -> dict[str, int]:
    """Connections in use and open, for the operators' metrics."""
    engine()
    pool: Any = _maker.kw["bind"].pool
    asking = _lookups.status() if _lookups else {"in_use": 0, "open": 0}
    in_use = pool.checkedout() + asking["in_use"]
    return {"in_use": in_use, "open": pool.checkedout() + pool.checkedin() + asking["open"]}
