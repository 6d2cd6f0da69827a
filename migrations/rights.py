"""Who may do what in the database, for every migration: what it creates is closed until it is opened here.

There are no default privileges for tables, so one that a migration forgets is one that the application cannot read, and
not one that every tenant can. Partitions stay closed: reached by their own name they would pass their parent's policy.
Released migrations call these functions: change what one does only under another name.
"""

from alembic import op

APP, SYSTEM = "edgeflow_app", "edgeflow_system"
CURRENT_ORGANIZATION = "NULLIF(current_setting('app.org_id', true), '')::uuid"


def create_roles() -> None:
    """Two roles that own nothing: requests act as one, sweeps over all tenants as the other."""
    for role in (APP, SYSTEM):
        # Roles belong to the whole server: another database's migration may create them at the same moment.
        op.execute(
            f"""DO $$ BEGIN CREATE ROLE {role} NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOBYPASSRLS;
            EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"""
        )
        # INHERIT FALSE: the owner's login gets the rights only by SET ROLE, so forced policies hold for it too.
        op.execute(f"GRANT {role} TO CURRENT_USER WITH INHERIT FALSE, SET TRUE")
        op.execute(f"GRANT USAGE ON SCHEMA public TO {role}")
        op.execute(f"GRANT SELECT ON alembic_version TO {role}")
    # PostgreSQL's own default lets everybody call a new function.
    op.execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")


def open_table(table: str) -> None:
    """Let the application read and write a table that belongs to no tenant."""
    for role in (APP, SYSTEM):
        op.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role}")


def open_to_tenants(table: str, column: str = "org_id", *, nobodys_rows: bool = False) -> None:
    """Let each tenant read and write the rows whose ``column`` names it, and sweeps all of them.

    ``nobodys_rows``: those without an organization belong to callers who have none yet.
    """
    open_table(table)
    mine = f"{column} {'IS NOT DISTINCT FROM' if nobodys_rows else '='} {CURRENT_ORGANIZATION}"
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON {table} TO {APP} USING ({mine}) WITH CHECK ({mine})")
    op.execute(f"CREATE POLICY system ON {table} TO {SYSTEM} USING (true) WITH CHECK (true)")


def open_sequence(sequence: str) -> None:
    """Let the application draw numbers."""
    for role in (APP, SYSTEM):
        op.execute(f"GRANT USAGE ON SEQUENCE {sequence} TO {role}")


def answer_across_tenants(signature: str, body: str) -> None:
    """A function that answers the application one question as the role that sees all tenants.

    ``body`` names tables with their schema; a caller's temporary tables and own search path mean nothing to it.
    """
    op.execute(f"GRANT CREATE ON SCHEMA public TO {SYSTEM}")
    op.execute(
        f"CREATE FUNCTION {signature} {body} LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp"
    )
    op.execute(f"ALTER FUNCTION {signature} OWNER TO {SYSTEM}")
    op.execute(f"SET ROLE {SYSTEM}")
    op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {APP}")
    op.execute("RESET ROLE")
    op.execute(f"REVOKE CREATE ON SCHEMA public FROM {SYSTEM}")
