"""Long lists are written without marshmallow's help for each value, and yet as it would write them."""

from collections import namedtuple
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from marshmallow import fields
from sqlalchemy import literal, null, select

from app import db
from app.api import Json
from app.api_schema import Schema, Time
from app.pagination import page_of


class Inner(Schema):
    number = fields.Integer()


class ThingRead(Schema):
    id = fields.UUID()
    name = fields.String(allow_none=True)
    tags = fields.List(fields.String())
    ids = fields.List(fields.UUID())
    settings = fields.Dict()
    known = fields.Boolean()
    size = fields.Integer(as_string=True)
    inner = fields.Nested(Inner, allow_none=True)
    other = fields.Integer(data_key="else")
    alias = fields.String(attribute="unlisted")
    at = Time()
    ended_at = Time(allow_none=True)
    secret = fields.String(load_only=True)


def thing(**changed: Any) -> dict[str, Any]:
    return {
        "id": uuid4(), "name": "é\u2028", "tags": ["a"], "ids": [uuid4()], "settings": {"a": {"b": [None, 1.5]}},
        "known": True, "size": 7, "inner": {"number": 3, "hidden": 4}, "other": 0, "at": datetime.now(UTC),
        "ended_at": datetime(2026, 11, 22, tzinfo=UTC), "secret": "no", "unlisted": "u", **changed,
    }  # fmt: skip


THINGS = [thing(), thing(name=None, inner=None, ended_at=None, tags=[], settings={}, known=False)]


class Object:
    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)


Row = namedtuple("Row", THINGS[0])  # type: ignore[misc]


@pytest.mark.parametrize(
    "rows",
    [
        THINGS,
        [Object(one) for one in THINGS],
        [Row(**one) for one in THINGS],
        [{"name": "a", "inner": {"number": 1}}, {"id": uuid4()}],
        [Object({"name": "a"})],
        [],
    ],
    ids=["dicts", "objects", "rows", "parts of dicts", "parts of objects", "none"],
)
def test_a_page_is_written_as_each_of_its_items_is(app: Any, rows: list[Any]) -> None:
    json, item = Json(app), ThingRead()
    page = page_of(ThingRead)().dump({"items": rows, "total": 2, "limit": 50, "offset": 0})
    assert json.loads(json.dumps(page["items"])) == json.loads(json.dumps([item.dump(row) for row in rows]))


def test_rows_of_a_statement_are_written_with_their_times_in_utc(app: Any, org: UUID) -> None:
    class MomentRead(Schema):
        at = Time()
        none = Time(allow_none=True)

    moment = datetime(2026, 11, 22, 21, 51, 5, 123456, tzinfo=UTC)
    with db.transaction(org) as session:
        session.execute(select(1))
        rows = session.execute(select(literal(moment).label("at"), null().label("none"))).all()
    written = Json(app).dumps(page_of(MomentRead)().dump({"items": rows})["items"])
    assert written == '[{"at":"2026-11-22T21:51:05.123456Z","none":null}]'
