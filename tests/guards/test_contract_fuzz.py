"""S9: whatever one sends, the API answers as its document says: no 5xx, each error in the one shape.

A bounded form: few examples of each operation, the same ones in every run.
"""

import re
from collections.abc import Callable
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app import streams
from tests.guards import crawler, population
from tests.guards.crawler import OWN, Operation
from tests.guards.test_tenants import sign_in

pytestmark = pytest.mark.xdist_group("contract_fuzz")  # which share the document that all read

CONFORMANCE = [status_code_conformance, content_type_conformance, response_schema_conformance]
HONEST = {501, 502, 503, 504}
STREAM_SECONDS = 1  # how much of a stream without an end is read

few_examples = settings(
    max_examples=6,
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class World:
    """An organization whose owner sends; made anew after whatever may have taken something away."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.renew()

    def renew(self) -> None:
        self.mine = population.populate("Fuzzed")

    def headers(self) -> dict[str, str]:
        return sign_in(self.app, self.mine)

    def own(self, names: Any) -> dict[str, str]:
        return {name: str(getattr(self.mine, crawler.FIELDS[name])) for name in names if name in crawler.FIELDS}


@pytest.fixture(scope="module")
def world(app: Any) -> World:
    return World(app)


@pytest.fixture(scope="module")
def schema(app: Any) -> Any:
    return schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app, config=SchemathesisConfig())


@pytest.fixture(scope="module")
def operations(app: Any) -> list[Operation]:
    return crawler.operations(app.test_client().get("/api/v1/openapi.json").json)


def faults_of(operation: Any, mode: GenerationMode, check: Callable[[Any], None]) -> list[str]:
    @few_examples
    @given(case=operation.as_strategy(generation_mode=mode))
    def every_example(case: Any) -> None:
        check(case)

    try:
        every_example()
    except Exception as error:  # whatever the tools raise, with the request that shows it
        return [f"{operation.label}: {error}"]
    return []


@pytest.mark.parametrize("mode", list(GenerationMode), ids=["valid", "invalid"])
@pytest.mark.parametrize("method", ["get", "put", "post", "delete"])
def test_every_operation_answers_as_documented(
    schema: Any, world: World, method: str, mode: GenerationMode, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(case: Any) -> None:
        # In half of the examples the ids name what is there; invalid ones would never come past a wrong id.
        if mode is GenerationMode.POSITIVE or case.operation.body:
            case.path_parameters.update(world.own(case.path_parameters))
        answer = case.call(headers=world.headers(), timeout=STREAM_SECONDS)
        if method == "delete":
            world.renew()
        demand_one_shape(answer.status_code, answer.json() if answer.status_code >= 400 else {})
        case.validate_response(answer, checks=CONFORMANCE)

    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.1)  # a reader that is to leave hears of it
    chosen = [result.ok() for result in schema.get_all_operations() if result.ok().method == method]
    assert chosen
    assert [fault for operation in chosen for fault in faults_of(operation, mode, check)] == []


def demand_one_shape(status: int, body: Any) -> None:
    assert status < 500 or status in HONEST, f"{status} {body}"
    if status >= 400:
        assert body.keys() >= {"error", "code", "status", "request_id"}, body
        assert body["status"] == status


JSON = "application/json"
BODIES = {
    "empty": (JSON, b""),
    "null": (JSON, b"null"),
    "a list": (JSON, b"[]"),
    "a text": (JSON, b'"text"'),
    "cut off": (JSON, b'{"name": "'),
    "no utf-8": (JSON, b'{"name": "\xff\xfe"}'),
    "not a number": (JSON, b'{"name": NaN, "version": Infinity}'),
    "beyond numbers": (JSON, b'{"version": 1e999, "name": 123456789012345678901234567890}'),
    "lone surrogate": (JSON, b'{"name": "\\ud800", "email": "\\udfff@example.com"}'),
    "NUL": (JSON, b'{"name": "\\u0000", "email": "\\u0000", "password": "\\u0000\\u0000\\u0000\\u0000\\u0000"}'),
    "deep": (JSON, b'{"definition": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
    "deep objects": (JSON, b'{"desired": ' + b'{"a": ' * 200 + b"1" + b"}" * 201),
    "large": (JSON, b'{"name": "' + b"x" * 3_000_000 + b'"}'),
    "plain text": ("text/plain", b'{"name": "x"}'),
    "form": ("application/x-www-form-urlencoded", b"name=x"),
    "no type": ("", b'{"name": "x"}'),
}


@pytest.mark.parametrize("body", BODIES)
def test_a_hostile_body_is_the_callers_error(app: Any, world: World, operations: list[Operation], body: str) -> None:
    content_type, data = BODIES[body]
    for operation in operations:
        if operation.method in ("post", "put"):
            send(app, world, operation, data=data, headers={"Content-Type": content_type})


HEADERS = [
    {"Idempotency-Key": "x" * 300},
    {"Idempotency-Key": "\x01é"},
    {"X-Organization-Id": "nowhere"},
    {"X-Request-Id": "<script>" * 100},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer a.b.c", "X-API-Key": "device_\xff"},
    {"X-API-Key": "edgeflow_" + "x" * 5000},
    {"Authorization": "Basic Og=="},
]


@pytest.mark.parametrize("headers", HEADERS, ids=lambda headers: "+".join(headers))
def test_hostile_headers_are_the_callers_error(
    app: Any, world: World, operations: list[Operation], headers: dict[str, str]
) -> None:
    for operation in operations:
        if operation.method != "delete":
            send(app, world, operation, json=operation.body, headers=headers)


QUERIES = [
    "limit=0", "limit=501", "limit=x", "offset=-1", "offset=9223372036854775808", "limit=1&limit=2", "sort=%00",
    "sort=password_hash", "unknown=1", "q=%00", "q=%25%27%22", "tag=%00", "status=%00", "timeout=nan", "timeout=1e400",
    "from=now", "from=2026-01-01T00:00:00", "to=9999-12-31T23:59:59Z&from=0001-01-01T00:00:00Z", "device_id=%00",
    "cursor=%FF", "%FF=%FF",
]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
def test_a_hostile_query_is_the_callers_error(app: Any, world: World, operations: list[Operation], query: str) -> None:
    for operation in operations:
        if operation.method == "get":
            send(app, world, operation, query=query)


@pytest.mark.parametrize("segment", ["%00", "..", "%2e%2e%2f", "x" * 3000, "%FF", "%F0%9F%92%A3", "0", "-1", "1e9"])
def test_a_hostile_path_is_not_found(app: Any, world: World, operations: list[Operation], segment: str) -> None:
    for operation in operations:
        if "{" in operation.path:
            path = re.sub(r"{\w+}", lambda _place: segment, operation.path)
            answer = app.test_client().open(path, method=operation.method, headers=world.headers())
            demand_one_shape(answer.status_code, answer.json if answer.status_code >= 400 else {})


def send(
    app: Any, world: World, operation: Operation, *, query: str = "", headers: dict[str, str] | None = None, **body: Any
) -> None:
    request = crawler.request(operation, dict.fromkeys(operation.places, OWN), world.mine, world.mine)
    url = request.url.partition("?")[0] + (f"?{query}" if query else "")
    sent = {**world.headers(), **(headers or {})}
    answer = app.test_client().open(url, method=operation.method, headers=sent, **body)
    try:
        demand_one_shape(answer.status_code, answer.json if answer.status_code >= 400 else {})
    except AssertionError as error:
        raise AssertionError(f"{operation}: {error}") from None
    finally:
        answer.close()  # a stream would wait for its next event
