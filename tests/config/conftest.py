"""What the launcher's tests share."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.launch import leftovers


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """A data folder with a space in its path; whatever a test leaves running in it is ended.

    Not below pytest's own, which is closed to the user that PostgreSQL runs as when the tests run as root.
    """
    base = Path(tempfile.mkdtemp(prefix="edgeflow-launch-"))
    base.chmod(0o755)
    path = base / "data folder"
    yield path
    leftovers.end_marked(path, patience=3)
    leftovers.stop_servers(path / "postgres", "postgres", signal.SIGINT)
    leftovers.stop_servers(path / "valkey", "valkey-server", signal.SIGTERM)
    shutil.rmtree(base)
