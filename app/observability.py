"""Structured logs with a request id that follows a request into its jobs and commands; secrets redacted; metrics."""

import json
import logging
import re
import sys
import time
from collections.abc import MutableMapping
from contextlib import nullcontext, suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson
import structlog
from flask import Flask, Response
from flask.globals import app_ctx, request_ctx
from prometheus_client import Counter, Histogram
from structlog.processors import format_exc_info

from app import cards, ids, log_context
from config.settings import Settings

log = structlog.get_logger("http")

REQUESTS = Counter("edgeflow_http_requests_total", "HTTP requests", ["method", "route", "status"])
SECONDS = Histogram("edgeflow_http_request_seconds", "Time to answer a request", ["method", "route"])

_SECRET_KEYS = re.compile(r"(password|secret|token|api_key|authorization|cookie|provisioning_code)", re.IGNORECASE)
_SECRET_VALUES = re.compile(
    r"\b(?:device|edgeflow|code|invite|refresh)_[A-Za-z0-9_-]{20,}|\beyJ[\w-]+\.[\w-]+\.[\w-]+|://[^:/@\s]*:[^@/\s]+@"
    r"|\b(?:sk|rk)_(?:test|live)_\w+|\bwhsec_\w+|\b(?:pi|seti|in)_\w+_secret_\w+"  # Stripe's
)
REDACTED = "[redacted]"
_CARDS_FROM = 10**12
_SHORT = 128
_HARMLESS = frozenset({float, bool, type(None), UUID})
_LEVELS = {"warn": "warning", "exception": "error"}
_REQUEST_ID = re.compile(r"[\w.-]{1,64}")
_REQUEST_FIELDS = ("method", "path", "status", "ms")
_QUIET = ("/healthz", "/readyz", "/internal/metrics")


def complete(logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Add what every line says, and keep secrets out of all else: what takes six of structlog's own processors."""
    for key, value in log_context.fields().items():
        event.setdefault(key, value)
    if "exc_info" in event:
        event = format_exc_info(logger, method, event)
    record = event.get("_record")  # of the standard library, where another package logs by that
    redact(logger, method, event)
    event["level"] = _LEVELS.get(method, method)
    event["logger"] = record.name if record else logger.name
    event["timestamp"] = datetime.now(UTC).isoformat()[:-6] + "Z"
    return event


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Keep secrets out of a log line: by the names of fields, by what our tokens, URLs and cards' numbers look like."""
    for key, value in event.items():
        if _is_secret(key):
            event[key] = REDACTED
        elif type(value) is int:
            event[key] = REDACTED if value >= _CARDS_FROM and cards.issued(str(value)) else value
        elif type(value) not in _HARMLESS:
            text = value if isinstance(value, str) else str(value)
            event[key] = _cleaned(text) if len(text) <= _SHORT else _clean(text)
    return event


def _clean(text: str) -> str:
    told = cards.masked(text, REDACTED)
    return _SECRET_VALUES.sub(REDACTED, told) if "_" in told or "eyJ" in told or "://" in told else told


_cleaned = lru_cache(maxsize=4096)(_clean)  # names of actors, organizations and paths come again and again


@lru_cache(maxsize=1024)
def _is_secret(key: str) -> bool:
    return _SECRET_KEYS.search(key) is not None


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
    """Log to standard output, one line an event: JSON in production, readable text else.

    Our own events are rendered and written at once; those of libraries take the standard library's way there.
    """
    renderer: Any = json_line if settings.logs_json else readable
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=[complete], processor=renderer))
    structlog.configure(
        processors=[complete, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        logger_factory=lambda *names: Lines(handler, *names),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for noisy in ("apscheduler", "flask-limiter", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class Lines:
    """What a structlog logger writes to: whole lines into the stream of a handler, under its lock."""

    def __init__(self, handler: "logging.StreamHandler[Any]", name: str = "") -> None:
        self._handler, self.name = handler, name

    def write(self, line: str) -> None:
        stream = self._handler.stream
        with suppress(OSError, ValueError), self._handler.lock or nullcontext():  # closed: nobody can be told
            try:
                stream.write(line + "\n")
            except UnicodeEncodeError:
                stream.write(line.encode("ascii", "backslashreplace").decode() + "\n")
            stream.flush()

    debug = info = warning = error = critical = exception = write


def json_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """The event as one line of JSON."""
    try:
        return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:  # an integer over 64 bits, half a surrogate
        return json.dumps(event, default=str)


def observe_requests(app: Flask) -> None:
    """Give every request an id, log it once it is answered, and count it."""
    app.before_request(_begin)
    app.after_request(_end)


@lru_cache(maxsize=4096)
def _series(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    """The metrics of such a request, found once."""
    return REQUESTS.labels(method, route, status), SECONDS.labels(method, route)


def _begin() -> None:
    given = request_ctx.request.headers.get("X-Request-Id")
    noted = app_ctx.g
    noted.request_id = given if given and _REQUEST_ID.fullmatch(given) else ids.request_id()
    noted.started = time.perf_counter()
    log_context.begin(request_id=noted.request_id)


def _end(response: Response) -> Response:
    noted, asked = app_ctx.g, request_ctx.request  # once: each is looked up in the context
    if "started" not in noted:  # the request did not reach us (a malformed one)
        return response
    response.headers["X-Request-Id"] = noted.request_id
    seconds = time.perf_counter() - noted.started
    rule = asked.url_rule
    counted, timed = _series(asked.method, rule.rule if rule else "none", response.status_code)
    counted.inc()
    timed.observe(seconds)
    if asked.path not in _QUIET and not (rule and rule.websocket):
        log.info(
            "request", method=asked.method, path=asked.path, status=response.status_code, ms=round(seconds * 1000, 1)
        )
    return response
