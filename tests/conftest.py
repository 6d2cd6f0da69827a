"""Every test runs against a real PostgreSQL and a real Valkey of its own: ports, folder and databases.

The first process starts the servers and migrates one database; each parallel worker has a copy of that and a Redis
database to itself.
"""

import gc
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
TEMPLATE = "EDGEFLOW_TEST_TEMPLATE"  # the migrated database that workers copy
GROUPS = (
    "faults", "browser", "billing", "gateways", "bench", "platform", "editors", "nodered", "two_browsers",
    "own_servers", "telemetry-faults", "tunnel-faults", "notification_faults", "stripe_contract",
)  # fmt: skip
"""In the order in which they begin: what takes long first, because in the end others would wait for it; and what works
hard beside what waits for servers, devices and clocks."""
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
    if not hasattr(config, "workerinput") and config.getoption("numprocesses", None):
        os.environ[TEMPLATE] = _prepare("template")
        return
    _prepare(getattr(config, "workerinput", {}).get("workerid", "main"))
    gc.disable()  # until all is collected: what comes of that stays


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two for each processor: tests wait for half of their time, for servers, devices and clocks."""
    return (os.cpu_count() or 2) * 2


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of one ``xdist_group`` go to one worker: xdist 3.8 writes the group where pytest 9.2 does not look.

    What takes longest begins first, so that in the end no worker has a long way to go alone.
    """
    items.sort(key=_turn)
    for item in items if getattr(config.option, "loadgroup", False) else ():
        groups = _groups(item)
        if groups and "@" not in item.nodeid.rpartition("]")[2]:
            item._id = type(item._id).parse(f"{item.nodeid}@{'_'.join(groups)}")  # type: ignore[attr-defined]


def _groups(item: pytest.Item) -> list[str]:
    return sorted({mark.args[0] for mark in item.iter_markers("xdist_group")})


def _turn(item: pytest.Item) -> int:
    """Long groups, then single tests that are slow and other groups, then all the rest."""
    for group in _groups(item):
        return GROUPS.index(group) if group in GROUPS else len(GROUPS)
    return len(GROUPS) + (item.get_closest_marker("slow") is None)


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # thousands of tests and all of what they import: nobody need look through them again
    gc.enable()


def pytest_unconfigure() -> None:
    if _embedded is not None:
        _embedded.stop()
    for folder in _folders:
        shutil.rmtree(folder, ignore_errors=True)


def _folder(prefix: str) -> str:
    """A temporary folder that goes when the tests end."""
    _folders.append(tempfile.mkdtemp(prefix=prefix))
    return _folders[-1]


def _prepare(worker: str) -> str:
    """A migrated database for this process, which its environment names; its name."""
    superuser, redis_url = os.environ[SERVERS].split()
    name, template = f"test_{worker}_{os.getpid()}", os.environ.get(TEMPLATE)
    with psycopg.connect(superuser, autocommit=True) as connection:
        if template:
            connection.execute(f"CREATE DATABASE {name} OWNER edgeflow TEMPLATE {template}")
        else:
            connection.execute(
                "DO $$ BEGIN CREATE ROLE edgeflow LOGIN CREATEROLE NOSUPERUSER PASSWORD 'edgeflow'; "
                "EXCEPTION WHEN duplicate_object THEN NULL; END $$"
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
    for variable in [variable for variable in os.environ if variable.startswith("STRIPE_")]:
        del os.environ[variable]  # a person's own account is none of the tests' business
    if not template:
        command = [sys.executable, "-m", "alembic", "-c", "migrations/alembic.ini", "upgrade", "head"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return name


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


@pytest.fixture(scope="session")
def gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two web processes, nothing else.

    Tests that use it share it: mark them ``pytest.mark.xdist_group("gateways")``.
    """
    from tests.platform import Platform

    with Platform(tmp_path_factory.mktemp("gateways"), web=2, parts=()) as running:
        yield running


def pytest_runtest_setup(item: pytest.Item) -> None:
    """The platform's worker and scheduler work on this process's database: they rest while other tests use it."""
    if _platform is not None:
        if "platform" in getattr(item, "fixturenames", ()):
            _platform.resume()
        else:
            _platform.rest()
