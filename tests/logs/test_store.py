"""Devices' entries as they are stored: levels, strange contents, many tenants at once."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app import db
from app.logs import levels, store
from tests import make
from tests.logs.entries import add
from tests.statements import counted


def stored(api: Any) -> list[Any]:
    items: list[Any] = api.get("/logs?source=device&limit=500", expect=200)["items"]
    return items


@pytest.mark.parametrize(
    ("given", "level"),
    [
        ("debug", "debug"), ("TRACE", "debug"), ("Info", "info"), ("notice", "info"), ("warn", "warning"),
        (" Warning ", "warning"), ("err", "error"), ("FATAL", "error"), ("critical", "error"), ("emerg", "error"),
        ("W", "warning"), ("E", "error"), (10, "debug"), (20, "info"), (30, "warning"), (40, "error"), (50, "error"),
        ("30", "warning"), (3, "error"), (4, "warning"), (6, "info"), (7, "debug"), (0, "error"), (35, "warning"),
    ],
)  # fmt: skip
def test_whatever_a_level_is_called_it_is_one_of_four(given: Any, level: str) -> None:
    grade = levels.grade(given)
    assert grade is not None
    assert levels.LEVELS[grade] == level


@pytest.mark.parametrize("strange", ["shout", "", "9" * 40, "²", -1, 8.5, 1e300, float("nan"), True, [], {}, 10**30])
def test_a_level_that_is_none_counts_as_info_and_is_kept(api: Any, org: UUID, strange: Any) -> None:
    assert levels.grade(strange) is None
    add(org, "hello", level=strange, fields={"valve": 3})
    (entry,) = stored(api)
    assert (entry["level"], entry["fields"]["valve"]) == ("info", 3)
    assert "level" in entry["fields"]


def test_no_level_at_all_is_info(api: Any, org: UUID) -> None:
    add(org, "hello", level=None)
    assert [(entry["level"], entry["fields"]) for entry in stored(api)] == [("info", {})]


def test_what_postgresql_cannot_hold_or_nobody_would_read_is_cleaned(api: Any, org: UUID) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]
    add(org, "nul \0 in it", fields={"a\0b": ["c\0d", {"e": "\0"}]})
    add(org, "x" * 100_000, fields={"large": "y" * 100_000})
    add(org, "deep", fields={"deep": deep})
    add(org, "list", fields=[1, 2])
    deeply, listed, nul, long = sorted(stored(api), key=lambda entry: entry["message"][:1])
    assert (nul["message"], nul["fields"]) == ("nul � in it", {"a�b": ["c�d", {"e": "�"}]})
    assert (len(long["message"]), long["message"][-1]) == (store.MESSAGE_CHARACTERS, "…")
    assert (long["fields"].keys(), deeply["fields"].keys()) == ({"dropped"}, {"dropped"})
    assert listed["fields"] == {"value": [1, 2]}


def test_a_message_that_is_no_text_is_written_as_json(api: Any, org: UUID) -> None:
    add(org, {"valve": "stuck"})  # type: ignore[arg-type]
    assert [entry["message"] for entry in stored(api)] == ['{"valve":"stuck"}']


def test_the_time_that_a_device_claimed_stands_beside(api: Any, org: UUID) -> None:
    arrival, claimed = datetime.now(UTC), datetime(1970, 1, 1, tzinfo=UTC)
    with db.transaction(org) as session:
        store.add(session, [(org, uuid4(), arrival, claimed, arrival, "info", "old clock", None)])
    (entry,) = stored(api)
    assert entry["claimed_at"].startswith("1970-01-01T00:00:00")
    assert entry["time"] == entry["received_at"]


def test_many_entries_of_many_tenants_are_one_copy_and_one_insert(app: Any) -> None:
    tenants = [make.organization() for _ in range(3)]
    moment = datetime.now(UTC)
    rows = [(tenants[n % 3], uuid4(), moment - timedelta(days=n % 5), None, moment, "info", str(n), None)
            for n in range(3_000)]  # fmt: skip
    with db.transaction(system=True) as session:
        session.connection()
        with counted() as seen:
            assert store.add(session, rows) == 3_000
            assert store.add(session, []) == 0
    # Between the two is the COPY, which goes past SQLAlchemy.
    assert [statement.split()[0] for statement in seen] == ["CREATE", "WITH"]
    for tenant in tenants:
        with db.transaction(tenant) as session:
            assert session.scalar(text("SELECT count(*) FROM log_entries")) == 1_000


def test_a_tenant_cannot_store_for_another(app: Any, org: UUID) -> None:
    moment = datetime.now(UTC)
    with pytest.raises(Exception, match="row-level security"), db.transaction(make.organization()) as session:
        store.add(session, [(org, uuid4(), moment, None, moment, "info", "theirs", None)])
