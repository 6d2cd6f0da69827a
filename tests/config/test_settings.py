"""A value that cannot be used stops every process with one line that names its variable."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from config.settings import SettingsError, load

ROOT = Path(__file__).resolve().parents[2]
PRODUCTION = {
    "EDGEFLOW_ENV": "production",
    "EDGEFLOW_SECRET_KEY": "s" * 40,
    "EDGEFLOW_JWT_SECRET_KEY": "j" * 40,
    "DATABASE_URL": "postgresql://login:pass@db.example.com/edgeflow",
    "REDIS_URL": "redis://redis.example.com:6379/0",
}
PROCESSES = {
    "web": ["gunicorn", "-c", "config/gunicorn.py", "wsgi:app"],
    "worker": ["dramatiq", "workers", "--processes", "1", "--threads", "1"],
    "scheduler": ["scheduler"],
    "migrate": ["alembic", "-c", "migrations/alembic.ini", "current"],
    "make run": ["config.supervisor"],
}


def test_a_production_environment_that_lacks_nothing_is_taken() -> None:
    assert load(PRODUCTION).logs_json


@pytest.mark.parametrize("name", sorted(PRODUCTION.keys() - {"EDGEFLOW_ENV"}))
def test_what_production_lacks_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: required"):
        load({**PRODUCTION, name: ""})


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("EDGEFLOW_PORT", "http"),
        ("EDGEFLOW_PORT", "70000"),
        ("EDGEFLOW_OFFLINE_AFTER", "nan"),
        ("EDGEFLOW_RATE_LIMIT_IP", "plenty"),
        ("EDGEFLOW_RATE_LIMITS", "perhaps"),
        ("EDGEFLOW_SECRET_KEY", "short-and-private"),
        ("DATABASE_URL", "mysql://login:private@db/x"),
        ("DATABASE_URL", "postgresql://login:pri/vate@db/x"),
        ("REDIS_URL", "redis://[private"),
    ],
)
def test_a_malformed_value_is_named_and_a_secret_one_not_shown(name: str, raw: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: ") as refused:
        load({**PRODUCTION, name: raw})
    assert "\n" not in str(refused.value)
    assert "pri" not in str(refused.value)


@pytest.mark.parametrize("process", PROCESSES)
def test_each_process_ends_with_that_line_and_no_traceback(process: str, tmp_path: Path) -> None:
    environ = {**os.environ, **PRODUCTION, "EDGEFLOW_DATA_DIR": str(tmp_path), "EDGEFLOW_WEB_WORKERS": "many"}
    command = [sys.executable, "-m", *PROCESSES[process]]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False)
    output = done.stdout + done.stderr
    assert done.returncode == 1, output
    assert "cannot start: EDGEFLOW_WEB_WORKERS: 'many' is not valid: must be a whole number" in output
    assert "Traceback" not in output
