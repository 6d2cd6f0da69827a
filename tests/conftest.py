"""Every test runs against a real PostgreSQL and a real Valkey of its own: ports, folder and databases.

The first process starts the servers; each parallel worker has a database and a Redis database to itself.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import psycopg
import pytest

SERVERS = "EDGEFLOW_TEST_SERVERS"  # "postgresql://superuser… redis://…", set by the process that started them
ROOT = Path(__file__).parent.parent

# Where a change is judged, the same examples each time: it is not refused for what it did not touch.
hypothesis.settings.register_profile("judged", derandomize=True, deadline=None, print_blob=True)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("judged")

_embedded: Any = None
_folders: list[str] = []
_platform: Any = None


def pytest_configure(config: pytest.Config) -> None:
    global _embedded
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell starts what runs in the background so, and no program that a test starts could trap it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if SERVERS not in os.environ:
        from config import embedded

        _embedded = embedded.start(Path(_folder("edgeflow-tests-")), durable=False)
        os.environ[SERVERS] = f"{_embedded.superuser_url} {_embedded.redis_url}"
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        _prepare(getattr(config, "workerinput", {}).get("workerid", "main"))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Three for two processors: tests wait for half of their time, for servers, devices and clocks."""
    return (os.cpu_count() or 2) * 3 // 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one ``xdist_group`` go to one worker: xdist 3.8 writes the group where pytest 9.2 does not look.

    What takes longest begins first, so that in the end no worker has a long way to go alone.
    """
    items.sort(key=lambda item: not any(item.get_closest_marker(name) for name in ("slow", "xdist_group")))
    for item in items if getattr(config.option, "loadgroup", False) else ():
        groups = sorted({mark.args[0] for mark in item.iter_markers("xdist_group")})
        if groups and "@" not in item.nodeid.rpartition("]")[2]:
            item._id = type(item._id).parse(f"{item.nodeid}@{'_'.join(groups)}")  # type: ignore[attr-defined]


def pytest_unconfigure() -> None:
    if _embedded is not None:
        _embedded.stop()
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(prefix: str) -> str:
    """A temporary folder that goes when the tests end."""
    _folders.append(tempfile.mkdtemp(prefix=prefix))
    return _folders[-1]


def _prepare(worker: str) -> None:
    superuser, redis_url = os.environ[SERVERS].split()
    name = f"test_{worker}_{os.getpid()}"
    with psycopg.connect(superuser, autocommit=True) as connection:
        # Parallel workers would alter the role at once, which PostgreSQL refuses; the lock ends with the connection.
        connection.execute("SELECT pg_advisory_lock(20261122)")
        connection.execute(
            "DO $$ BEGIN CREATE ROLE edgeflow LOGIN CREATEROLE NOSUPERUSER PASSWORD 'edgeflow'; "
            "EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
        )
        connection.execute("ALTER ROLE edgeflow PASSWORD 'edgeflow'")
        connection.execute(f"CREATE DATABASE {name} OWNER edgeflow")
        address = f"{connection.info.host}:{connection.info.port}"
    number = 1 + int(worker.removeprefix("gw")) % 15 if worker.startswith("gw") else 0
    os.environ.update(
        DATABASE_URL=f"postgresql://edgeflow:edgeflow@{address}/{name}",
        REDIS_URL=re.sub(r"/\d*$", "", redis_url) + f"/{number}",
        EDGEFLOW_DATA_DIR=_folder("edgeflow-test-data-"),
        EDGEFLOW_RATE_LIMITS="0",
        EDGEFLOW_LOG_LEVEL="WARNING",
    )
    for name in [name for name in os.environ if name.startswith("STRIPE_")]:
        del os.environ[name]  # a person's own account is none of the tests' business
    command = [sys.executable, "-m", "alembic", "-c", "migrations/alembic.ini", "upgrade", "head"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)


@pytest.fixture(scope="session")
def app() -> Any:
    from app import create_app

    return create_app()


@pytest.fixture(autouse=True)
def _clean_session() -> Iterator[None]:
    yield
    from app import db

    db.session.remove()


@pytest.fixture
def org() -> Any:
    """A fresh organization (its id)."""
    from tests import make

    return make.organization()


@pytest.fixture
def api(app: Any, org: Any) -> Any:
    """The REST API as an owner of the fresh organization."""
    from tests import make

    return make.client(app, org)


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The whole platform as processes: two web processes, a worker, a scheduler, on real sockets.

    Tests that use it share it: mark them ``pytest.mark.xdist_group("platform")``.
    """
    from tests.platform import Platform

    global _platform
    with Platform(tmp_path_factory.mktemp("platform"), web=2) as running:
        _platform = running
        yield running
        _platform = None


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The platform's worker and scheduler work on this process's database: they rest while other tests use it."""
    if _platform is not None:
        if "platform" in getattr(item, "fixturenames", ()):
            _platform.resume()
        else:
            _platform.rest()
