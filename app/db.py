"""PostgreSQL: the engine, the session of the current transaction, and who a transaction acts for.

Row-level security decides what a transaction sees. Each one starts as the role ``edgeflow_app``, which reads a tenant
table only through ``app.org_id``; nothing set means no rows. Sweeps over all tenants use ``edgeflow_system``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import TIMESTAMP, Engine, ForeignKey, Text, create_engine, event, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker
from sqlalchemy.schema import MetaData

from app.errors import AppError
from config.settings import settings

CONNECT_SECONDS = 3
PING_SECONDS = 2.0  # how long a pooled connection has to show that it lives
IDLE_SECONDS = 10  # a transaction of a process that stands still holds its locks for no longer

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class Base(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)
    type_annotation_map = {
        datetime: TIMESTAMP(timezone=True),
        str: Text,
        dict[str, Any]: JSONB,
        list[str]: ARRAY(Text),
    }


class Tenant:
    """A table whose rows belong to one organization: the migration gives it forced row-level security."""

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that nobody waits on for ever: a server that hangs keeps its sockets open and answers nothing.

    Past ``patience`` (seconds) a wait raises OperationalError and the connection is closed, since its state is unknown.
    """

    patience = PING_SECONDS

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        try:
            return super().wait(gen, interval, self.patience if timeout is None else timeout)
        except psycopg.OperationalError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                self.pgconn.finish()
            raise


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

    @event.listens_for(engine, "connect")
    def become_app(connection: Any, _record: Any) -> None:
        connection.autocommit = True
        connection.execute("SET ROLE edgeflow_app")
        connection.execute("SET TIME ZONE 'UTC'")
        connection.execute(f"SET statement_timeout = '{statement_seconds}s'")
        connection.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'")
        connection.autocommit = False

    @event.listens_for(engine, "checkout")
    def be_patient(connection: Any, _record: Any, _proxy: Any) -> None:
        connection.patience = statement_seconds + 1  # the server's own limit speaks first, if it can

    @event.listens_for(engine, "checkin")
    def expect_a_ping(connection: Any, _record: Any) -> None:
        if connection is not None:
            connection.patience = PING_SECONDS

    return engine


def _connect(_dialect: Any, _record: Any, arguments: Any, options: Any) -> BoundedConnection:
    return BoundedConnection.connect(*arguments, **options)


_maker = sessionmaker(expire_on_commit=False)
session: scoped_session[Session] = scoped_session(_maker)


def configure(url: str, statement_seconds: float | None = None) -> Engine:
    """Bind the sessions of this process to a database, whose statements may take so long."""
    engine = make_engine(url, statement_seconds or settings().database_timeout)
    _maker.configure(bind=engine)
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
    current = session()
    current.info["org_id"] = org_id
    if current.in_transaction() and not told:
        current.execute(text("SELECT set_config('app.org_id', :org, true)"), {"org": str(org_id or "")})


def after_commit(call: Callable[[], None]) -> None:
    """Run ``call`` once the current transaction has committed; a rollback forgets it."""
    session().info.setdefault("after_commit", []).append(call)


def commit() -> None:
    """Commit now, then run what waits for it. The next statement begins a new transaction for the same tenant."""
    current = session()
    current.commit()
    for call in current.info.pop("after_commit", []):
        call()


@contextmanager
def transaction(org_id: UUID | None = None, *, system: bool = False) -> Iterator[Session]:
    """One unit of work: commits at the end, rolls back on an error (unless the error keeps its changes).

    ``org_id``: the tenant it acts for. ``system``: it sees all tenants (workers' sweeps only).
    """
    engine()
    session.remove()
    current = session()
    current.info.update(org_id=org_id, system=system, after_commit=[])
    try:
        yield current
        commit()
    except AppError as error:
        if error.keeps_changes:
            commit()
        raise
    finally:
        session.remove()


def as_json(value: Any) -> str:
    """A value as the text of a ``jsonb`` parameter."""
    return orjson.dumps(value).decode()


def pool_status() -> dict[str, int]:
    """Connections in use and open, for the operators' metrics."""
    pool: Any = engine().pool
    return {"in_use": pool.checkedout(), "open": pool.checkedin() + pool.checkedout()}
