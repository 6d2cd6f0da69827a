"""Migrations that carry rows over, on a database of their own: there, back, and there again."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from tests.conftest import SERVERS
from tests.platform import ROOT

pytestmark = pytest.mark.slow

Migrate = Callable[..., None]


@pytest.fixture
def database() -> Iterator[str]:
    """Of a fresh, empty database: as its owner."""
    superuser, name = os.environ[SERVERS].split()[0], f"migrations_{uuid4().hex}"
    with psycopg.connect(superuser, autocommit=True) as server:
        server.execute(f"CREATE DATABASE {name} OWNER edgeflow")
        try:
            yield f"postgresql://edgeflow:edgeflow@{server.info.host}:{server.info.port}/{name}"
        finally:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def migrate(database: str) -> Migrate:
    """``migrate("upgrade", "0010")``"""

    def run(*arguments: str) -> None:
        command = [sys.executable, "-m", "alembic", "-c", "migrations/alembic.ini", *arguments]
        environ = {**os.environ, "EDGEFLOW_MIGRATE_URL": database}
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    return run


def ask(database: str, *statements: str) -> list[tuple[object, ...]]:
    """Rows of the last statement, as the role that sees all tenants."""
    with psycopg.connect(make_conninfo(database, options="-c role=edgeflow_system -c timezone=UTC")) as connection:
        for statement in statements:
            found = connection.execute(statement)
        return found.fetchall() if found.description else []


def test_the_count_by_month_begins_with_the_deployments_that_are_there(database: str, migrate: Migrate) -> None:
    migrate("upgrade", "0010")
    busy, idle, flow = uuid4(), uuid4(), uuid4()
    times = ("2026-01-31T23:59:59Z", "2026-02-01T00:00:00Z", "2026-02-28T12:00:00+14:00")
    ask(
        database,
        f"INSERT INTO organizations (id, name) VALUES ('{busy}', 'busy'), ('{idle}', 'idle')",
        "INSERT INTO flows (id, org_id, name, definition, content_hash, latest_version) "
        f"VALUES ('{flow}', '{busy}', 'f', '{{}}', '', 1)",
        "INSERT INTO flow_versions (org_id, flow_id, number, name, definition, content_hash) "
        f"VALUES ('{busy}', '{flow}', 1, 'f', '{{}}', '')",
        *(
            "INSERT INTO deployments (id, org_id, flow_id, version, name, status, target, strategy, created_at) "
            f"VALUES ('{uuid4()}', '{busy}', '{flow}', 1, 'd', 'created', '{{}}', '{{}}', '{at}')"
            for at in times
        ),
    )
    counted = [(busy, "2026-01-01", 1), (busy, "2026-02-01", 2)]
    months = "SELECT org_id, to_char(month, 'YYYY-MM-DD'), deployments FROM usage_months ORDER BY month"
    migrate("upgrade", "0011")
    assert ask(database, months) == counted
    migrate("downgrade", "0010")
    assert ask(database, "SELECT to_regclass('usage_months')") == [(None,)]
    migrate("upgrade", "head")
    assert ask(database, months) == counted


def test_every_migration_can_be_taken_back(database: str, migrate: Migrate) -> None:
    migrate("upgrade", "head")
    migrate("downgrade", "base")
    migrate("upgrade", "head")
    migrate("check")
