"""Alembic: migrates as the owner of the schema, one process at a time, never waiting long for a lock."""

import os
import re
from typing import Any

from alembic import context
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError

from app.models import Base
from config.settings import settings_or_exit

MIGRATION_LOCK = 0x45444745  # "EDGE": processes that start together migrate one after the other


def run() -> None:
    url = os.environ.get("EDGEFLOW_MIGRATE_URL") or settings_or_exit().owner_url
    engine = create_engine(url, connect_args={"connect_timeout": 5})
    with _connect(engine) as connection:
        connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": MIGRATION_LOCK})
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.execute(text("SET statement_timeout = '60s'"))
        connection.commit()
        context.configure(
            connection=connection, target_metadata=Base.metadata, compare_type=True, include_name=_is_no_partition
        )
        with context.begin_transaction():
            context.run_migrations()
    engine.dispose()


def _is_no_partition(name: str | None, kind: str, _parents: Any) -> bool:
    """Partitions come and go by themselves; models know their parents."""
    return kind != "table" or not re.fullmatch(r"\w+_(p\d{8}|default)", name or "")


def _connect(engine: Engine) -> Connection:
    """Raises SystemExit with one line when there is no database to be had."""
    try:
        return engine.connect()
    except OperationalError as error:
        raise SystemExit(f"cannot migrate: {str(error.orig).splitlines()[0]}") from None


run()
