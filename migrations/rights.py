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


def open_to_tenants(table: str, column: str = "org_id", *, nobodys_rows: bool = False, many_rows: bool = False) -> None:
    """Let each tenant read and write the rows whose ``column`` names it, and sweeps all of them.

    ``nobodys_rows``: those without an organization belong to callers who have none yet. ``many_rows``: a statement
    reads so many that the setting is looked up once and not for each, which takes longer than reading the row.
    """
    open_table(table)
    wanted = f"(SELECT {CURRENT_ORGANIZATION})" if many_rows else CURRENT_ORGANIZATION
    mine = f"{column} {'IS NOT DISTINCT FROM' if nobodys_rows else '='} {wanted}"
    op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
    op.execute(f"CREATE POLICY tenant ON {table} TO {APP} USING ({mine}) WITH CHECK ({mine})")
    op.execute(f"CREATE POLICY system ON {table} TO {SYSTEM} USING (true) WITH CHECK (true)")


def open_sequence(sequence: str) -> None:
    """Let the application draw numbers."""
    for role in (APP, SYSTEM):
        op.execute(f"GRANT USAGE ON SEQUENCE {sequence} TO {role}")


def answer_across_tenants(signature: str, body: str, language: str = "sql") -> None:
    """A function that answers the application one question as the role that sees all tenants.

    ``body`` names tables with their schema; a caller's temporary tables and own search path mean nothing to it.
    """
    op.execute(f"GRANT CREATE ON SCHEMA public TO {SYSTEM}")
    op.execute(
        f"CREATE FUNCTION {signature} {body} LANGUAGE {language} STABLE SECURITY DEFINER "
        "SET search_path = pg_catalog, pg_temp"
    )
    op.execute(f"ALTER FUNCTION {signature} OWNER TO {SYSTEM}")
    op.execute(f"SET ROLE {SYSTEM}")
    op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
    op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {APP}")
    op.execute("RESET ROLE")
    op.execute(f"REVOKE CREATE ON SCHEMA public FROM {SYSTEM}")


def maintain_partitions() -> None:
    """Let sweeps make and drop partitions, which only the owner of a table may.

    ``ensure_partition('log_entries', 'day', moment)`` makes the one that holds a moment unless it is there;
    ``drop_partitions('log_entries', 'day', moment)`` drops those that end before it and answers how many. Partitions
    are named ``<table>_p<first day>`` and stay closed, like every table that is not opened. What came for a time that
    had none lies in ``<table>_default`` and moves when its own is made.
    """
    for signature, body in _PARTITIONS.items():
        op.execute(
            f"CREATE FUNCTION {signature} {body} "
            "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET timezone = 'UTC'"
        )
        op.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
        op.execute(f"GRANT EXECUTE ON FUNCTION {signature} TO {SYSTEM}")


_PARTITIONS = {
    "ensure_partition(p_table text, p_every text, p_at timestamptz)": """
        RETURNS boolean AS $$
        DECLARE
          first timestamp := date_trunc(p_every, p_at AT TIME ZONE 'UTC');
          name text := p_table || '_p' || to_char(first, 'YYYYMMDD');
          lower timestamptz := first AT TIME ZONE 'UTC';
          upper timestamptz := (first + ('1 ' || p_every)::interval) AT TIME ZONE 'UTC';
        BEGIN
          IF to_regclass('public.' || quote_ident(name)) IS NOT NULL THEN RETURN false; END IF;
          PERFORM pg_advisory_xact_lock(hashtextextended(name, 0));
          IF to_regclass('public.' || quote_ident(name)) IS NOT NULL THEN RETURN false; END IF;
          IF NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('public.' || quote_ident(p_table))
                         AND relkind = 'p') THEN
            RAISE EXCEPTION 'not partitioned: %', p_table;
          END IF;
          -- Whoever writes waits here: a row on its way to the default one would be refused once it may not lie there.
          EXECUTE format('LOCK TABLE public.%I IN SHARE ROW EXCLUSIVE MODE', p_table);
          EXECUTE format('CREATE TABLE public.%I (LIKE public.%I INCLUDING DEFAULTS INCLUDING CONSTRAINTS '
            'INCLUDING STORAGE)', name, p_table);
          EXECUTE format('WITH moved AS (DELETE FROM public.%I WHERE time >= %L AND time < %L RETURNING *) '
            'INSERT INTO public.%I SELECT * FROM moved', p_table || '_default', lower, upper, name);
          EXECUTE format('ALTER TABLE public.%I ATTACH PARTITION public.%I FOR VALUES FROM (%L) TO (%L)',
            p_table, name, lower, upper);
          RETURN true;
        END $$""",
    "drop_partitions(p_table text, p_every text, p_before timestamptz)": """
        RETURNS integer AS $$
        DECLARE
          partition record; dropped integer := 0;
        BEGIN
          FOR partition IN
            SELECT c.relname FROM pg_inherits i
            JOIN pg_class c ON c.oid = i.inhrelid
            JOIN pg_class p ON p.oid = i.inhparent AND p.relkind = 'p'
            WHERE i.inhparent = to_regclass('public.' || quote_ident(p_table)) AND c.relname ~ '_p[0-9]{8}$'
              AND (to_date(right(c.relname, 8), 'YYYYMMDD')::timestamp + ('1 ' || p_every)::interval)
                  AT TIME ZONE 'UTC' <= p_before
          LOOP
            EXECUTE format('DROP TABLE public.%I', partition.relname);
            dropped := dropped + 1;
          END LOOP;
          RETURN dropped;
        END $$""",
}


def create_partitioned(table: str, columns: str, every: str, ahead: int) -> None:
    """A tenant table partitioned by ``time``, with partitions (``every``: day or month) from now on."""
    op.execute(f"CREATE TABLE {table} ({columns}) PARTITION BY RANGE (time)")
    op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")
    open_to_tenants(table, many_rows=True)
    op.execute(
        f"SELECT ensure_partition('{table}', '{every}', now() + make_interval({every}s => n)) "
        f"FROM generate_series(-1, {ahead}) n"
    )
