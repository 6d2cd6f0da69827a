"""How the API speaks: blueprints that document themselves, the one error body, and the OpenAPI document."""

import http
from collections.abc import Callable, Mapping
from copy import deepcopy
from functools import cache, wraps
from typing import Any, NoReturn

import flask_smorest
import marshmallow
import orjson
from flask import Response, g, request
from flask.globals import request_ctx
from flask.json.provider import JSONProvider
from marshmallow import fields, missing
from webargs.flaskparser import FlaskParser
from werkzeug.exceptions import HTTPException
from werkzeug.routing.exceptions import WebsocketMismatch

from app.api_schema import Schema, flatten
from app.errors import AppError, UnsupportedMediaType, ValidationFailed
from app.pagination import Page, link_header

PREFIX = "/api/v1"
JSON_OPTIONS = orjson.OPT_NON_STR_KEYS | orjson.OPT_UTC_Z


class ErrorBody(Schema):
    """Every failure, whatever raised it. Some say more: ``outcome``, ``current_state``, ``quota`` …"""

    class Meta:
        unknown = marshmallow.INCLUDE

    error = fields.String(required=True, metadata={"description": "what went wrong", "example": "flow not found"})
    code = fields.String(required=True, metadata={"description": "stable; branch on this", "example": "NOT_FOUND"})
    status = fields.Integer(required=True, metadata={"description": "the HTTP status", "example": 404})
    request_id = fields.String(required=True, metadata={"example": "5f0c2d6e9b1f4a0d8f7b3c1a2e4d6f80"})
    details = fields.Dict(
        keys=fields.String(), metadata={"description": "400: field to messages", "example": {"name": ["Too long."]}}
    )


class Json(JSONProvider):
    """orjson: fast, strict about lone surrogates, and at home with UUIDs and times."""

    def dumps(self, obj: Any, **_kwargs: Any) -> str:
        return orjson.dumps(obj, option=JSON_OPTIONS).decode()

    def loads(self, s: str | bytes, **_kwargs: Any) -> Any:
        return orjson.loads(s)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        body = orjson.dumps(self._prepare_response_obj(args, kwargs), option=JSON_OPTIONS | orjson.OPT_APPEND_NEWLINE)
        kind: type[Any] = self._app.response_class
        response: Response = kind(body, mimetype="application/json")
        return response


