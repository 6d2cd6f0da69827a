"""The document tells everything: summaries, examples, error codes in the one shape; and nobody else's host."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

EVERYWHERE = {"429", "500", "503"}
# Examples may name example hosts and the device's own loopback.
OUTSIDE = re.compile(r"https?://(?!(?:[\w-]+\.)?example\.(?:com|org|net)\b|127\.0\.0\.1\b|…)[^\s\"'<>)]+")


@pytest.fixture(scope="module")
def document(app: Any) -> Any:
    return app.test_client().get("/api/v1/openapi.json").json


def operations(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if method != "parameters":
                yield f"{method.upper()} {path}", operation


def lacking(document: Any, has: Any) -> list[str]:
    return [name for name, operation in operations(document) if not has(operation)]


def test_it_is_openapi_3(document: Any) -> None:
    assert document["openapi"].startswith("3.")


def test_every_operation_has_a_summary(document: Any) -> None:
    assert lacking(document, lambda operation: operation.get("summary", "").endswith(".")) == []


def has_examples(operation: dict[str, Any]) -> bool:
    bodies = [operation["requestBody"]] if "requestBody" in operation else []
    bodies += [answer for code, answer in operation["responses"].items() if code.startswith("2")]
    contents = [content for body in bodies for content in body.get("content", {}).values()]
    return all("example" in content or "examples" in content for content in contents)


def test_every_body_and_every_answer_has_an_example(document: Any) -> None:
    assert lacking(document, has_examples) == []


def test_every_operation_answers_json_unless_it_answers_nothing(document: Any) -> None:
    def answers(operation: dict[str, Any]) -> bool:
        good = {code: answer for code, answer in operation["responses"].items() if code.startswith("2")}
        return bool(good) and all("content" in answer or code == "204" for code, answer in good.items())

    assert lacking(document, answers) == []


def error_codes(operation: dict[str, Any]) -> set[str]:
    return {code for code in operation["responses"] if code[0] in "45"}


def test_every_operation_names_its_error_codes(document: Any) -> None:
    def expected(name: str, operation: dict[str, Any]) -> set[str]:
        codes = set(EVERYWHERE)
        codes |= {"401", "403"} if operation["security"] else set()
        codes |= {"400", "413", "415"} if "requestBody" in operation else set()
        codes |= {"404"} if "{" in name else set()
        return codes

    lacking = {name: missing for name, op in operations(document) if (missing := expected(name, op) - error_codes(op))}
    assert lacking == {}


def test_every_error_has_the_one_shape(document: Any) -> None:
    def one_shape(operation: dict[str, Any]) -> bool:
        contents = [operation["responses"][code]["content"] for code in error_codes(operation)]
        schemas = [content["application/json"]["schema"] for content in contents]
        return all(schema == {"$ref": "#/components/schemas/ErrorBody"} for schema in schemas)

    assert lacking(document, one_shape) == []
    properties = document["components"]["schemas"]["ErrorBody"]["properties"]
    assert properties.keys() == {"error", "code", "status", "request_id", "details"}


def test_every_post_takes_an_idempotency_key(document: Any) -> None:
    reference = {"$ref": "#/components/parameters/IdempotencyKey"}
    posts = [(name, operation) for name, operation in operations(document) if name.startswith("POST")]
    assert [name for name, operation in posts if reference not in operation["parameters"]] == []


def test_the_document_and_its_page_name_no_outside_host(app: Any) -> None:
    for path in ("openapi.json", "docs"):
        text = app.test_client().get(f"/api/v1/{path}").get_data(as_text=True)
        assert OUTSIDE.findall(text) == []
