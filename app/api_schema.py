"""The base of every schema: unknown fields are refused, times are RFC 3339 UTC, each field carries an example."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from operator import itemgetter
from typing import Any

import marshmallow
from marshmallow import fields, missing, validate

from app.clock import rfc3339


class Schema(marshmallow.Schema):
    """A JSON body; unknown fields are an error that names them."""

    class Meta:
        unknown = marshmallow.RAISE


class Query(marshmallow.Schema):
    """Query arguments; a misspelt filter is an error too, because silently ignoring it would list everything."""

    class Meta:
        unknown = marshmallow.RAISE


def flatten(messages: Any, path: str = "") -> dict[str, list[str]]:
    """Nested messages as ``{"definition.nodes.0.id": ["…"]}``."""
    if isinstance(messages, Mapping):
        found: dict[str, list[str]] = {}
        for key, value in messages.items():
            found.update(flatten(value, f"{path}.{key}" if path else str(key)))
        return found
    return {path or "_body": [str(message) for message in messages]}


def joined(schema: type[Schema], row: Any, **more: Any) -> dict[str, Any]:
    """A row's fields as ``schema`` lists them, and others beside them (a key that is shown once)."""
    return {**{name: getattr(row, name) for name in schema().fields}, **more}


class Time(fields.AwareDateTime):
    """An instant: RFC 3339 in (with a zone), RFC 3339 UTC out."""

    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("metadata", {}).setdefault("example", "2026-11-22T21:51:05.123456Z")
        super().__init__(format="iso", **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> datetime:
        moment: datetime = super()._deserialize(value, attr, data, **kwargs)
        try:
            return moment.astimezone(UTC)
        except OverflowError:  # its zone carries it out of the years 1 to 9999
            raise self.make_error("invalid", input=value, obj_type=self.OBJ_TYPE) from None

    def _serialize(self, value: datetime | None, attr: str | None, obj: Any, **kwargs: Any) -> str | None:
        return None if value is None else rfc3339(value)


class Rows(fields.List):
    """Many rows of one schema: the JSON that a list of ``Nested`` becomes, at a tenth of its cost.

    marshmallow asks for each value through six calls, and most of them are written as they are; UUIDs and times
    (the database's, which are UTC) are left to the JSON writer, which writes them alike.
    """

    def __init__(self, schema: type[Schema], **kwargs: Any) -> None:
        super().__init__(fields.Nested(schema), **kwargs)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> list[Any] | None:
        if not value:
            return None if value is None else []
        known = set(getattr(value[0], "_fields", ()))
        if known.issuperset(name for name, _key, _write in self._plan):
            return self._of_one_kind(value)
        return [self._written(row) for row in value]

    def _of_one_kind(self, rows: Sequence[Any]) -> list[Any]:
        """Rows of one statement, whose values lie in the same places."""
        places = rows[0]._fields
        take = itemgetter(*(places.index(name) for name, _key, _write in self._plan))
        keys = [key for _name, key, _write in self._plan]
        converted = [(name, key, write) for name, key, write in self._plan if write]
        written = [dict(zip(keys, take(row), strict=True)) for row in rows]
        for name, key, write in converted:
            for made, row in zip(written, rows, strict=True):
                if made[key] is not None:
                    made[key] = write(made[key], name, row)
        return written

    def _written(self, row: Any) -> dict[str, Any]:
        get = row.get if isinstance(row, Mapping) else lambda name, default: getattr(row, name, default)
        written = {}
        for name, key, write in self._plan:
            value = get(name, missing)
            if value is not missing:
                written[key] = value if write is None or value is None else write(value, name, row)
        return written

    @cached_property
    def _plan(self) -> list[tuple[str, str, Callable[..., Any] | None]]:
        """``(attribute, key, how to write it)`` of each field; None: as it is."""
        found = self.inner.schema.dump_fields.items()  # type: ignore[attr-defined]
        return [
            (field.attribute or name, name if field.data_key is None else field.data_key, _writer(field))
            for name, field in found
        ]


_AS_IT_IS = (fields.String, fields.Integer, fields.Boolean, fields.Dict, fields.UUID, Time)


def _writer(field: Any) -> Callable[..., Any] | None:
    plain = field.inner if type(field) is fields.List else field
    converts = getattr(plain, "value_field", None) or getattr(plain, "as_string", False)
    return None if type(plain) in _AS_IT_IS and not converts else field._serialize


class Text(fields.String):
    """Text without NUL (PostgreSQL cannot store one) and within bounds."""

    default_error_messages = {"nul": "Must not contain the NUL character."}

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text: str = super()._deserialize(value, attr, data, **kwargs)
        if "\0" in text:
            raise self.make_error("nul")
        return text


MAX_LEVELS = 100  # what stands in a message or a row stands some levels deeper; orjson writes 254


class Name(Text):
    """1 to 200 characters without blanks around them."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(validate=validate.Length(1, 200), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return super()._deserialize(value, attr, data, **kwargs).strip()


class JsonObject(fields.Dict):
    """A free-form JSON object, whose strings hold no NUL, and which can be written again wherever it goes."""

    default_error_messages = {
        "nul": "Strings must not contain the NUL character.",
        "deep": f"Nested deeper than {MAX_LEVELS} levels.",
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(keys=fields.String(), **kwargs)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        loaded = super()._deserialize(value, attr, data, **kwargs)
        layer = [loaded]
        for _ in range(MAX_LEVELS):
            if any(isinstance(item, str) and "\0" in item for item in layer):
                raise self.make_error("nul")
            layer = [inner for item in layer for inner in _inside(item)]
        if layer:
            raise self.make_error("deep")
        return loaded


def _inside(value: Any) -> list[Any]:
    """One level at a time, not by recursion: a hostile body may be nested as deep as the JSON parser allows."""
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    return value if isinstance(value, list) else []