class Parser(FlaskParser):
    """Request arguments: 400 with a message for each field, 415 for a body that is not JSON."""

    DEFAULT_VALIDATION_STATUS = 400
    DEFAULT_UNKNOWN_BY_LOCATION = {"json": None, "query": None, "headers": marshmallow.EXCLUDE}

    def _get_schema(self, argmap: Any, req: Any) -> Any:
        """Made once: making one costs more than all its use."""
        return _schema(argmap) if isinstance(argmap, type) else super()._get_schema(argmap, req)

    def parse(self, argmap: Any, req: Any = None, *, location: str | None = None, **kwargs: Any) -> Any:
        """Without a query its values are known: most requests have none."""
        asked = req or request_ctx.request
        if location == "query" and not asked.query_string and (values := _defaults(argmap)) is not None:
            return dict(values)
        return super().parse(argmap, asked, location=location, **kwargs)

    def load_json(self, req: Any, schema: Any) -> Any:
        """Strictly: what the standard library lets in besides (NaN, lone surrogates) PostgreSQL would refuse."""
        body = req.get_data(cache=True)
        if not body:
            return missing
        if not req.is_json:
            raise UnsupportedMediaType("the body must be JSON, with Content-Type: application/json")
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError as error:
            return self._handle_invalid_json_error(error, req)

    def handle_error(self, error: Any, req: Any, schema: Any, **_kwargs: Any) -> NoReturn:
        (messages,) = error.messages.values()
        raise ValidationFailed(details=flatten(messages))

    def _handle_invalid_json_error(self, error: Any, req: Any, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise ValidationFailed("the body is not valid JSON", details={"_body": ["Not valid JSON."]})


@cache
def _schema(kind: type[marshmallow.Schema]) -> marshmallow.Schema:
    return kind()


@cache
def _defaults(query: Any) -> dict[str, Any] | None:
    """What the schema ``query`` makes of nothing, if that is always the same; None when it is not, or an error."""
    schema = _schema(query) if isinstance(query, type) else None
    if schema is None or schema._hooks or any(callable(field.load_default) for field in schema.load_fields.values()):
        return None
    try:
        values: dict[str, Any] = schema.load({})
    except marshmallow.ValidationError:
        return None
    return values if all(type(value) in _UNCHANGING for value in values.values()) else None


_UNCHANGING = frozenset({str, int, float, bool, type(None)})
_EXAMPLES: dict[type[fields.Field[Any]], Any] = {
    fields.UUID: "3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c",
    fields.Email: "ada@example.com",
    fields.Boolean: True,
    fields.Integer: 1,
    fields.Float: 0.5,
    fields.Dict: {},
    fields.AwareDateTime: "2026-11-22T21:51:05.123456Z",
    fields.Url: "https://example.com",
}


def example_of(schema: Any) -> Any:
    """An example body of a schema, from its fields' own examples."""
    instance = schema() if isinstance(schema, type) else schema
    return {(field.data_key or name): _example_of_field(field) for name, field in instance.fields.items()}


def _example_of_field(field: Any) -> Any:
    if "example" in field.metadata:
        return field.metadata["example"]
    if isinstance(field, fields.Nested):
        inner = example_of(field.schema)
        return [inner] if field.many else inner
    if isinstance(field, fields.List):
        return [_example_of_field(field.inner)]
    for kind, example in _EXAMPLES.items():
        if isinstance(field, kind):
            return example
    return "text"


class Blueprint(flask_smorest.Blueprint):
    """A room's routes. Documents credentials and errors by itself; writes ``Location`` and ``Link``."""

    ARGUMENTS_PARSER = Parser()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("url_prefix", PREFIX)
        super().__init__(*args, **kwargs)
        self._prepare_doc_cbks.append(self._prepare_access_doc)

    def arguments(self, schema: Any, *, location: str = "json", **kwargs: Any) -> Any:
        if location == "json":
            kwargs.setdefault("example", example_of(schema))
        return super().arguments(schema, location=location, **kwargs)

    def response(self, status_code: int, schema: Any = None, **kwargs: Any) -> Any:
        """The success answer: a page gets its ``Link``, a creation its ``Location``, 204 has no body."""
        if schema is not None and "example" not in kwargs:
            kwargs["example"] = example_of(schema)
        document = super().response(status_code, schema, **kwargs)

        def decorate(view: Callable[..., Any]) -> Any:
            @wraps(view)
            def complete(*args: Any, **kwargs: Any) -> Any:
                result = view(*args, **kwargs)
                if status_code == 204:
                    return Response(status=204)
                if isinstance(result, Page):
                    return result, link_header(result)
                if status_code == 201 and (identifier := _identifier(result)):
                    return result, {"Location": f"{request.path}/{identifier}"}
                return result

            return document(complete)

        return decorate

    def errors(self, *codes: int) -> Callable[[Any], Any]:
        """Document further error codes than those that every such route has."""

        def decorate(view: Any) -> Any:
            @wraps(view)
            def same(*args: Any, **kwargs: Any) -> Any:
                return view(*args, **kwargs)

            same._apidoc = {**deepcopy(getattr(view, "_apidoc", {})), "errors": codes}  # type: ignore[attr-defined]
            return same

        return decorate

    def _prepare_access_doc(self, doc: dict[str, Any], doc_info: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        access = doc_info.get("access")
        codes = {429, 500, 503, *doc_info.get("errors", ())}
        if "arguments" in doc_info:
            codes.add(400)
        if "requestBody" in doc:
            codes |= {413, 415}
        doc["security"] = []
        if access:
            codes |= {401, 403}
            doc["security"] = [{"bearer": []}, {"apiKey": []}]
            needs = "a sign-in" if access == "any" else f"the role **{access}** or a higher one"
            doc["description"] = f"Needs {needs}."
        if kwargs["method"] == "post":
            codes.add(409)
            doc.setdefault("parameters", []).append("IdempotencyKey")
        for code in sorted(codes):
            doc.setdefault("responses", {})[str(code)] = _error_doc(code)
        return doc

    def register_views_in_doc(self, api: Any, app: Any, spec: Any, *, name: str, parameters: Any) -> None:
        for endpoint, docs in self._docs.items():
            rule = next(app.url_map.iter_rules(f"{name}.{endpoint}"))
            if rule.arguments:
                for method, info in docs.items():
                    if method != "parameters":
                        info["errors"] = (*info.get("errors", ()), 404)
        super().register_views_in_doc(api, app, spec, name=name, parameters=parameters)


def describe_filter(_converter: Any, field: Any, ret: dict[str, Any]) -> dict[str, Any]:
    """Say a filter's example in words: Swagger UI would fill it in, and a first "Execute" find nothing."""
    example = ret["schema"].pop("example", None) if ret["in"] == "query" and not field.required else None
    if example is None or "enum" in ret["schema"]:
        return {}
    described = [ret["description"]] if "description" in ret else []
    return {"description": "; ".join([*described, f"for example `{example}`"])}


# Status to the codes that bodies carry with it, the commonest first.
_CODES: dict[int, list[str]] = {}
for _kind in AppError.__subclasses__():
    _CODES.setdefault(_kind.status, []).append(_kind.code)


def _identifier(result: Any) -> Any:
    return result.get("id") if isinstance(result, Mapping) else getattr(result, "id", None)


def _error_doc(code: int) -> dict[str, Any]:
    phrase = http.HTTPStatus(code).phrase
    text_codes = _CODES.get(code, ["INTERNAL_ERROR"])
    example = {
        "error": phrase.lower(), "code": text_codes[0], "status": code,
        "request_id": "5f0c2d6e9b1f4a0d8f7b3c1a2e4d6f80",
    }  # fmt: skip
    reference = {"$ref": "#/components/schemas/ErrorBody"}
    description = f"{phrase}: " + ", ".join(f"`{text}`" for text in text_codes)
    return {"description": description, "content": {"application/json": {"schema": reference, "example": example}}}


class Api(flask_smorest.Api):
    """The OpenAPI document, and errors in our one shape instead of the extension's."""

    ERROR_SCHEMA = ErrorBody

    def handle_http_exception(self, error: HTTPException) -> Response:  # type: ignore[override]
        return error_response(_from_http(error))


class _HttpError(AppError):
    """An error of the framework (the router, the body parser) in our shape."""

    def __init__(self, error: HTTPException) -> None:
        codes = {404: "NOT_FOUND", 413: "PAYLOAD_TOO_LARGE", 500: "INTERNAL_ERROR"}
        number = error.code or 500
        phrase = http.HTTPStatus(number).phrase
        messages = {404: "resource not found", 500: "internal error"}
        headers = {name: value for name, value in error.get_headers() if name in ("Allow", "Retry-After")}
        super().__init__(messages.get(number, phrase.lower()), headers=headers)
        self.number, self.text_code = number, codes.get(number, phrase.upper().replace(" ", "_"))

    def body(self) -> dict[str, Any]:
        return {"error": self.message, "code": self.text_code, "status": self.number}


def _from_http(error: HTTPException) -> AppError:
    if isinstance(error, WebsocketMismatch):
        return ValidationFailed("this address is for WebSocket connections only, or not for them")
    if error.code == 400:
        return ValidationFailed(details={"_body": [error.description or "Bad request."]})
    return _HttpError(error)


def error_response(error: AppError) -> Response:
    """The one error body."""
    body = {**error.body(), "request_id": g.get("request_id", "")}
    response = Response(orjson.dumps(body, default=str) + b"\n", status=body["status"], mimetype="application/json")
    response.headers.update(error.headers)
    return response
