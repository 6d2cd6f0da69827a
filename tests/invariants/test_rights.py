"""What the database itself denies to whoever gets the application to run statements of his own (S2)."""

import ast
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError

from app import db
from app.tokens import digest
from config.settings import settings
from tests import make
from tests.platform import ROOT

# Where the code sees all tenants: sweeps, what gateways write for many devices at once, and tests.
SYSTEM_MODULES = {
    "app/billing/events.py", "app/billing/usage.py", "app/edge_nodes/editor/sessions.py", "app/journal.py",
    "app/telemetry/handover.py",
    "app/telemetry/service.py", "app/tunnel/queries.py", "workers/alerts.py", "workers/billing.py",
    "workers/maintenance.py", "workers/metrics.py", "workers/notifications.py", "workers/rollouts.py",
    "workers/telemetry.py",
}  # fmt: skip


@pytest.fixture
def as_owner() -> Iterator[Connection]:
    """The login that migrates."""
    engine = create_engine(settings().owner_url)
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def rows(query: str) -> list[Any]:
    with db.transaction() as session:
        return list(session.execute(text(query)).all())


def test_nothing_is_everybodys() -> None:
    tables = (
        "SELECT relname FROM pg_class c, aclexplode(c.relacl) a "
        "WHERE a.grantee = 0 AND relnamespace = 'public'::regnamespace"
    )
    functions = (
        "SELECT proname FROM pg_proc p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a "
        "WHERE a.grantee = 0 AND p.pronamespace = 'public'::regnamespace"
    )
    assert rows(tables) == []
    assert rows(functions) == []


def test_nobody_who_serves_requests_can_create_or_inherit() -> None:
    for role in ("edgeflow_app", "edgeflow_system"):
        assert rows(f"SELECT has_schema_privilege('{role}', 'public', 'CREATE')") == [(False,)]
    for member, role in (("edgeflow_app", "edgeflow_system"), ("edgeflow_system", "edgeflow_app")):
        assert rows(f"SELECT pg_has_role('{member}', '{role}', 'MEMBER')") == [(False,)]
    # The login has their rights only where the code says SET ROLE.
    assert rows("SELECT pg_has_role(session_user, 'edgeflow_system', 'USAGE')") == [(False,)]


def test_what_sees_across_tenants_is_fixed_and_few() -> None:
    found = rows(
        "SELECT proname, proowner::regrole::text, proconfig FROM pg_proc "
        "WHERE prosecdef AND pronamespace = 'public'::regnamespace AND proname NOT LIKE '%_partition%'"
    )
    names = {"identify_session", "identify_api_key", "identify_devices", "identify_provisioning", "identify_invitation"}
    assert {row.proname for row in found} == {
        *names,
        "organizations_of",
        "find_log_entries",
        "billing_account_of",
        "identify_editors",
    }
    assert {row.proowner for row in found} == {"edgeflow_system"}
    assert {tuple(row.proconfig) for row in found} == {("search_path=pg_catalog, pg_temp",)}


def test_only_sweeps_make_and_drop_partitions() -> None:
    """As the owner of the tables, so of nothing else."""
    found = rows(
        "SELECT proname, proconfig, has_function_privilege('edgeflow_system', oid, 'EXECUTE') AS system, "
        "has_function_privilege('edgeflow_app', oid, 'EXECUTE') AS app FROM pg_proc "
        "WHERE prosecdef AND pronamespace = 'public'::regnamespace AND proname LIKE '%_partition%'"
    )
    assert {(row.proname, row.system, row.app) for row in found} == {
        ("ensure_partition", True, False), ("drop_partitions", True, False),
    }  # fmt: skip
    assert {tuple(row.proconfig) for row in found} == {("search_path=pg_catalog, pg_temp", "TimeZone=UTC")}


def test_a_callers_own_tables_and_path_mean_nothing_to_them() -> None:
    device, key = make.device(make.organization())
    with db.transaction() as session:
        session.execute(text("CREATE TEMPORARY TABLE device_keys ON COMMIT DROP AS SELECT * FROM public.device_keys"))
        session.execute(text("SET LOCAL search_path = pg_temp, public"))
        found = session.execute(text("SELECT * FROM public.identify_devices(:hashes)"), {"hashes": [digest(key)]})
        assert [row.device_id for row in found] == [device.id]


def test_a_table_that_a_migration_forgot_is_closed(as_owner: Connection) -> None:
    as_owner.execute(text("CREATE TABLE forgotten (org_id uuid)"))
    as_owner.execute(text("CREATE FUNCTION forgotten_too() RETURNS int LANGUAGE sql AS 'SELECT 1'"))
    as_owner.execute(text("SET LOCAL ROLE edgeflow_app"))
    for statement in ("SELECT * FROM forgotten", "SELECT forgotten_too()"):
        with pytest.raises(DBAPIError, match="permission denied"), as_owner.begin_nested():
            as_owner.execute(text(statement))
    as_owner.rollback()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE alembic_version SET version_num = 'x'",
        "ALTER TABLE devices DISABLE ROW LEVEL SECURITY",
        "CREATE TABLE mine (id int)",
        "CREATE POLICY more ON devices USING (true)",
        "COPY devices TO PROGRAM 'cat'",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT passwd FROM pg_shadow",
        "TRUNCATE devices",
        "SELECT setval('tunnel_epochs', 1)",
    ],
)
def test_the_application_may_not(statement: str) -> None:
    with pytest.raises(DBAPIError, match=r"permission denied|must be owner"), db.transaction() as session:
        session.execute(text(statement))


def test_only_these_modules_act_for_all_tenants() -> None:
    found = set()
    for file in (*(ROOT / "app").rglob("*.py"), *(ROOT / "workers").rglob("*.py"), *(ROOT / "scheduler").rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword) and node.arg == "system" and not isinstance(node.value, ast.Name):
                found.add(str(file.relative_to(ROOT)))
    assert found == SYSTEM_MODULES
