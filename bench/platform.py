"""The platform that benchmarks measure: servers of its own on free ports, processes as an operator runs them.

One ``House`` for each benchmark process: it also points this process's settings at its database, so that ``tests.make``
and the application's own code work on it.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from uuid import UUID, uuid4

import httpx
import psutil
from sqlalchemy import text

from app import db
from app.tokens import digest, new_token
from config import embedded
from tests.platform import ROOT, Platform

PASSWORD = "correct horse battery staple"
PRODUCTION = {
    "EDGEFLOW_LOG_FORMAT": "json",
    "EDGEFLOW_LOG_LEVEL": "INFO",
    "EDGEFLOW_RATE_LIMITS": "1",
    # Fleets and points of organizations that have just registered: no plan of theirs would hold them.
    "EDGEFLOW_BILLING": "off",
    # The limits count as they do in production, and are never reached.
    **{f"EDGEFLOW_RATE_LIMIT_{name}": "100000000 per minute" for name in ("IP", "USER", "ORG", "AUTH")},
}
"""What processes are told beside their URLs: they log and count as in production."""

Member = tuple[UUID, str]
"""A device's id and its key."""


class House:
    """PostgreSQL and Valkey in a temporary folder, migrated, and the platform's processes on them.

    ``web``: separate gunicorns with one process each. ``durable=False`` leaves fsync out, for tests of the benchmarks.
    """

    def __init__(
        self,
        *,
        web: int = 1,
        parts: tuple[str, ...] = ("worker", "scheduler"),
        environ: dict[str, str] | None = None,
        durable: bool = True,
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="edgeflow-bench-"))
        try:
            self._servers = embedded.start(self.folder / "data", durable=durable)
        except BaseException:
            shutil.rmtree(self.folder, ignore_errors=True)
            raise
        self.superuser_url = self._servers.superuser_url.rsplit("/", 1)[0] + "/edgeflow"
        os.environ.update(
            PRODUCTION,
            EDGEFLOW_SECRET_KEY=secrets.token_urlsafe(48),
            EDGEFLOW_JWT_SECRET_KEY=secrets.token_urlsafe(48),
            DATABASE_URL=self._servers.database_url,
            REDIS_URL=self._servers.redis_url,
            EDGEFLOW_DATA_DIR=str(self.folder / "data"),
            **(environ or {}),
        )
        self.platform = Platform(self.folder, web=web, environ=dict(os.environ), parts=parts)

    def __enter__(self) -> "House":
        try:
            command = [sys.executable, "-m", "alembic", "-c", "migrations/alembic.ini", "upgrade", "head"]
            subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
            self.platform.__enter__()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.platform.__exit__(kind, error, trace)
        self._servers.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, number: int = 0) -> str:
        """``http://127.0.0.1:PORT`` of the web process ``number``."""
        return self.platform.url(number)

    def serving(self, number: int = 0) -> psutil.Process:
        """The process that answers for ``web<number>``: the only child of its gunicorn."""
        (child,) = psutil.Process(self.platform.processes[f"web{number}"].pid).children()
        return child

    def sign_up(self) -> tuple[UUID, str]:
        """A fresh organization and its owner's access token (good for 15 minutes)."""
        body = {
            "email": f"{uuid4().hex}@example.com", "password": PASSWORD, "name": "Ada", "organization_name": "Acme",
        }  # fmt: skip
        answer = httpx.post(f"{self.url()}/api/v1/auth/register", json=body, timeout=30)
        answer.raise_for_status()
        given = answer.json()
        return UUID(given["organization"]["id"]), given["access_token"]


def devices(count: int, org_id: UUID, **fields: object) -> list[Member]:
    """Registered devices, made set-wise: thousands take a second. ``fields``: ``tags``."""
    made = [(uuid4(), new_token("device")) for _ in range(count)]
    values = {
        "org": org_id,
        "ids": [device_id for device_id, _key in made],
        "hashes": [digest(key) for _device_id, key in made],
        "names": [f"device-{number:05d}" for number in range(count)],
        "tags": fields.get("tags", []),
    }
    given = "unnest(CAST(:ids AS uuid[]), CAST(:hashes AS bytea[]), CAST(:names AS text[])) AS g (id, hash, name)"
    with db.transaction(org_id) as session:
        for statement in (
            f"INSERT INTO devices (org_id, id, name, tags) SELECT :org, id, name, CAST(:tags AS text[]) FROM {given}",
            f"INSERT INTO device_keys (org_id, device_id, key_hash) SELECT :org, id, hash FROM {given}",
            f"INSERT INTO shadows (org_id, device_id) SELECT :org, id FROM {given}",
        ):
            session.execute(text(statement), values)
    return made
