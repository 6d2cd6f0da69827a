"""Lists and full text under row-level security: by an index, the same entries as without it, and only the tenant's."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.dialects import postgresql

from app import db
from app.journal import LEVELS
from app.logs import queries, store, tail
from config.settings import settings
from tests import make
from tests.logs.entries import NOON, add, messages

MANY = 30_000
WORDS = ("valve", "stuck", "pump", "open", "closed", "hot", "motor.temp", "3")
SEARCHES = """
SELECT sum(pg_stat_get_xact_numscans(inhrelid)) FROM pg_inherits
WHERE inhparent = to_regclass('ix_log_entries_message')
"""
READ_WITHOUT_INDEX = "SELECT sum(seq_tup_read) FROM pg_stat_xact_user_tables WHERE relname LIKE 'log_entries%'"


@pytest.fixture(scope="module")
def many(app: Any) -> list[UUID]:
    """A small organization beside a large one, each with three entries that have a rare word."""
    owner = create_engine(settings().owner_url, isolation_level="AUTOCOMMIT")
    with owner.connect() as connection:
        # A partition with a few entries of other tests would be read in another way.
        connection.execute(text("TRUNCATE log_entries"))
    tenants = [make.organization() for _ in range(2)]
    with db.transaction(system=True) as session:
        session.execute(
            text("""
            INSERT INTO log_entries (org_id, device_id, time, level, source, message)
            SELECT (CAST(:orgs AS uuid[]))[CASE WHEN n % 20 = 0 THEN 1 ELSE 2 END], gen_random_uuid(),
                now() - n * interval '1 second', 1, 'device',
                CASE WHEN n % 10000 IN (0, 1) THEN 'seldom ' ELSE 'often ' END || md5(CAST(n AS text))
            FROM generate_series(1, :many) n"""),
            {"orgs": tenants, "many": MANY},
        )
    with owner.connect() as connection:
        connection.execute(text("VACUUM ANALYZE log_entries"))
    owner.dispose()
    return tenants


def plan_of(org: UUID, query: Any) -> str:
    statement = str(query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))
    with db.transaction(org) as session:
        lines = session.connection().exec_driver_sql(f"EXPLAIN {statement}").scalars().all()
    return "\n".join(lines)


def during(org: UUID, counter: str, query: Any) -> tuple[int, int]:
    """What the server counted while it ran a query, and how many rows that answered."""
    with db.transaction(org) as session:
        before = session.scalar(text(counter))
        rows = len(session.execute(query).all())
        return int(session.scalar(text(counter)) - before), rows


def test_a_rare_word_is_found_by_the_index(many: list[UUID]) -> None:
    for org in many:
        scans, rows = during(org, SEARCHES, queries.searched(org, 51, q="seldom"))
        assert scans > 0
        assert rows == 3
        # Why there is a function for it: under the tenant's policy the same question reads all entries.
        assert during(org, SEARCHES, queries.plain(org, 51, q="seldom")) == (0, 3)


def test_a_frequent_word_is_not_sought_among_all(many: list[UUID]) -> None:
    assert during(many[1], SEARCHES, queries.searched(many[1], 51, q="often")) == (0, 51)


def test_pages_of_entries_come_from_the_index(many: list[UUID]) -> None:
    middle = (datetime.now(UTC) - timedelta(seconds=MANY // 2), 1)
    for before in (None, middle):
        plan = plan_of(many[0], queries.plain(many[0], 51, before))
        assert "org_id_time_id_idx" in plan
        assert "Seq Scan" not in plan
        assert "Sort  (" not in plan
        assert "Filter: (org_id" not in plan
    assert """'::uuid) AND (ROW("time", id) < ROW(""" in plan, "it begins at the cursor"


def test_what_a_stream_reads_comes_from_the_index(many: list[UUID]) -> None:
    with db.transaction(many[0]):
        start = tail.now()
    add(many[0], "later")
    with db.transaction(many[0]):
        new = tail._new(queries.matching(many[0]), start, str(tail.now()))
    assert "org_id_xact" in plan_of(many[0], new)
    read, rows = during(many[0], READ_WITHOUT_INDEX, new)
    assert rows == 1
    assert read < MANY / 10


