"""In front of the API: requests for an editor's origin go to its device, all others on to the API, and never across."""

import http
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

import structlog
from prometheus_client import Counter
from sqlalchemy.exc import SQLAlchemyError

from app import limits, log_context
from app.edge_nodes.editor import checks, headers, pages, proxy, sessions
from app.edge_nodes.editor.origin import Place, place_of
from app.edge_nodes.editor.pages import Refused, StartResponse
from app.edge_nodes.editor.sessions import Access, NoSession
from app.errors import RateLimited
from config.settings import settings

log = structlog.get_logger("editor")

REQUESTS = Counter("edgeflow_editor_requests_total", "Requests to editors", ["status"])
REFUSED = Counter("edgeflow_editor_refused_total", "Requests to editors that reached no device", ["why"])

OURS = "/__edgeflow/"
OPEN = f"{OURS}open"

Environ = dict[str, Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


class EditorGate:
    """A WSGI application around the API's."""

    def __init__(self, api: Application) -> None:
        self._api = api

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        place = place_of(str(environ.get("HTTP_HOST", "")))
        return self._api(environ, start_response) if place is None else _serve(environ, start_response, place)


def _serve(environ: Environ, start_response: StartResponse, place: Place) -> Iterable[bytes]:
    log_context.begin(device_id=place.device_id)
    started = time.perf_counter()

    def start(status: str, given: Any) -> Any:
        _told(environ, int(status[:3]), time.perf_counter() - started)
        return start_response(status, given)

    try:
        return _answer(environ, start, place)
    except StopIteration:  # a WebSocket that has ended
        _told(environ, 101, time.perf_counter() - started)
        raise
    except Refused as refused:
        REFUSED.labels(refused.why).inc()
        return pages.answer(refused, start)
    except RateLimited as limited:
        return pages.answer(Refused(429, "Too many requests", "Wait a minute.", "limit", **_wait(limited)), start)
    except SQLAlchemyError as error:
        log.error("database away", error=str(error).splitlines()[0])
        return pages.answer(Refused(503, "Briefly unavailable", "Try again.", "database", Retry_After="2"), start)


def _answer(environ: Environ, start: StartResponse, place: Place) -> Iterable[bytes]:
    target = checks.target(environ)
    checks.check(environ, place)
    path = target.partition("?")[0]
    if path == OPEN and environ["REQUEST_METHOD"] == "GET":
        return _open(environ, start, place)
    if path.startswith(OURS) or path == OURS.rstrip("/"):
        raise Refused(404, "Nothing here", "There is no such page.", "path")
    access = _access(environ, place)
    log_context.bind(org_id=access.org_id, actor=access.actor)
    if access.read_only:
        checks.check_reading(environ)
    return proxy.forward(environ, start, place, access, target)


def _open(environ: Environ, start: StartResponse, place: Place) -> Iterable[bytes]:
    """Trade the ticket for a cookie, and go to the editor."""
    if environ.get("HTTP_SEC_PURPOSE") or environ.get("HTTP_PURPOSE"):
        raise Refused(403, "Not allowed", "A link that opens once cannot be fetched ahead.", "ticket")
    ticket = parse_qs(str(environ.get("QUERY_STRING", ""))).get("ticket", [""])[0]
    try:
        cookie = sessions.redeem(ticket, place.device_id)
    except NoSession as none:
        _count_failure(environ)
        raise pages.not_signed_in(str(none)) from None
    secure = "; Secure" if place.secure else ""
    value = f"{headers.COOKIES[place.secure]}={cookie}; Path=/; HttpOnly; SameSite=Lax{secure}"
    start(
        f"303 {http.HTTPStatus(303).phrase}",
        [
            ("Location", "/"), ("Set-Cookie", value), ("Cache-Control", "no-store"), ("Content-Length", "0"),
            ("Referrer-Policy", "no-referrer"),
        ],
    )  # fmt: skip
    return []


def _access(environ: Environ, place: Place) -> Access:
    try:
        return sessions.identify(headers.cookies_of(str(environ.get("HTTP_COOKIE", ""))), place.device_id)
    except NoSession as none:
        _count_failure(environ)
        raise pages.not_signed_in(str(none)) from None


def _count_failure(environ: Environ) -> None:
    limits.hit("failed-auth", str(environ.get("REMOTE_ADDR") or "unknown"), settings().rate_limit_ip)


def _wait(limited: RateLimited) -> dict[str, str]:
    return {"Retry_After": limited.headers["Retry-After"]}


def _told(environ: Environ, status: int, seconds: float) -> None:
    REQUESTS.labels(str(status)).inc()
    log.info("editor request", method=environ["REQUEST_METHOD"], status=status, ms=round(seconds * 1000, 1),
             path=str(environ.get("RAW_URI", "")).partition("?")[0][:200])  # fmt: skip
