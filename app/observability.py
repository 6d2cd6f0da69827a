"""Structured logs with a request id that follows a request into its jobs and commands; secrets redacted; metrics."""

import logging
import re
import sys
import time
from collections.abc import MutableMapping
from typing import Any
from uuid import uuid4

import structlog
from flask import Flask, Response, g, request
from prometheus_client import Counter, Histogram

from config.settings import Settings

log = structlog.get_logger("http")

REQUESTS = Counter("edgeflow_http_requests_total", "HTTP requests", ["method", "route", "status"])
SECONDS = Histogram("edgeflow_http_request_seconds", "Time to answer a request", ["method", "route"])

_SECRET_KEYS = re.compile(r"(password|secret|token|api_key|authorization|cookie|provisioning_code)", re.IGNORECASE)
_SECRET_VALUES = re.compile(
    r"\b(?:device|edgeflow|code|invite|refresh)_[A-Za-z0-9_-]{20,}|\beyJ[\w-]+\.[\w-]+\.[\w-]+|://[^:/@\s]*:[^@/\s]+@"
)
REDACTED = "[redacted]"
_REQUEST_FIELDS = ("method", "path", "status", "ms")
_QUIET = ("/healthz", "/readyz", "/internal/metrics")


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep secrets out of a log line: by the names of fields, and by what our tokens and URLs look like."""
    for key, value in event.items():
        if _SECRET_KEYS.search(key):
            event[key] = REDACTED
        elif isinstance(value, str):
            event[key] = _SECRET_VALUES.sub(REDACTED, value)
        elif not isinstance(value, int | float | bool | None):
            event[key] = _SECRET_VALUES.sub(REDACTED, str(value))
    return event


def readable(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """A line for a person: the time of day, the level if it is more than information, what happened, with what."""
    at = event.pop("timestamp", "")[11:19]
    level = event.pop("level", "info")
    trace = event.pop("exception", None)
    event.pop("logger", None)
    what = event.pop("event", "")
    if what == "request":
        what = "{method:<6} {path} {status} in {ms} ms".format(**{key: event.pop(key) for key in _REQUEST_FIELDS})
    fields = " ".join(f"{key}={value}" for key, value in event.items() if value is not None)
    shout = "" if level in ("info", "debug") else f"{level.upper()} "
    return f"{at} {shout}{what}" + (f"  {fields}" if fields else "") + (f"\n{trace}" if trace else "")


def configure_logging(settings: Settings) -> None:
    """Log to standard output, one line an event: JSON in production, readable text else."""
    as_json = settings.logs_json
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Any = structlog.processors.JSONRenderer() if as_json else readable
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processor=renderer))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for noisy in ("apscheduler", "flask-limiter", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def observe_requests(app: Flask) -> None:
    """Give every request an id, log it once it is answered, and count it."""
    app.before_request(_begin)
    app.after_request(_end)


def _begin() -> None:
    given = request.headers.get("X-Request-Id", "")
    g.request_id = given if re.fullmatch(r"[\w.-]{1,64}", given) else uuid4().hex
    g.started = time.perf_counter()
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def _end(response: Response) -> Response:
    if "started" not in g:  # the request did not reach us (a malformed one)
        return response
    response.headers["X-Request-Id"] = g.request_id
    seconds = time.perf_counter() - g.started
    route = request.url_rule.rule if request.url_rule else "none"
    REQUESTS.labels(request.method, route, response.status_code).inc()
    SECONDS.labels(request.method, route).observe(seconds)
    websocket = request.url_rule is not None and request.url_rule.websocket
    if request.path not in _QUIET and not websocket:
        log.info(
            "request", method=request.method, path=request.path, status=response.status_code,
            ms=round(seconds * 1000, 1),
        )  # fmt: skip
    return response
