"""What operators and load balancers ask: alive, ready, metrics."""

import hmac
import os

import redis
import structlog
from flask import Blueprint, Response, request
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest, multiprocess
from prometheus_client.registry import REGISTRY
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app import db, processes
from app.errors import NotFound
from app.redis import client
from config.settings import settings

log = structlog.get_logger(__name__)

blp = Blueprint("health", __name__)

SCHEMA_REVISION = "0011"


@blp.get("/healthz")
def healthz() -> Response:
    """The process answers."""
    return Response("ok\n", mimetype="text/plain")


@blp.get("/readyz")
def readyz() -> tuple[dict[str, object], int]:
    """PostgreSQL, its migrations, Redis and a live worker: 200 when all are there, else 503 with what is not."""
    answering = _postgresql()
    checks = {
        "postgresql": answering,
        "migrations": answering and _migrated(),
        "redis": _redis(),
        "worker": answering and _worker(),
    }
    ready = all(checks.values())
    return {"ready": ready, "checks": checks}, 200 if ready else 503


@blp.get("/internal/metrics")
def metrics() -> Response:
    """Prometheus text format, of all web processes of this host. By token, or from loopback where none is set."""
    if not _operator():
        raise NotFound()
    registry = REGISTRY
    if multiprocess_dir():
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def multiprocess_dir() -> str | None:
    """Where the web processes of a host share their counters, if gunicorn's configuration set one up."""
    return os.environ.get("PROMETHEUS_MULTIPROC_DIR")


def _operator() -> bool:
    token = settings().metrics_token
    if token:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(given.encode(), token.encode())
    return request.remote_addr in ("127.0.0.1", "::1") and "X-Forwarded-For" not in request.headers


def _postgresql() -> bool:
    try:
        with db.transaction() as session:
            return session.scalar(text("SELECT 1")) == 1
    except SQLAlchemyError as error:
        return _without("postgresql", error)


def _migrated() -> bool:
    try:
        with db.transaction() as session:
            return session.scalar(text("SELECT version_num FROM alembic_version")) == SCHEMA_REVISION
    except SQLAlchemyError as error:
        return _without("migrations", error)


def _redis() -> bool:
    try:
        return bool(client().ping())
    except (redis.RedisError, OSError) as error:
        return _without("redis", error)


def _worker() -> bool:
    try:
        return processes.alive("worker")
    except SQLAlchemyError as error:
        return _without("worker", error)


def _without(check: str, error: Exception) -> bool:
    """Not ready: the answer says which check it was, the log why."""
    log.warning("not ready", check=check, error=str(error).partition("\n")[0])
    return False
