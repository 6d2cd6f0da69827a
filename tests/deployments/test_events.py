"""Events of deployments: what is written when, the list, and the streams."""

import json
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from app import db, retention, streams
from app.deployments import events
from app.watch import watcher
from config.settings import settings
from tests import make
from tests.deployments.fleet import Fleet

STREAM = {"Accept": "text/event-stream"}


def listed(fleet: Fleet, deployment: Any, **query: Any) -> list[Any]:
    text = "&".join(f"{key}={value}" for key, value in {"limit": 500, **query}.items())
    items: list[Any] = fleet.api.get(f"/deployments/{deployment['id']}/events?{text}", expect=200)["items"]
    return items


def of_kind(items: list[Any], kind: str) -> list[Any]:
    return [item["data"] for item in items if item["kind"] == kind]


def statuses(items: list[Any]) -> list[Any]:
    return [(data["previous_status"], data["status"]) for data in of_kind(items, "status")]


def follow(fleet: Fleet, deployment: Any, **headers: str) -> Any:
    """An answer whose body is read as it comes."""
    return fleet.api.http.get(
        f"/api/v1/deployments/{deployment['id']}/events", headers={**fleet.api.headers, **STREAM, **headers}
    )


def frames(answer: Any) -> list[dict[str, str]]:
    """The events of a stream that has ended, by field."""
    blocks = [block for block in answer.get_data(as_text=True).split("\n\n") if "data:" in block]
    answer.close()
    return [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]


@pytest.fixture
def rollouts() -> Any:
    from workers import rollouts

    return rollouts


@pytest.fixture(autouse=True)
def _no_stream_is_left() -> Iterator[None]:
    before = dict(streams._open)
    yield
    assert dict(streams._open) == before


