"""Flask as this API needs it: one transaction a request, and nothing done that no request needs."""

from collections.abc import Callable
from typing import Any

from flask import Flask, Request
from flask.globals import request_ctx
from flask.sessions import NullSession, SessionInterface
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.routing import MapAdapter

from app import db
from app.api import Json

MAX_BODY_BYTES = 2 * 1024 * 1024


class NoSessions(SessionInterface):
    """No cookies: callers send their credentials with each request."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none


class EdgeFlow(Flask):
    """Flask, with one transaction around each request's view: it commits before the answer leaves."""

    json_provider_class = Json
    session_interface = NoSessions()

    def dispatch_request(self) -> ResponseReturnValue:
        asked = request_ctx.request
        rule = asked.url_rule
        if rule is None or rule.websocket:
            return super().dispatch_request()
        _read_body(asked)
        with db.unit():
            return super().dispatch_request()

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """As it is: no view is a coroutine, and the question is asked several times a request."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """As Flask's for one host and no subdomains, without parsing the same ``Host`` three times a request."""
        environ = request.environ if request is not None else {}
        if request is None or "HTTP_UPGRADE" in environ:
            return super().create_url_adapter(request)
        return MapAdapter(
            self.url_map, request.host.lower(), environ.get("SCRIPT_NAME") or "/", "", environ["wsgi.url_scheme"],
            request.path, environ["REQUEST_METHOD"], environ.get("QUERY_STRING", ""),
        )  # fmt: skip


def _read_body(asked: Request) -> None:
    """Have the body before a database connection: whoever sends it a byte at a time holds nothing of others' up.

    Raises RequestEntityTooLarge, also for a body of untold length, which would otherwise be cut off at the limit.
    """
    if "CONTENT_LENGTH" not in asked.environ and "HTTP_TRANSFER_ENCODING" not in asked.environ:
        return
    body = asked.get_data(cache=True)
    if asked.content_length is None and len(body) >= MAX_BODY_BYTES:
        raise RequestEntityTooLarge
