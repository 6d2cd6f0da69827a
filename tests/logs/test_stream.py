"""GET /logs/stream: at once, filtered, and resumed without loss or repetition, in whatever order commits come."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import text

from app import db, streams
from app.logs import store, tail
from config.settings import settings
from tests import make
from tests.logs.entries import NOON, add


@pytest.fixture(autouse=True)
def _no_stream_is_left() -> Iterator[None]:
    before = dict(streams._open)
    yield
    assert dict(streams._open) == before


class Reader:
    """Follows a stream in a thread."""

    def __init__(self, api: Any, query: str = "source=device", last: str | None = None) -> None:
        headers = {**api.headers, **({"Last-Event-ID": last} if last else {})}
        self.answer = api.http.get(f"/api/v1/logs/stream?{query}", headers=headers)
        assert self.answer.status_code == 200, self.answer.text
        assert self.answer.mimetype == "text/event-stream"
        self.told: list[tuple[str, str, float]] = []  # (message, id, when)
        self.last = last
        self.ended = ""
        self._leave = threading.Event()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self._begun.wait(5)

    def _read(self) -> None:
        for chunk in self.answer.response:
            text = chunk if isinstance(chunk, str) else chunk.decode()
            for block in text.split("\n\n"):
                self._take(dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and line[0] != ":"))
            if self._leave.is_set():
                return

    def _take(self, fields: dict[str, str]) -> None:
        if "id" in fields:
            self.last = fields["id"]
            self._begun.set()
        if fields.get("event") == "refused":
            self.ended = fields["data"]
        elif "data" in fields:
            self.told.append((json.loads(fields["data"])["message"], fields["id"], time.monotonic()))

    @property
    def messages(self) -> list[str]:
        return [message for message, _id, _when in self.told]

    def wait(self, count: int, seconds: float = 5) -> list[str]:
        deadline = time.monotonic() + seconds
        while len(self.told) < count and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.messages

    def close(self) -> None:
        self._leave.set()
        self._thread.join(5)
        assert not self._thread.is_alive()
        self.answer.close()


@pytest.fixture(autouse=True)
def _beats(monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.5)  # a reader that is to leave hears of it


def begin(org: UUID) -> Any:
    """A transaction of an organization, beside the application's sessions."""
    connection = psycopg.connect(settings().database_url)
    connection.execute("SET ROLE edgeflow_app")
    connection.execute("SELECT set_config('app.org_id', %s, true)", [str(org)])
    return connection


def write(connection: Any, org: UUID, message: str) -> None:
    connection.execute(
        "INSERT INTO log_entries (org_id, level, source, message) VALUES (%s, 1, 'device', %s)", [org, message]
    )


def test_entries_are_told_within_a_second_and_those_before_are_not(api: Any, org: UUID) -> None:
    add(org, "before")
    reader = Reader(api)
    time.sleep(1)
    written = time.monotonic()
    add(org, "late", time=NOON - timedelta(days=3))
    add(org, "now", time=datetime.now(UTC))
    assert reader.wait(2) == ["late", "now"]
    assert reader.told[-1][2] - written < 1
    reader.close()


def test_filters_hold_for_the_stream_too(api: Any, org: UUID) -> None:
    device = uuid4()
    reader = Reader(api, f"source=device&level=warning&q=valve&device_id={device}")
    add(org, "valve hums", device=device)
    add(org, "pump stuck", device=device, level="error")
    add(org, "valve of another", level="error")
    add(org, "valve stuck", device=device, level="error")
    assert reader.wait(1) == ["valve stuck"]
    reader.close()
    api.get("/logs/stream?level=loud", expect=400)
    api.get("/logs/stream?cursor=x", expect=400)


def test_a_stream_resumes_without_loss_or_repetition(api: Any, org: UUID, monkeypatch: Any) -> None:
    monkeypatch.setattr(tail, "BATCH", 7)
    reader = Reader(api)
    add(org, *map(str, range(20)))
    reader.wait(20)
    reader.close()
    add(org, *map(str, range(20, 40)))
    everything = reader.told
    ids = [None, *(one for _message, one, _when in everything)]
    for place in (3, 7, 10, 14, 19, 20):
        resumed = Reader(api, last=ids[place])
        assert resumed.wait(40 - place) == [str(n) for n in range(place, 40)]
        time.sleep(0.2)
        assert len(resumed.told) == 40 - place
        resumed.close()


def test_a_stream_that_heard_nothing_resumes_from_where_it_began(api: Any, org: UUID) -> None:
    reader = Reader(api)
    reader.close()
    assert reader.last
    add(org, "meanwhile")
    resumed = Reader(api, last=reader.last)
    assert resumed.wait(1) == ["meanwhile"]
    resumed.close()