def test_each_change_is_an_event_in_order(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    made = fleet.deploy(start=False)
    fleet.act(made, "start")
    commands = fleet.step(made)
    fleet.answer(commands[:2])
    fleet.answer(commands[2:], "UNSUPPORTED_NODE_TYPE", error="no gpio")
    fleet.finish(made)
    items = listed(fleet, made)
    assert [item["id"] for item in items] == sorted(item["id"] for item in items)
    ended = fleet.read(made)["status"]
    assert statuses(items) == [(None, "created"), ("created", "in_progress"), ("in_progress", ended)]
    assert items[-1]["kind"] == "status", "the end comes last"
    assert of_kind(items, "status")[-1]["reason"] == fleet.read(made)["reason"]
    executions = of_kind(items, "execution")
    assert [one["state"] for one in executions[:3]] == ["in_progress"] * 3
    assert sorted(one["state"] for one in executions[3:]) == ["rejected", "succeeded", "succeeded"]
    assert [one["error"] for one in executions if one["state"] == "rejected"] == ["no gpio"]
    last = of_kind(items, "progress")[-1]
    assert (last["kind"], last["counts"]["succeeded"], last["counts"]["rejected"], last["counts"]["total"]) == (
        "install", 2, 1, 3,
    )  # fmt: skip
    assert of_kind(items, "stage")[-1]["status"] in ("succeeded", "failed")


def test_many_devices_are_one_statement_and_a_look_that_changes_nothing_is_no_event(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 40)
    fleet.disconnect(*fleet.devices[20:])
    made = fleet.deploy()
    assert len(fleet.step(made)) == 20
    fleet.step(made)
    before = listed(fleet, made)
    assert len(of_kind(before, "execution")) == 20
    fleet.step(made)
    assert listed(fleet, made) == before


def test_a_change_that_is_rolled_back_leaves_no_event(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(start=False)
    fleet.sql("DELETE FROM devices")
    fleet.act(made, "start", expect=409)
    assert statuses(listed(fleet, made)) == [(None, "created")]


def test_the_list_goes_on_after_an_event(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 5)
    made = fleet.deploy()
    fleet.finish(made)
    everything, after, pages = listed(fleet, made), 0, []
    while True:
        page = api.get(f"/deployments/{made['id']}/events?limit=4&after={after}", expect=200)
        pages += page["items"]
        after = page["next_after"]
        if not page["more"]:
            break
    assert pages == everything
    assert api.get(f"/deployments/{made['id']}/events?after={after}", expect=200) == {
        "items": [], "next_after": after, "more": False,
    }  # fmt: skip
    assert api.get(f"/deployments/{uuid4()}/events", expect=404)
    assert api.get(f"/deployments/{made['id']}/events?limit=0", expect=400)


def test_another_organization_sees_no_event(app: Any, api: Any, org: UUID) -> None:
    made = Fleet(api, org, 1).deploy()
    stranger = make.client(app, make.organization())
    stranger.get(f"/deployments/{made['id']}/events", expect=404)
    stranger.get(f"/deployments/{made['id']}/events", expect=404, headers=STREAM)


def test_late_answers_change_nothing_and_are_told_once(api: Any, org: UUID, rollouts: Any) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy(strategy={"retries": 0})
    commands = fleet.step(made)
    fleet.answer(commands[:1])
    fleet.sql("UPDATE executions SET lease_until = now() - interval '1 s' WHERE lease_until > now()")
    fleet.step(made)
    before = fleet.read(made)
    assert (before["status"], before["progress"]["timed_out"]) == ("failed", 1)
    late = [[str(one.id), "succeeded", None, None] for one in commands]
    for _ in range(2):
        rollouts.note_late(str(org), late)
    after = fleet.read(made)
    assert after == before
    (told,) = of_kind(listed(fleet, made), "late_answer")  # the other one only says again what is known
    assert (told["answer"], told["state"], told["attempt"], told["error"]) == ("succeeded", "timed_out", 1, None)
    assert told["device_name"] in {device.name for device in fleet.devices}


def test_a_settled_late_answer_asks_for_its_event(api: Any, org: UUID, rollouts: Any) -> None:
    from app import jobs

    fleet = Fleet(api, org, 1)
    made = fleet.deploy(strategy={"retries": 0})
    (command,) = fleet.step(made)
    fleet.sql("UPDATE executions SET lease_until = now() - interval '1 s'")
    fleet.step(made)
    rollouts.settle(str(org), [[str(command.id), "error", "START_FAILED", "too little memory", None]])
    messages = jobs.broker().client.hvals("edgeflow:rollouts.msgs")
    (asked,) = [json.loads(one) for one in messages if b"note_late" in one and str(command.id).encode() in one]
    rollouts.note_late(*asked["args"])
    (told,) = of_kind(listed(fleet, made), "late_answer")
    assert (told["answer"], told["error"], told["error_code"]) == ("error", "too little memory", "START_FAILED")
    assert fleet.read(made)["progress"]["timed_out"] == 1


def test_events_are_forgotten_90_days_after_the_end(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    old, running = fleet.finish(fleet.deploy()), fleet.deploy(start=False)
    kept = listed(fleet, old)
    for days, left in ((89, kept), (91, [])):
        fleet.sql("UPDATE deployments SET finished_at = now() - make_interval(days => :days) WHERE id = :id",
                  days=days, id=old["id"])  # fmt: skip
        with db.transaction(system=True):
            retention.clean()
        assert listed(fleet, old) == left
    assert listed(fleet, running)


def test_a_stream_of_a_finished_deployment_tells_all_and_ends(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy()
    fleet.finish(made)
    answer = follow(fleet, made)
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    assert (answer.headers["Cache-Control"], answer.headers["X-Accel-Buffering"]) == ("no-store", "no")
    told = frames(answer)
    items = listed(fleet, made)
    assert [json.loads(one["data"]) for one in told] == items
    assert [(one["id"], one["event"]) for one in told] == [(str(item["id"]), item["kind"]) for item in items]
    resumed = frames(follow(fleet, made, **{"Last-Event-ID": told[2]["id"]}))
    assert resumed == told[3:]
    assert follow(fleet, made, **{"Last-Event-ID": told[-1]["id"]}).status_code == 204


def test_a_stream_hears_of_changes_at_once_and_ends_after_the_last(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy()
    heard: list[tuple[float, str]] = []

    def read() -> None:
        answer = follow(fleet, made)
        for chunk in answer.response:
            heard.append((time.monotonic(), chunk.decode() if isinstance(chunk, bytes) else chunk))
        answer.close()

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(1.5)
    commands = fleet.step(made)
    fleet.answer(commands)
    changed = time.monotonic()
    fleet.step(made)
    reader.join(5)
    assert not reader.is_alive()
    assert heard[-1][0] - changed < 2
    assert '"status":"succeeded"' in heard[-1][1]


def test_a_waiting_stream_holds_no_connection_and_beats(api: Any, org: UUID, monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.2)
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    answer = follow(fleet, made)
    chunks = answer.response
    beats = 0
    while beats < 3:
        beats += b"still here" in _bytes(next(chunks))
    # Threads of this process (a heartbeat) are within a transaction for an instant now and then; a stream would stay.
    deadline = time.monotonic() + 5
    while (busy := _in_transaction()) and time.monotonic() < deadline:
        time.sleep(0.05)
    answer.close()
    assert not busy


def _in_transaction() -> int:
    with psycopg.connect(settings().database_url, autocommit=True) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
            "AND state LIKE 'idle in transaction%'"
        ).fetchone()
    assert row
    return int(row[0])


def _bytes(chunk: Any) -> bytes:
    return chunk if isinstance(chunk, bytes) else chunk.encode()


def test_a_stream_ends_when_its_key_is_taken_away(app: Any, api: Any, org: UUID, monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(streams, "TRUSTED_SECONDS", 0.3)
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    answer = follow(fleet, made)
    chunks = answer.response
    time.sleep(0.5)
    assert b"created" in _bytes(next(chunks)) + _bytes(next(chunks)), "asked again, and still welcome"
    fleet.sql("DELETE FROM api_keys")
    rest = b"".join(_bytes(chunk) for chunk in chunks)
    assert rest.rsplit(b"event: ", 1)[1].startswith(b"refused\ndata: ")
    assert b'"code":"UNAUTHORIZED"' in rest
    answer.close()


def test_streams_of_an_organization_are_bounded(app: Any, api: Any, org: UUID, monkeypatch: Any) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 2)
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    answers = [follow(fleet, made) for _ in range(2)]
    refused = follow(fleet, made)
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "15")
    answers[0].close()
    answers[0].close()
    again = follow(fleet, made)
    assert again.status_code == 200
    assert follow(fleet, made).status_code == 429
    other = make.organization()
    theirs = Fleet(make.client(app, other), other, 1)
    last = follow(theirs, theirs.deploy())
    assert last.status_code == 200
    for answer in (answers[1], again, last):
        answer.close()


def test_a_lost_listener_is_made_again(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy()
    with watcher.waiting(events.CHANNEL, UUID(made["id"])) as wake:
        time.sleep(1)
        with psycopg.connect(settings().database_url, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'edgeflow-events' AND datname = current_database()"
            )
        wake.clear()
        assert wake.wait(2), "woken to look for itself"
        time.sleep(1.5)
        wake.clear()
        fleet.step(made)
        assert wake.wait(2)
    assert not watcher._waiting
