"""Routes of logs."""

from typing import Any
from uuid import UUID

from flask import Response, request
from flask.views import MethodView

from app import api_streams, db
from app.api import Blueprint
from app.auth.roles import Role
from app.devices import service as devices
from app.logs import queries, tail
from app.logs.schemas import (
    LOG_LINES,
    LOG_STREAM,
    NDJSON,
    LogQuery,
    LogRead,
    LogsRead,
    LogStreamHeaders,
    LogStreamQuery,
    OrganizationLogQuery,
)
from app.organizations.access import current, requires
from app.pagination import next_page

blp = Blueprint("logs", __name__, description="Logs: what devices sent and what the platform saw.")


@blp.route("/logs")
class Logs(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(OrganizationLogQuery, location="query")
    @blp.response(200, LogsRead)
    @blp.doc(responses=LOG_LINES)
    def get(self, query: dict[str, Any]) -> Any:
        """Query the organization's logs, newest first.

        With `Accept: application/x-ndjson` each entry is a line; a `Link` header with `rel="next"` leads on.
        """
        return _page(query)


@blp.route("/logs/devices/<uuid:device_id>")
class DeviceLogs(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(LogQuery, location="query")
    @blp.response(200, LogsRead)
    @blp.doc(responses=LOG_LINES)
    @blp.errors(404)
    def get(self, query: dict[str, Any], device_id: UUID) -> Any:
        """Query a device's logs, newest first.

        A deleted device's are found by `device_id` among the organization's.
        """
        devices.get(current.org, device_id)
        return _page({**query, "device_id": device_id})


@blp.route("/logs/stream")
class LogStream(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(LogStreamQuery, location="query")
    @blp.arguments(LogStreamHeaders, location="headers")
    @blp.doc(responses=LOG_STREAM)
    def get(self, query: dict[str, Any], headers: dict[str, Any]) -> Response:
        """Follow the organization's logs as they are written.

        Server-sent events `log`, from now on or after `Last-Event-ID`: none is missed or comes twice. An event
        `refused` ends the stream when the caller may not read it any more.
        """
        start = tail.place(headers["last_event_id"]) if "last_event_id" in headers else tail.now()
        if request.method == "HEAD":
            return Response(mimetype="text/event-stream", headers=api_streams.HEADERS)
        return api_streams.answer(tail.CHANNEL, current.org, tail.Tail(current.org, start, LogRead(), **query))


def _page(query: dict[str, Any]) -> Any:
    page = queries.page(current.org, **query)
    link = next_page(page["next_cursor"])
    if request.accept_mimetypes.best_match(("application/json", NDJSON)) != NDJSON:
        return page, link
    lines = "".join(db.as_json(entry) + "\n" for entry in LogsRead().dump(page)["items"])
    return Response(lines, mimetype=NDJSON, headers=link)
