"""What Flask is spared: each short way leads where the long one does."""

from functools import partial
from typing import Any

import flask
import pytest
from flask import Response
from hypothesis import given
from hypothesis import strategies as st
from marshmallow import Schema, fields, post_load, validate
from werkzeug.exceptions import BadHost, HTTPException
from werkzeug.routing import MapAdapter
from werkzeug.test import EnvironBuilder

from app import framework
from app.api import _defaults, _schema
from app.api_schema import Query
from app.framework import EdgeFlow, PlainResponse, Router

ID = "3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c"
KNOWN = [f"/api/v1/edge-nodes/{ID}/health", "/api/v1/devices", f"/api/v1/devices/{ID}", "/healthz", "/api/v1/docs"]
ODD = ["", "/", "//api//v1/devices", "/api/v1/devices/", "/api/v1/edge-nodes/no-id/health", "/tunnel", "/%2e%2e", "/é"]
paths = st.sampled_from(KNOWN + ODD) | st.text(max_size=20).map(lambda text: f"/api/v1/{text.replace('?', '')}")
methods = st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
hosts = st.sampled_from(["127.0.0.1:8000", "example.com", "Example.COM:80", "[::1]:9", "a b", "", "x" * 300])


def outcome(adapter: Any) -> Any:
    try:
        rule, values = adapter.match(return_rule=True)
    except HTTPException as error:
        return type(error), error.code, getattr(error, "new_url", None)
    return rule, dict(values)


def environ(path: str, method: str, host: str, **more: Any) -> dict[str, Any]:
    made: dict[str, Any] = EnvironBuilder(path=path, method=method, base_url="http://x/", **more).get_environ()
    return {**made, "HTTP_HOST": host}


def bound(create: Any, asked: Any) -> Any:
    try:
        return create(asked)
    except BadHost as error:
        return type(error)


@given(path=paths, method=methods, host=hosts, query=st.sampled_from(["", "limit=5"]))
def test_a_request_is_routed_as_flask_does_it_the_first_time_and_after_that(
    app: Any, path: str, method: str, host: str, query: str
) -> None:
    asked = app.request_class(environ(path, method, host, query_string=query))
    ours, theirs = bound(app.create_url_adapter, asked), bound(partial(flask.Flask.create_url_adapter, app), asked)
    if theirs is BadHost:
        assert ours is BadHost
        return
    assert (type(ours), type(theirs)) == (Router, MapAdapter)
    for name in ("server_name", "url_scheme", "subdomain", "default_method", "query_args", "websocket"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.script_name.rstrip("/") == theirs.script_name.rstrip("/")
    expected = outcome(theirs)
    assert [outcome(ours), outcome(ours), outcome(app.create_url_adapter(asked))] == [expected] * 3


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> EdgeFlow:
    monkeypatch.setattr(framework, "PATHS", 3)
    made = EdgeFlow(__name__)
    made.add_url_rule("/things/<name>", "thing", lambda name: {"name": name})
    return made


def test_only_so_many_paths_are_remembered_and_none_that_is_long_or_leads_nowhere(small: EdgeFlow) -> None:
    client = small.test_client()
    for number in range(10):
        assert client.get(f"/things/{number}").json == {"name": str(number)}
        assert len(small.url_map.matched) <= 3
    small.url_map.matched.clear()
    assert client.get("/things/" + "x" * 300).status_code == 200
    assert client.get("/nothing").status_code == 404
    assert small.url_map.matched == {}


def test_what_a_view_does_to_its_values_is_not_remembered(small: EdgeFlow) -> None:
    @small.before_request
    def change() -> None:
        values = flask.request.view_args
        assert values is not None
        values["name"] += "!"

    assert [small.test_client().get("/things/a").json for _ in range(2)] == [{"name": "a!"}] * 2


def test_a_route_that_is_added_later_counts(small: EdgeFlow) -> None:
    assert small.test_client().get("/things/a").json == {"name": "a"}
    small._got_first_request = False  # Flask itself refuses it from then on
    small.add_url_rule("/things/a", "special", lambda: {"name": "special"})
    assert small.test_client().get("/things/a").json == {"name": "special"}


ANSWERS: dict[str, Any] = {
    "whole": lambda kind: kind(b'{"a": 1}\n', mimetype="application/json"),
    "with a cookie": lambda kind: kind("text", headers=[("Set-Cookie", "a=b"), ("Set-Cookie", "c=d")]),
    "created": lambda kind: kind(b"{}", status=201, headers={"Location": "/api/v1/things/ä"}),
    "moved content": lambda kind: kind(b"{}", headers={"Content-Location": "/ä"}),
    "empty": lambda kind: kind(status=204),
    "not modified": lambda kind: kind(status=304, headers={"Content-Length": "5", "ETag": '"x"'}),
    "refused": lambda kind: kind(b"{}", status=409),
    "several parts": lambda kind: kind([b"a", b"b"]),
    "text parts": lambda kind: kind(["é"]),
    "a stream": lambda kind: kind(iter([b"a", b"b"])),
    "nothing": lambda kind: kind(b""),
}


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_leaves_as_flask_sends_it(name: str, method: str) -> None:
    asked = EnvironBuilder(method=method).get_environ()
    body, status, headers = ANSWERS[name](PlainResponse).get_wsgi_response(asked)
    expected_body, expected_status, expected_headers = ANSWERS[name](Response).get_wsgi_response(asked)
    assert (b"".join(body), status, headers) == (b"".join(expected_body), expected_status, list(expected_headers))


def test_what_waits_for_the_end_of_an_answer_is_told() -> None:
    answer, closed = PlainResponse(b"x"), list[str]()
    answer.call_on_close(lambda: closed.append("closed"))
    body: Any = answer.get_wsgi_response(EnvironBuilder().get_environ())[0]
    assert (b"".join(body), closed) == (b"x", [])
    body.close()
    assert closed == ["closed"]


class Plain(Schema):
    limit = fields.Integer(load_default=50, validate=validate.Range(1, 100))
    name = fields.String()


class Required(Schema):
    name = fields.String(required=True)


class Made(Schema):
    names = fields.List(fields.String(), load_default=list)


class Hooked(Schema):
    @post_load
    def add(self, data: dict[str, Any], **_options: Any) -> dict[str, Any]:
        return {**data, "more": 1}


class Shared(Schema):
    names = fields.List(fields.String(), load_default=[])  # type: ignore[arg-type]  # as one may write it


def test_what_a_query_makes_of_nothing_is_known_only_if_it_cannot_change() -> None:
    assert _defaults(Plain) == {"limit": 50}
    assert [_defaults(kind) for kind in (Required, Made, Hooked, Shared)] == [None] * 4


def test_every_query_of_the_api_means_the_same_without_one(app: Any) -> None:
    """The parser's short way against marshmallow's own, for all queries that were declared."""
    kinds = {kind for kind in _queries() if _defaults(kind) is not None}
    assert len(kinds) > 5
    for kind in kinds:
        assert _defaults(kind) == kind().load({}) == _schema(kind).load({})


def _queries() -> set[type[Schema]]:
    found, left = set[type[Any]](), [Query]
    while left:
        one: Any = left.pop()
        left += one.__subclasses__()
        found.add(one)
    return found


def test_defaults_are_each_request_s_own(app: Any) -> None:
    with app.test_request_context("/?"):
        parser = app.blueprints["devices"].ARGUMENTS_PARSER
        first = parser.parse(Plain, location="query")
        first["limit"] = 1
        assert parser.parse(Plain, location="query") == {"limit": 50}
    with app.test_request_context("/?limit=7"):
        assert parser.parse(Plain, location="query") == {"limit": 7}