def test_words_find_what_reading_everything_finds(api: Any, org: UUID) -> None:
    """Whatever the filters, page by page."""
    chance = random.Random(20261123)
    fleet, stranger = [uuid4() for _ in range(3)], make.organization()
    for tenant in (org, stranger):
        rows = [
            (tenant, chance.choice(fleet), NOON - timedelta(seconds=chance.randrange(40)), None, NOON,
             chance.choice(LEVELS), " ".join(chance.choices(WORDS, k=chance.randint(1, 4))), None)
            for _ in range(400)
        ]  # fmt: skip
        with db.transaction(tenant) as session:
            store.add(session, rows)
    total = 0
    for _ in range(40):
        filters = some_filters(chance, fleet)
        before = None if chance.random() < 0.5 else (NOON - timedelta(seconds=chance.randrange(40)), 200)
        limit = chance.choice((1, 7, 500))
        with db.transaction(org) as session:
            read = [session.execute(query(org, limit, before, **filters)).all()
                    for query in (queries.plain, queries.searched)]  # fmt: skip
        assert read[0] == read[1], filters
        total += len(read[0])
    assert total > 500, "hardly anything was compared"


def some_filters(chance: random.Random, fleet: list[UUID]) -> dict[str, Any]:
    words = chance.choices(WORDS, k=2)
    q = chance.choice(["{0}", "{0} {1}", "{0} or {1}", "{0} -{1}", '"{0} {1}"', "-{0}", "&"]).format(*words)
    begin = NOON - timedelta(seconds=chance.randrange(20, 60))
    given = {
        "level": chance.choice(LEVELS), "source": chance.choice(("device", "platform")), "kind": "device.connected",
        "device_id": chance.choice(fleet), "from_": begin, "to": begin + timedelta(seconds=30),
    }  # fmt: skip
    likely = {"source": 0.2, "kind": 0.1}
    return {"q": q} | {key: value for key, value in given.items() if chance.random() < likely.get(key, 0.4)}


def test_pages_of_a_search_go_on_where_they_ended(api: Any, org: UUID) -> None:
    add(org, *(f"pump {n}" for n in range(10)))
    seen, cursor = list[str](), ""
    while True:
        page = api.get(f"/logs?q=pump&limit=3{cursor}", expect=200)
        seen += messages(page["items"])
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert seen == [f"pump {n}" for n in reversed(range(10))]


FIND = text("SELECT * FROM find_log_entries('secret', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 10)")


def test_a_search_answers_for_the_tenant_of_the_transaction_only(org: UUID) -> None:
    add(org, "secret valve")
    for tenant, found in ((org, 1), (make.organization(), 0), (None, 0)):
        with db.transaction(tenant) as session:
            assert len(session.execute(FIND).all()) == found
    # Nor by asking for another's.
    with db.transaction(make.organization()) as session:
        assert session.execute(queries.searched(org, 10, q="secret")).all() == []


def test_what_the_plan_keeps_no_longer_is_not_told(api: Any, org: UUID) -> None:
    now = datetime.now(UTC)
    add(org, "old pump", time=now - timedelta(days=8))
    add(org, "new pump", time=now - timedelta(days=6))
    since = quote((now - timedelta(days=30)).isoformat())
    queried = ("source=device", "q=pump", f"source=device&from={since}", f"q=pump&from={since}")
    for query in queried:
        assert messages(api.get(f"/logs?{query}", expect=200)["items"]) == ["new pump"]
    with db.transaction(org) as session:
        session.execute(text("UPDATE organizations SET plan = 'pro' WHERE id = :org"), {"org": org})
    for query in queried:
        assert messages(api.get(f"/logs?{query}", expect=200)["items"]) == ["new pump", "old pump"]
