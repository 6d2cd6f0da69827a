"""GET /logs: filters, full text, the cursor, NDJSON, and whose entries they are."""

import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest

from app import db, journal
from tests import make
from tests.logs.entries import NOON, add, messages

LINES = {"Accept": "application/x-ndjson"}


def found(api: Any, query: str = "") -> list[str]:
    return messages(api.get(f"/logs?source=device&limit=500&{query}", expect=200)["items"])


def pages(api: Any, query: str, meanwhile: Any = lambda: None) -> list[str]:
    """All pages' messages; ``meanwhile`` is called after each."""
    seen, cursor = list[str](), ""
    while True:
        page = api.get(f"/logs?source=device&{query}{cursor}", expect=200)
        seen += messages(page["items"])
        meanwhile()
        if page["next_cursor"] is None:
            return seen
        cursor = f"&cursor={page['next_cursor']}"


def test_an_entry_is_told_with_all_that_is_known(api: Any, org: UUID) -> None:
    device, _key = make.device(org)
    add(org, "valve stuck", device=device.id, level="warning", fields={"valve": 3})
    (entry,) = api.get("/logs?source=device", expect=200)["items"]
    assert isinstance(entry.pop("id"), int)
    assert entry.pop("received_at")
    assert entry == {
        "time": NOON.strftime("%Y-%m-%dT%H:%M:%SZ"), "claimed_at": None, "level": "warning", "source": "device",
        "kind": None, "device_id": str(device.id), "message": "valve stuck", "fields": {"valve": 3},
    }  # fmt: skip


def test_a_level_is_that_and_above(api: Any, org: UUID) -> None:
    for level in ("debug", "info", "warning", "error"):
        add(org, level, level=level)
    assert set(found(api)) == {"debug", "info", "warning", "error"}
    assert set(found(api, "level=warning")) == {"warning", "error"}
    assert set(found(api, "level=error")) == {"error"}
    api.get("/logs?level=fatal", expect=400)


def test_full_text_is_read_as_search_engines_read_it(api: Any, org: UUID) -> None:
    add(org, "Valve 3 stuck open", "valve 4 closed", "pump runs", "motor.temp too high")
    assert set(found(api, "q=valve")) == {"Valve 3 stuck open", "valve 4 closed"}
    assert found(api, "q=VALVE%20stuck") == ["Valve 3 stuck open"]
    assert found(api, "q=valve%20-stuck") == ["valve 4 closed"]
    assert set(found(api, "q=stuck%20or%20pump")) == {"Valve 3 stuck open", "pump runs"}
    assert found(api, f"q={quote(chr(34) + 'stuck open' + chr(34))}") == ["Valve 3 stuck open"]
    assert found(api, f"q={quote(chr(34) + 'open stuck' + chr(34))}") == []
    for strange in ("'", '"', "&|!()", ":*", "\\", "%", "-"):
        assert api.get(f"/logs?q={quote(strange)}").status_code == 200
    api.get("/logs?q=%00", expect=400)


def test_source_kind_device_and_time_narrow(api: Any, org: UUID) -> None:
    one, other = uuid4(), uuid4()
    add(org, "a", "b", device=one)
    add(org, "c", device=other, time=NOON + timedelta(minutes=1))
    with db.transaction(org):
        journal.note(org, "device.connected", "connected", device_id=one)
    assert found(api, f"device_id={one}") == ["b", "a"]
    assert messages(api.get("/logs?kind=device.connected", expect=200)["items"]) == ["connected"]
    assert messages(api.get(f"/logs?device_id={one}&source=platform", expect=200)["items"]) == ["connected"]
    moment = quote((NOON + timedelta(seconds=1)).isoformat())
    assert found(api, f"from={moment}") == ["c", "b"]
    assert found(api, f"to={moment}") == ["a"]
    assert found(api, f"from={moment}&to={quote((NOON + timedelta(minutes=1)).isoformat())}") == ["b"]
    api.get(f"/logs?from={moment}&to={moment}", expect=400)


def test_pages_neither_repeat_nor_skip_while_entries_are_inserted(api: Any, org: UUID) -> None:
    add(org, *map(str, range(25)))
    number = iter(range(100, 200))

    def more_comes() -> None:
        add(org, f"new {next(number)}", time=NOON + timedelta(minutes=30))
        add(org, f"late {next(number)}", time=NOON - timedelta(days=2))

    seen = pages(api, "limit=4", more_comes)
    assert [one for one in seen if one.isdecimal()] == [str(n) for n in reversed(range(25))]
    assert not [one for one in seen if one.startswith("new")], "newer than where one reads"
    late = [one for one in seen if one.startswith("late")]
    assert late, "older than where one reads"
    assert len(set(seen)) == len(seen)


def test_entries_of_one_instant_are_told_apart(api: Any, org: UUID) -> None:
    for n in range(10):
        add(org, str(n))
    assert pages(api, "limit=3") == [str(n) for n in reversed(range(10))]


@pytest.mark.parametrize(
    "cursor",
    ["x", "!!", "MQ", "MS4", "LTEuMQ", "MTAwMDAwMDAwMDAwMDAwMDAwMDAuMQ", "4LiB", "MS45MjIzMzcyMDM2ODU0Nzc1ODA4"],
)
def test_what_is_no_cursor_is_refused(api: Any, cursor: str) -> None:
    answer = api.get(f"/logs?cursor={cursor}", expect=400)
    assert list(answer["details"]) == ["cursor"]


def test_lines_of_json_by_accept_with_a_link_to_the_next_page(api: Any, org: UUID) -> None:
    add(org, *map(str, range(5)))
    answer, read = api.get("/logs?source=device&limit=2", headers=LINES), list[str]()
    while True:
        assert (answer.status_code, answer.mimetype) == (200, "application/x-ndjson")
        read += [json.loads(line)["message"] for line in answer.text.splitlines()]
        if "Link" not in answer.headers:
            break
        following = answer.headers["Link"].split(">")[0].removeprefix("</api/v1")
        answer = api.get(following, headers=LINES)
    assert read == ["4", "3", "2", "1", "0"]
    assert api.get("/logs?source=device&limit=2").headers["Link"].endswith('rel="next"')


def test_a_device_has_its_own_address_while_it_is_there(api: Any, org: UUID) -> None:
    device, _key = make.device(org)
    add(org, "its own", device=device.id)
    add(org, "another's")
    path = f"/logs/devices/{device.id}"
    assert messages(api.get(path, expect=200)["items"]) == ["its own"]
    assert messages(api.get(f"{path}?q=own&level=info&limit=1", expect=200)["items"]) == ["its own"]
    api.get(f"{path}?device_id={device.id}", expect=400)
    api.delete(f"/devices/{device.id}", expect=204)
    api.get(path, expect=404)
    assert "its own" in messages(api.get(f"/logs?device_id={device.id}", expect=200)["items"])


def test_another_organization_sees_nothing(app: Any, org: UUID) -> None:
    device, _key = make.device(org)
    add(org, "secret valve", device=device.id)
    stranger = make.client(app, make.organization())
    for query in ("", "q=valve", f"device_id={device.id}"):
        assert "secret valve" not in messages(stranger.get(f"/logs?{query}", expect=200)["items"])
    stranger.get(f"/logs/devices/{device.id}", expect=404)


def test_viewers_may_read(app: Any, org: UUID) -> None:
    make.client(app, org, "viewer").get("/logs", expect=200)
