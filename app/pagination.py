"""Lists: ``limit``, ``offset`` and ``sort``, answered as ``{items, total, limit, offset}`` with a ``Link`` header."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from flask import request
from marshmallow import fields, validate
from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import InstrumentedAttribute

from app import db
from app.api_schema import Query, Rows, Schema
from app.errors import ValidationFailed

MAX_OFFSET = 2**31 - 1


class PageQuery(Query):
    """The query arguments that every list takes."""

    limit = fields.Integer(
        load_default=50, validate=validate.Range(1, 500), metadata={"description": "at most so many items"}
    )
    offset = fields.Integer(
        load_default=0, validate=validate.Range(0, MAX_OFFSET), metadata={"description": "skip so many items"}
    )
    sort = fields.String(metadata={"description": "field to sort by; a leading - reverses", "example": "-created_at"})


@dataclass(frozen=True)
class Page:
    """Part of a list; ``total`` counts all that match."""

    items: list[Any]
    total: int
    limit: int
    offset: int


def page_of(item: type[Schema]) -> type[Schema]:
    """The schema of a page of ``item``."""
    name = item.__name__.removesuffix("Read") + "Page"
    return type(
        name,
        (Schema,),
        {
            "items": Rows(item),
            "total": fields.Integer(metadata={"description": "how many match in all", "example": 1}),
            "limit": fields.Integer(metadata={"example": 50}),
            "offset": fields.Integer(metadata={"example": 0}),
        },
    )


Sortable = Mapping[str, InstrumentedAttribute[Any] | ColumnElement[Any]]


def paginate(query: Select[Any], *, limit: int, offset: int, sort: str | None, by: Sortable, default: str) -> Page:
    """Run a list query. ``by``: the fields one may sort by; ``default`` likewise. Raises ValidationFailed.

    Rows of one entity or column come back bare, others as rows. Ties break by the first column (the id).
    """
    total = db.session.scalar(select(func.count()).select_from(query.order_by(None).subquery())) or 0
    ordered = query.order_by(*_order(sort or default, by)).limit(limit).offset(offset)
    rows = db.session.execute(ordered).all()
    single = bool(rows) and len(rows[0]) == 1
    return Page([row[0] for row in rows] if single else list(rows), total, limit, offset)


def _order(sort: str, by: Sortable) -> list[ColumnElement[Any]]:
    name = sort.removeprefix("-")
    if name not in by:
        raise ValidationFailed(details={"sort": [f"Must be one of: {', '.join(by)}."]})
    descending = sort.startswith("-")
    columns = [by[name], *([by["id"]] if "id" in by else [])]
    return [column.desc() if descending else column.asc() for column in columns]


def link_header(page: Page) -> dict[str, str]:
    """``Link`` with rel first, prev, next and last, as far as they exist (RFC 8288)."""
    targets = {"first": 0, "last": max(0, (page.total - 1) // page.limit * page.limit)}
    if page.offset > 0:
        targets["prev"] = max(0, page.offset - page.limit)
    if page.offset + page.limit < page.total:
        targets["next"] = page.offset + page.limit
    return {"Link": ", ".join(f'<{_at(page.limit, offset)}>; rel="{rel}"' for rel, offset in targets.items())}


def _at(limit: int, offset: int) -> str:
    kept = [(k, v) for k, v in request.args.items(multi=True) if k not in ("limit", "offset")]
    return f"{request.path}?{urlencode([*kept, ('limit', limit), ('offset', offset)])}"


def next_page(cursor: str | None) -> dict[str, str]:
    """``Link`` to the page after this one, of a list that goes by cursors."""
    if cursor is None:
        return {}
    kept = [(k, v) for k, v in request.args.items(multi=True) if k != "cursor"]
    return {"Link": f'<{request.path}?{urlencode([*kept, ("cursor", cursor)])}>; rel="next"'}
