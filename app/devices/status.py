"""What a device's status is: one SQL expression, for the list, its filter, the detail and ``/status`` alike."""

from datetime import timedelta
from functools import cache

from sqlalchemy import ColumnElement, and_, case, func, literal, not_

from app.devices.models import Connection, Device
from config.settings import settings

STATUSES = ("pending", "online", "offline", "error", "disabled")


def live() -> ColumnElement[bool]:
    """Whether the device's tunnel stands and was heard from lately, by the database's clock and no other."""
    return _live(settings().offline_after)


# Made once: building this and ``expression`` anew cost each request for a list 1 ms.
@cache
def _live(seconds: float) -> ColumnElement[bool]:
    silence = timedelta(seconds=seconds)
    return and_(Connection.disconnected_at.is_(None), Connection.last_seen_at > func.now() - silence)


def expression() -> ColumnElement[str]:
    """The status of a ``Device`` joined (outer) with its ``Connection``.

    ``error`` is a device that is there and in trouble: one that has gone silent is ``offline``, whatever it said last.
    """
    return _expression(settings().offline_after)


@cache
def _expression(seconds: float) -> ColumnElement[str]:
    return case(
        (Device.disabled_at.is_not(None), literal("disabled")),
        (Connection.device_id.is_(None), literal("pending")),
        (not_(_live(seconds)), literal("offline")),
        (Device.error.is_not(None), literal("error")),
        else_=literal("online"),
    )
