"""Devices as they are answered: each with its connection, in one statement for any number of them."""

from collections.abc import Sequence
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    String,
    Text,
    and_,
    cast,
    exists,
    func,
    literal_column,
    not_,
    or_,
    select,
    text,
)

from app import db
from app.devices import status
from app.devices.models import Connection, Device, Shadow
from app.errors import NotFound
from app.pagination import Sortable

_COLUMNS: tuple[Any, ...] = (
    Device.id,
    Device.name,
    Device.type,
    Device.tags,
    Device.metadata_.label("metadata"),
    Device.hardware_info,
    Device.network_info,
    Device.agent_version,
    Device.protocol,
    Device.capabilities,
    Device.disabled_at.is_not(None).label("disabled"),
    Device.created_at,
    Device.updated_at,
    Connection.last_seen_at,
    Connection.connected_at,
)

# Devices that never connected count as seen longest ago, in either direction.
_LAST_SEEN: ColumnElement[Any] = func.coalesce(Connection.last_seen_at, literal_column("'-infinity'::timestamptz"))


def sortable() -> Sortable:
    """The fields that a list may be sorted by."""
    return {
        "id": Device.id,
        "name": Device.name,
        "created_at": Device.created_at,
        "updated_at": Device.updated_at,
        "last_seen_at": _LAST_SEEN,
        "status": status.expression(),
    }


def described(org_id: UUID, *more: Any) -> Select[Any]:
    """The organization's devices with every field of the answer, and ``more`` columns."""
    return _all(status.expression()).add_columns(*more).where(Device.org_id == org_id)


@cache
def _all(state: ColumnElement[str]) -> Select[Any]:
    return _with_connection(select(*_COLUMNS, state.label("status")))


def one(query: Select[Any], device_id: UUID) -> Row[Any]:
    """The row of one device. Raises NotFound."""
    row = db.session.execute(query.where(Device.id == device_id)).first()
    if row is None:
        raise NotFound("device")
    return row


def filtered(
    query: Select[Any], *, state: str | None, tags: Sequence[str], q: str | None, drift: bool | None
) -> Select[Any]:
    """Only devices of that status, with all of those tags, that ``q`` is found in, where a flow drifts or none does."""
    if state is not None:
        query = query.where(status.expression() == state)
    if tags:
        query = query.where(Device.tags.contains(list(tags)))
    if q is not None:
        query = query.where(_found_in(q))
    if drift is not None:
        query = query.where(drifts() if drift else not_(drifts()))
    return query


def drifts() -> ColumnElement[bool]:
    """Whether a flow on the device differs from what was deployed."""
    mine = (Shadow.org_id == Device.org_id, Shadow.device_id == Device.id)
    return exists().where(*mine, Shadow.drift != text("'{}'"))


def live_status(org_id: UUID) -> Select[Any]:
    """What ``/status`` is made of."""
    query = select(
        Device.id.label("device_id"),
        status.expression().label("status"),
        func.coalesce(status.live(), False).label("connected"),
        Connection.last_seen_at,
        Connection.connected_at,
        Connection.gateway,
        Device.agent_version,
        Device.protocol,
        Device.error,
        Shadow.desired,
        Shadow.reported,
    )
    query = _with_connection(query).outerjoin(
        Shadow, and_(Shadow.org_id == Device.org_id, Shadow.device_id == Device.id)
    )
    return query.where(Device.org_id == org_id)


def _with_connection(query: Select[Any]) -> Select[Any]:
    mine = and_(Connection.org_id == Device.org_id, Connection.device_id == Device.id)
    return query.select_from(Device).outerjoin(Connection, mine)


def _found_in(q: str) -> ColumnElement[bool]:
    texts: tuple[Any, ...] = (
        Device.name,
        func.array_to_string(Device.tags, "\n", type_=Text),
        Device.hardware_info["serial"].astext,
    )
    found = (column.icontains(q, autoescape=True) for column in texts)
    return or_(cast(Device.id, String).istartswith(q, autoescape=True), *found)
