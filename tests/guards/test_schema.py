"""Models, migrations and the database agree, and the database alone keeps tenants apart (S2)."""

import subprocess
import sys
from typing import Any
from uuid import UUID

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Table, create_engine, text
from sqlalchemy.exc import DBAPIError

from app import db
from app.health import SCHEMA_REVISION
from app.models import Base
from config.settings import settings
from tests.guards import population
from tests.platform import ROOT

TENANT_TABLES = {
    name: table for name, table in Base.metadata.tables.items() if "org_id" in table.columns or name == "organizations"
}
# Users belong to no organization, so their sessions cannot be the tenant's: the API reads them by their own id.
GLOBAL = {"sessions"}
SECURED = sorted(TENANT_TABLES.keys() - GLOBAL)


def test_there_is_one_head_and_it_is_the_revision_that_readyz_wants() -> None:
    scripts = ScriptDirectory.from_config(Config(ROOT / "migrations" / "alembic.ini"))
    assert scripts.get_heads() == [SCHEMA_REVISION]


def test_models_and_migrations_agree() -> None:
    command = [sys.executable, "-m", "alembic", "-c", "migrations/alembic.ini", "check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def rows(query: str, **values: Any) -> list[Any]:
    with db.transaction() as session:
        return list(session.execute(text(query), values).all())


def test_every_tenant_table_forces_row_level_security() -> None:
    query = "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relrowsecurity AND relforcerowsecurity"
    assert {row.relname for row in rows(query)} == set(SECURED)


@pytest.mark.parametrize("table", SECURED)
def test_every_tenant_table_has_both_policies(table: str) -> None:
    found = rows("SELECT policyname, roles, cmd, qual, with_check FROM pg_policies WHERE tablename = :t", t=table)
    policies = {(p.policyname, tuple(p.roles), p.cmd): (p.qual, p.with_check) for p in found}
    assert policies.keys() == {("tenant", ("edgeflow_app",), "ALL"), ("system", ("edgeflow_system",), "ALL")}
    for qual in policies["tenant", ("edgeflow_app",), "ALL"]:
        assert "current_setting('app.org_id'" in qual


def test_foreign_keys_between_tenant_tables_carry_the_organization() -> None:
    """A plain one would be checked past row-level security, and so tell of another tenant's row."""
    plain = [
        f"{table.name} → {key.referred_table.name}"
        for table in TENANT_TABLES.values()
        for key in table.foreign_key_constraints
        if key.referred_table.name in SECURED and key.referred_table.name != "organizations"
        and "org_id" not in key.column_keys
    ]  # fmt: skip
    assert plain == []


def test_the_roles_own_nothing_and_bypass_nothing() -> None:
    roles = rows("SELECT rolname, rolsuper, rolbypassrls, rolcreaterole, rolcanlogin FROM pg_roles "
                 "WHERE rolname IN ('edgeflow_app', 'edgeflow_system') ORDER BY 1")  # fmt: skip
    assert [tuple(row) for row in roles] == [
        ("edgeflow_app", False, False, False, False),
        ("edgeflow_system", False, False, False, False),
    ]
    owned = (
        "SELECT relname FROM pg_class JOIN pg_roles r ON r.oid = relowner "
        "WHERE rolname LIKE 'edgeflow\\_%' AND relpersistence <> 't'"  # but for temporary tables of sessions
    )
    assert rows(owned) == []


def test_the_application_begins_as_the_app_role() -> None:
    assert rows("SELECT current_user")[0][0] == "edgeflow_app"


@pytest.fixture(scope="module")
def tenants() -> tuple[UUID, UUID]:
    """Two organizations with a row in every tenant table."""
    return population.populate("A").org_id, population.populate("B").org_id


NOBODYS = ("idempotency_keys", "stripe_events")
"""Some rows belong to nobody: keys that were claimed before sign-in, events of customers that are not ours."""


def org_column(table: Table) -> Any:
    return table.columns["id" if table.name == "organizations" else "org_id"]


def count(connection: Connection, table: str, org_id: UUID | None = None) -> int:
    model = TENANT_TABLES[table]
    query = model.select() if org_id is None else model.select().where(org_column(model) == org_id)
    return len(connection.execute(query).all())


@pytest.fixture
def as_app() -> Any:
    """A connection as the application's role, without the application."""
    engine = create_engine(settings().database_url)
    with engine.connect() as connection:
        connection.execute(text("SET ROLE edgeflow_app"))
        connection.commit()
        yield connection
    engine.dispose()


def tell(connection: Connection, org_id: UUID) -> None:
    connection.execute(text("SELECT set_config('app.org_id', :org, true)"), {"org": str(org_id)})


@pytest.mark.parametrize("table", SECURED)
def test_without_a_tenant_nothing_is_seen(table: str, tenants: tuple[UUID, UUID], as_app: Connection) -> None:
    visible = count(as_app, table)
    if table in NOBODYS:
        visible = count(as_app, table, tenants[0]) + count(as_app, table, tenants[1])
    assert visible == 0


@pytest.mark.parametrize("table", SECURED)
def test_a_tenant_sees_and_changes_only_its_own_rows(
    table: str, tenants: tuple[UUID, UUID], as_app: Connection
) -> None:
    mine, theirs = tenants
    tell(as_app, mine)
    assert count(as_app, table, mine) >= 1
    assert count(as_app, table) == count(as_app, table, mine)
    column = org_column(TENANT_TABLES[table]).name
    changed = as_app.execute(text(f"UPDATE {table} SET {column} = {column} WHERE {column} = :org"), {"org": theirs})
    deleted = as_app.execute(text(f"DELETE FROM {table} WHERE {column} = :org"), {"org": theirs})
    assert (changed.rowcount, deleted.rowcount) == (0, 0)
    as_app.rollback()


@pytest.mark.parametrize("table", SECURED)
def test_a_tenant_cannot_give_rows_to_another(table: str, tenants: tuple[UUID, UUID], as_app: Connection) -> None:
    mine, theirs = tenants
    tell(as_app, mine)
    model = TENANT_TABLES[table]
    row = dict(as_app.execute(model.select().limit(1)).mappings().one())
    with pytest.raises(DBAPIError, match="row-level security"):
        as_app.execute(model.insert().values({**row, org_column(model).name: theirs}))
    as_app.rollback()
    tell(as_app, mine)
    with pytest.raises(DBAPIError, match="row-level security"):
        as_app.execute(model.update().values({org_column(model).name: theirs}))
    as_app.rollback()
