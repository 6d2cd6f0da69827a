"""One row that somebody has named, as services ask for it."""

from typing import TypeVar

from sqlalchemy import Select

from app import db
from app.errors import NotFound

Row = TypeVar("Row")


def one(query: Select[Row], what: str, *, lock: bool = False) -> Row:
    """The row that a query finds; locked for this transaction if asked, and then as it is now. Raises NotFound."""
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    found = db.session.scalar(query)
    if found is None:
        raise NotFound(what)
    return found