def test_what_commits_out_of_order_is_not_missed(api: Any, org: UUID) -> None:
    """The transaction that began first, with the lower ids and the older times, commits last."""
    first, second = begin(org), begin(org)
    write(first, org, "began first")
    reader = Reader(api)
    write(second, org, "began second")
    second.commit()
    assert reader.wait(1) == ["began second"]
    time.sleep(0.5)
    first.commit()
    assert reader.wait(2) == ["began second", "began first"]
    reader.close()
    after_the_first_told = reader.told[0][1]
    resumed = Reader(api, last=after_the_first_told)
    assert resumed.wait(1) == ["began first"]
    resumed.close()
    for connection in (first, second):
        connection.close()


def test_writers_that_race_lose_nothing_for_readers_that_come_and_go(api: Any, org: UUID) -> None:
    count, workers = 40, 6
    stop = threading.Barrier(workers)

    def scribble(worker: int) -> None:
        with begin(org) as connection:
            connection.commit()
            stop.wait()
            for number in range(count):
                connection.execute("SELECT set_config('app.org_id', %s, true)", [str(org)])
                write(connection, org, f"{worker}.{number}")
                time.sleep(0.002 * ((worker * 7 + number) % 5))
                connection.commit()

    reader = Reader(api)
    threads = [threading.Thread(target=scribble, args=(worker,)) for worker in range(workers)]
    for thread in threads:
        thread.start()
    seen, deadline = list[str](), time.monotonic() + 30
    while len(seen) + len(reader.told) < count * workers and time.monotonic() < deadline:
        reader.wait(25, 1)
        reader.close()
        seen += reader.messages
        reader = Reader(api, last=reader.last)
    for thread in threads:
        thread.join()
    reader.wait(count * workers - len(seen))
    reader.close()
    seen += reader.messages
    assert sorted(seen) == sorted(f"{worker}.{number}" for worker in range(workers) for number in range(count))


@pytest.mark.parametrize(
    "place",
    ["x", "1", "5:4:", "0:1:", "1:9:9", "1:9:3,2", "1:9:3,3", "9:9:1", "1:2:/3:4:", "1:2:/3:4:/x", "1:2:/3:4:/1/2",
     "1:2:/3:4:/9223372036854775808", "9223372036854775808:9223372036854775809:", "1:9:" + "5" * 5_000],
)  # fmt: skip
def test_what_is_no_place_of_a_stream_is_refused(api: Any, place: str) -> None:
    answer = api.get("/logs/stream", headers={"Last-Event-ID": place}, expect=400)
    assert "Last-Event-ID" in str(answer["details"])


def test_places_of_another_server_are_taken_for_what_they_are(api: Any, org: UUID) -> None:
    """After a restore from a dump, transactions' numbers begin anew: such a stream goes on with what comes."""
    reader = Reader(api, last="9000000000000000000:9000000000000000000:")
    add(org, "after a restore")
    reader.close()
    resumed = Reader(api, last=reader.last)
    add(org, "still heard")
    assert "still heard" in resumed.wait(1)
    resumed.close()


def test_another_organization_hears_nothing(app: Any, api: Any, org: UUID) -> None:
    other = make.organization()
    stranger = Reader(make.client(app, other))
    mine = Reader(api)
    add(org, "mine")
    assert mine.wait(1) == ["mine"]
    place = mine.told[0][1].split("/")[0]
    mine.close()
    forged = Reader(make.client(app, other), last="1:1:")
    add(other, "theirs")
    assert stranger.wait(1) == ["theirs"]
    assert forged.wait(1) == ["theirs"]
    assert place
    stranger.close()
    forged.close()


def test_many_streams_hold_no_connection(api: Any, org: UUID) -> None:
    readers = [Reader(api) for _ in range(40)]
    deadline = time.monotonic() + 5
    while (busy := db.pool_status()["in_use"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    add(org, "to all")
    heard = [reader.wait(1) for reader in readers]
    for reader in readers:
        reader._leave.set()
    for reader in readers:
        reader.close()
    assert busy == 0
    assert heard == [["to all"]] * 40


def test_a_stream_ends_when_its_key_is_taken_away(api: Any, org: UUID, monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "TRUSTED_SECONDS", 0.3)
    reader = Reader(api)
    time.sleep(0.6)
    add(org, "still welcome")
    reader.wait(1)
    with db.transaction(org) as session:
        session.execute(text("DELETE FROM api_keys"))
    reader._thread.join(5)
    assert not reader._thread.is_alive()
    assert json.loads(reader.ended)["code"] == "UNAUTHORIZED"
    assert reader.messages == ["still welcome"]
    reader.close()


def test_streams_count_among_the_organizations(api: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    reader = Reader(api)
    api.get("/logs/stream", expect=429)
    reader.close()


def test_a_store_of_thousands_is_told_once_to_each_organization(api: Any, org: UUID) -> None:
    moment = datetime.now(UTC)
    with psycopg.connect(settings().database_url, autocommit=True) as listener:
        listener.execute("LISTEN log_entries")
        with db.transaction(org) as session:
            store.add(session, [(org, uuid4(), moment, None, moment, "info", "x", None)] * 2_000)
        told = [one.payload for one in listener.notifies(timeout=1, stop_after=2)]
    assert told.count(str(org)) == 1
