"""Look-ups outside of a transaction: they leave nothing behind, and outlive the loss of their connections."""

import threading
import time
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

from app import db, lookups
from config.settings import settings
from tests import make
from tests.make import Client

PID = text("SELECT pg_backend_pid()")


pytestmark = pytest.mark.usefixtures("app")


def cut() -> None:
    """End the connection of the look-ups."""
    (pid,) = db.look_up(PID, {}) or (0,)
    with psycopg.connect(settings().database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def test_what_a_look_up_sets_ends_with_it() -> None:
    tell = text("SELECT set_config('app.org_id', :org, true), pg_backend_pid()")
    _, told = db.look_up(tell, {"org": str(uuid4())}) or (None, None)
    left, asked = db.look_up(text("SELECT current_setting('app.org_id', true), pg_backend_pid()"), {}) or (None, None)
    assert (left or "", asked) == ("", told)


def test_what_meets_a_cut_connection_is_asked_once_more() -> None:
    before = db.look_up(PID, {})
    cut()
    assert db.look_up(PID, {}) not in (None, before)


def test_one_that_lay_idle_is_tried_before_it_is_used() -> None:
    cut()
    time.sleep(db.FRESH_SECONDS)
    assert db.look_up(PID, {})


def test_what_breaks_the_new_connection_too_is_told_and_the_next_is_not() -> None:
    """It is asked twice, not for ever."""
    assert db.look_up(PID, {})  # there is one to break: on its first connection nothing is asked again
    with psycopg.connect(settings().database_url, autocommit=True) as connection:
        ended = set[int]()
        stop = threading.Event()

        def end_each() -> None:
            while not stop.wait(0.02):
                find = (
                    "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE query LIKE 'SELECT pg_sleep(3.25)%'"
                )
                ended.update(pid for pid, _done in connection.execute(find))

        thread = threading.Thread(target=end_each)
        thread.start()
        try:
            with pytest.raises(DBAPIError) as caught:
                db.look_up(text("SELECT pg_sleep(3.25)"), {})
        finally:
            stop.set()
            thread.join()
    assert caught.value.connection_invalidated
    assert len(ended) == 2
    assert db.look_up(PID, {})


def test_a_database_that_is_away_is_told_and_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_arguments: Any, **_options: Any) -> Any:
        raise psycopg.OperationalError("connection refused")

    cut()
    with monkeypatch.context() as patched:
        patched.setattr(db.BoundedConnection, "connect", away)
        with pytest.raises(OperationalError) as caught:
            db.look_up(PID, {})
    assert caught.value.connection_invalidated
    assert db.look_up(PID, {})


def test_one_that_is_not_answered_in_time_is_told_and_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert db._lookups
    monkeypatch.setattr(db._lookups, "_seconds", 0.3)
    began = time.monotonic()
    with pytest.raises(OperationalError, match="timeout"):
        db.look_up(text("SELECT pg_sleep(2)"), {})
    assert time.monotonic() - began < 1
    assert db.look_up(PID, {})


def test_a_request_that_meets_a_cut_one_is_answered_all_the_same(app: Any, org: Any) -> None:
    device, _key = make.device(org)
    api = make.client(app, org)
    path = f"/edge-nodes/{device.id}/health"
    assert api.get(path, expect=503)["code"] == "DEVICE_OFFLINE"
    cut()
    assert api.get(path, expect=503)["code"] == "DEVICE_OFFLINE"


def test_each_of_many_callers_gets_his_own_row_and_his_own_error() -> None:
    wrong = list[object]()

    def ask(number: int) -> None:
        for turn in range(100):
            said = f"{number}-{turn}"
            row = db.look_up(text("SELECT :said, set_config('app.org_id', :said, true)"), {"said": said})
            if row != (said, said):
                wrong.append(row)
            try:
                wrong.append(db.look_up(text("SELECT 1 / :by"), {"by": 0}))
            except DBAPIError as error:
                wrong.extend([] if "division by zero" in str(error) and not error.connection_invalidated else [error])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)


def test_more_than_one_exchange_takes_are_all_answered() -> None:
    rows = list[Any]()

    def ask(number: int) -> None:
        rows.append(db.look_up(text("SELECT :number, repeat('x', 4000)"), {"number": number}))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(500)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(row[0] for row in rows) == list(range(500))


def test_values_of_every_kind_come_and_go() -> None:
    one, many = uuid4(), [b"a\0b", b""]
    row = db.look_up(
        text("SELECT CAST(:one AS uuid), CAST(:many AS bytea[]), :number + 0.5, CAST(:none AS text), true"),
        {"one": one, "many": many, "number": 2.0, "none": None},
    )
    assert row == (one, many, 2.5, None, True)
    # The same statement with values of other types is another one to the database.
    assert (db.look_up(text("SELECT :a || 'b'"), {"a": "a"}), db.look_up(text("SELECT :a || 'b'"), {"a": None})) == (
        ("ab",), (None,),
    )  # fmt: skip


def test_a_value_that_cannot_be_sent_is_its_callers_error_alone() -> None:
    with pytest.raises(DBAPIError):
        db.look_up(text("SELECT :what"), {"what": object()})
    assert db.look_up(PID, {})


def test_a_statement_whose_tables_change_is_prepared_again() -> None:
    statement = text("SELECT * FROM changing_look_ups")
    with psycopg.connect(settings().database_url, autocommit=True) as connection:
        connection.execute("CREATE TABLE changing_look_ups AS SELECT 1 AS a")
        connection.execute("GRANT SELECT ON changing_look_ups TO edgeflow_app")
        try:
            assert db.look_up(statement, {}) == (1,)
            connection.execute("ALTER TABLE changing_look_ups ADD b int DEFAULT 2")
            with pytest.raises(DBAPIError, match="cached plan"):
                db.look_up(statement, {})
            assert db.look_up(statement, {}) == (1, 2)
        finally:
            connection.execute("DROP TABLE changing_look_ups")


def test_a_foreign_device_is_looked_up_as_one_that_is_not_there(app: Any, org: Any) -> None:
    device, _key = make.device(make.organization("Other"))
    found = [make.client(app, org).get(f"/edge-nodes/{one}/health", expect=404) for one in (device.id, uuid4())]
    assert {one["error"] for one in found} == {"device not found"}


def test_a_member_of_another_organization_sees_no_device_of_the_one_he_names(app: Any, org: Any) -> None:
    device, _key = make.device(org)
    other = Client(app, {"X-API-Key": make.api_key(make.organization("Other")), "X-Organization-Id": str(org)})
    assert other.get(f"/edge-nodes/{device.id}/health", expect=403)["code"] == "FORBIDDEN"


def test_one_whose_caller_is_gone_gives_its_answer_to_nobody() -> None:
    """As a request's greenlet that is ended in its wait."""
    assert db._lookups
    gone = lookups._Asked(text("SELECT 'his'"), {})
    db._lookups._waiting.append(gone)
    assert db.look_up(text("SELECT 'hers'"), {}) == ("hers",)
    assert gone.row == ("his",)
