"""Flask as this API needs it: one transaction a request, and nothing done that no request needs."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

from flask import Flask, Request, Response
from flask.globals import request_ctx
from flask.sessions import NullSession, SessionInterface
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.routing import Map, MapAdapter, Rule, RuleFactory

from app import db
from app.api import Json

MAX_BODY_BYTES = 2 * 1024 * 1024
PATHS, PATH_CHARACTERS = 10_000, 200  # that are remembered, and how long they may be


class NoSessions(SessionInterface):
    """No cookies: callers send their credentials with each request."""

    _none = NullSession()

    def open_session(self, app: Flask, request: Request) -> NullSession:
        return self._none


class Paths(Map):
    """The routes, and where paths that were asked for led to: the same ones are asked for again and again."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.matched: dict[tuple[str, str], tuple[Rule, dict[str, Any]]] = {}

    def add(self, rulefactory: RuleFactory) -> None:
        self.matched.clear()
        super().add(rulefactory)


class Router(MapAdapter):
    """Where one request goes."""

    map: Paths

    def match(self, *args: Any, return_rule: bool = False, **kwargs: Any) -> Any:
        asked = (self.default_method, self.path_info)
        known = self.map.matched.get(asked) if return_rule else None
        if known is not None:
            return known[0], known[1].copy()
        found: Any = super().match(*args, return_rule=return_rule, **kwargs)  # type: ignore[call-overload]
        if return_rule and len(self.path_info) <= PATH_CHARACTERS:
            if len(self.map.matched) >= PATHS:
                self.map.matched.clear()
            self.map.matched[asked] = found[0], dict(found[1])
        return found


class PlainResponse(Response):
    """A response, which leaves as it is if it is whole: most are."""

    def get_wsgi_response(self, environ: Any) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        body: Any = self.response
        whole = type(body) is list and len(body) == 1 and type(body[0]) is bytes and not self._on_close
        if self.status_code == 200 and whole and environ["REQUEST_METHOD"] != "HEAD":
            headers = self.headers.to_wsgi_list()
            names = {name.lower() for name, _value in headers}
            if "content-length" in names and names.isdisjoint(_REWRITTEN):
                return body, self.status, headers
        return super().get_wsgi_response(environ)


_REWRITTEN = frozenset({"location", "content-location"})


class EdgeFlow(Flask):
    """Flask, with one transaction around each request's view: it commits before the answer leaves."""

    response_class = PlainResponse
    json_provider_class = Json
    session_interface = NoSessions()
    url_map_class = Paths

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
        return Router(
            self.url_map, _server_name(request.host), environ.get("SCRIPT_NAME") or "/", "", environ["wsgi.url_scheme"],
            request.path, environ["REQUEST_METHOD"], environ.get("QUERY_STRING", ""),
        )  # fmt: skip


@lru_cache(maxsize=1024)
def _server_name(host: str) -> str:
    """Raises werkzeug's BadHost."""
    return Map().bind(host.lower()).server_name


def _read_body(asked: Request) -> None:
    """Have the body before a database connection: whoever sends it a byte at a time holds nothing of others' up.

    Raises RequestEntityTooLarge, also for a body of untold length, which would otherwise be cut off at the limit.
    """
    if "CONTENT_LENGTH" not in asked.environ and "HTTP_TRANSFER_ENCODING" not in asked.environ:
        return
    body = asked.get_data(cache=True)
    if asked.content_length is None and len(body) >= MAX_BODY_BYTES:
        raise RequestEntityTooLarge
