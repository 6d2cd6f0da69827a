"""Structured logs with a request id that follows a request into its jobs and commands; secrets redacted; metrics."""

import json
import logging
import re
import sys
import time
from collections.abc import MutableMapping
from contextlib import nullcontext, suppress
from functools import lru_cache
from typing import Any
from uuid import uuid4

import orjson
import structlog
from flask import Flask, Response, g, request
from prometheus_client import Counter, Histogram

from app import cards
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
_HARMLESS = frozenset({float, bool, type(None)})
_REQUEST_FIELDS = ("method", "path", "status", "ms")
_QUIET = ("/healthz", "/readyz", "/internal/metrics")


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
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: Any = json_line if settings.logs_json else readable
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processor=renderer))
    structlog.configure(
        processors=[*shared, renderer],
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
    counted, timed = _series(request.method, route, response.status_code)
    counted.inc()
    timed.observe(seconds)
    websocket = request.url_rule is not None and request.url_rule.websocket
    if request.path not in _QUIET and not websocket:
        log.info(
            "request", method=request.method, path=request.path, status=response.status_code,
            ms=round(seconds * 1000, 1),
        )  # fmt: skip
    return response
