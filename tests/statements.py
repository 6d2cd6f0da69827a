"""What is asked of the database meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from app import db


@contextmanager
def counted() -> Iterator[list[str]]:
    """The statements that this thread sends within, as they are sent; others' are none of the test's."""
    seen, mine = list[str](), threading.get_ident()

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if threading.get_ident() == mine:
            seen.append(statement)

    event.listen(db.engine(), "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(db.engine(), "before_cursor_execute", note)
