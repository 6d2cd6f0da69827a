"""Devices over REST: register, list, change, delete."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import event, text

from app import db
from app.devices import service
from tests import make
from tests.devices.helpers import connect, jobs_for

FIELDS = {
    "id", "name", "type", "status", "disabled", "tags", "metadata", "hardware_info", "network_info", "agent_version",
    "protocol", "capabilities", "last_seen_at", "connected_at", "created_at", "updated_at",
}  # fmt: skip


def names(api: Any, query: str) -> list[str]:
    return [item["name"] for item in api.get(f"/devices?{query}", expect=200)["items"]]


def test_register(api: Any) -> None:
    body = {"name": "pump-7", "type": "pump", "tags": ["north", "pump", "north"], "metadata": {"room": "B2"}}
    answer = api.post("/devices", body)
    made = answer.json
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/api/v1/devices/{made['id']}"
    assert made.keys() == FIELDS | {"api_key", "provisioning_code", "provisioning_expires_at"}
    assert made["api_key"].startswith("device_")
    assert made["provisioning_code"].startswith("code_")
    assert (made["name"], made["tags"], made["status"]) == ("pump-7", ["north", "pump"], "pending")
    shown = api.get(f"/devices/{made['id']}", expect=200)
    listed = {key: made[key] for key in FIELDS}
    assert shown == listed | {"drift": []}
    assert api.get("/devices", expect=200) == {"items": [listed], "total": 1, "limit": 50, "offset": 0}


def test_the_key_opens_the_shadow_at_once(app: Any, api: Any) -> None:
    made = api.post("/devices", {"name": "pump-7"}, expect=201)
    device = make.Client(app, {"X-API-Key": made["api_key"]})
    assert device.get(f"/devices/{made['id']}/shadow", expect=200)["version"] == 0


def test_no_secret_is_stored_in_clear(org: UUID, api: Any) -> None:
    made = api.post("/devices", {"name": "pump-7"}, expect=201)
    with db.transaction(org) as session:
        for table in ("devices", "device_keys", "shadows"):
            rows = session.execute(text(f"SELECT t::text FROM {table} t")).scalars().all()
            assert rows
            assert not any(made["api_key"] in row or made["provisioning_code"] in row for row in rows)


def test_the_same_idempotency_key_registers_one(api: Any) -> None:
    answers = [api.post("/devices", {"name": "a"}, headers={"Idempotency-Key": "k1"}, expect=201) for _ in range(2)]
    assert answers[0] == answers[1]
    assert api.get("/devices", expect=200)["total"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"), ({"name": ""}, "name"), ({"name": "x" * 201}, "name"), ({"name": None}, "name"),
        ({"name": "a\0b"}, "name"), ({"name": "a\ud800"}, "_body"), ({"name": "a", "colour": "red"}, "colour"),
        ({"name": "a", "tags": "pump"}, "tags"), ({"name": "a", "tags": ["a\0"]}, "tags.0"),
        ({"name": "a", "tags": [""]}, "tags.0"), ({"name": "a", "tags": ["t"] * 65}, "tags"),
        ({"name": "a", "metadata": []}, "metadata"), ({"name": "a", "metadata": {"k": "\0"}}, "metadata"),
        ({"name": "a", "metadata": {"k\0": 1}}, "metadata"), ({"name": "a", "metadata": {"k": ["\ud800"]}}, "_body"),
        ({"name": "a", "metadata": {"a": [[[[[[[[1]]]]]]]]}}, "metadata"),
        ({"name": "a", "status": "online"}, "status"),
    ],
)  # fmt: skip
def test_what_is_not_valid_is_refused(api: Any, body: Any, field: str) -> None:
    refused = api.post("/devices", body, expect=400)
    assert (refused["code"], list(refused["details"])) == ("VALIDATION_ERROR", [field])
    if "name" not in refused["details"] and "name" in body:
        made = api.post("/devices", {"name": "a"}, expect=201)
        changed = {key: value for key, value in body.items() if key != "name"} or body
        assert api.put(f"/devices/{made['id']}", changed, expect=400)["code"] == "VALIDATION_ERROR"


def test_large_metadata_is_refused(api: Any) -> None:
    assert api.post("/devices", {"name": "a", "metadata": {"k": "x" * 33_000}}, expect=413)["status"] == 413


def test_change_only_what_is_given(api: Any) -> None:
    made = api.post("/devices", {"name": "a", "tags": ["x"], "metadata": {"k": 1, "l": 2}}, expect=201)
    path = f"/devices/{made['id']}"
    changed = api.put(path, {"metadata": {"k": 3}}, expect=200)
    assert (changed["name"], changed["tags"], changed["metadata"]) == ("a", ["x"], {"k": 3})
    assert changed["updated_at"] > made["updated_at"]
    changed = api.put(path, {"name": "b", "tags": [], "type": "gateway"}, expect=200)
    assert (changed["name"], changed["tags"], changed["type"], changed["metadata"]) == ("b", [], "gateway", {"k": 3})
    assert api.put(path, {}, expect=200) == changed == api.get(path, expect=200)


def test_disable_and_enable(app: Any, org: UUID, api: Any) -> None:
    device, key = make.device(org)
    connect(org, device.id, gateway="web-3")
    path, agent = f"/devices/{device.id}", make.Client(app, {"X-API-Key": key})
    for _ in range(2):
        disabled = api.put(path, {"disabled": True}, expect=200)
        assert (disabled["disabled"], disabled["status"]) == (True, "disabled")
    agent.get(f"{path}/shadow", expect=401)
    assert jobs_for("tunnel.close", org, device.id) == [[str(org), str(device.id), "web-3", 4003, "device disabled"]]
    assert api.put(path, {"disabled": False}, expect=200)["status"] == "online"
    agent.get(f"{path}/shadow", expect=200)


def test_delete(app: Any, org: UUID, api: Any) -> None:
    device, key = make.device(org)
    connect(org, device.id)
    path = f"/devices/{device.id}"
    assert api.delete(path).status_code == 204
    make.Client(app, {"X-API-Key": key}).get(f"{path}/shadow", expect=401)
    api.get(path, expect=404)
    api.delete(path, expect=404)
    assert jobs_for("tunnel.close", org, device.id) == [[str(org), str(device.id), "web-1", 4003, "device deleted"]]
    assert jobs_for("rollouts.device_removed", org, device.id) == [[str(org), str(device.id)]]


def test_a_foreign_device_is_as_a_random_one(api: Any) -> None:
    theirs = make.organization()
    foreign, _ = make.device(theirs, name="theirs")
    for method, suffix, body in (
        ("GET", "", None), ("PUT", "", {"name": "mine"}), ("DELETE", "", None), ("GET", "/status", None),
    ):  # fmt: skip
        answers = [api.request(method, f"/devices/{id}{suffix}", body).json for id in (foreign.id, uuid4())]
        assert [(a["status"], a["error"]) for a in answers] == [(404, "device not found")] * 2
    assert api.get("/devices", expect=200)["total"] == 0
    with db.transaction(theirs):
        assert service.get(theirs, foreign.id).name == "theirs"


def test_viewers_only_look(app: Any, org: UUID) -> None:
    device, _ = make.device(org)
    viewer = make.client(app, org, "viewer")
    for path in ("/devices", f"/devices/{device.id}", f"/devices/{device.id}/status"):
        viewer.get(path, expect=200)
    viewer.post("/devices", {"name": "a"}, expect=403)
    viewer.put(f"/devices/{device.id}", {"name": "a"}, expect=403)
    viewer.delete(f"/devices/{device.id}", expect=403)
    make.Client(app, {}).get("/devices", expect=401)


def test_filters(org: UUID, api: Any) -> None:
    make.device(org, name="north pump", tags=["pump", "north"])
    make.device(org, name="south_pump", tags=["pump", "south"], hardware_info={"serial": "XYZ-123"})
    make.device(org, name="50% valve", tags=["valve"])
    assert names(api, "tag=pump&sort=name") == ["north pump", "south_pump"]
    assert names(api, "tag=pump&tag=south") == ["south_pump"]
    assert names(api, "tag=pump&tag=valve") == []
    assert names(api, "q=PUMP&sort=-name") == ["south_pump", "north pump"]
    assert names(api, "q=xyz-1") == ["south_pump"]
    assert names(api, "q=valve") == ["50% valve"]
    assert names(api, "q=%25") == ["50% valve"]
    assert names(api, "q=_") == ["south_pump"]
    wanted = api.get("/devices?q=50", expect=200)["items"][0]["id"]
    assert names(api, f"q={wanted[:13].upper()}") == ["50% valve"]
    assert names(api, f"q={wanted[9:]}") == []
    assert names(api, "status=pending&tag=valve&q=50") == ["50% valve"]
    for refused in (
        "status=asleep",
        "q=%00",
        "tag=%00",
        "q=",
        "sort=password",
        "limit=0",
        "limit=501",
        "tags=a",
    ):
        api.get(f"/devices?{refused}", expect=400)


def test_paging(org: UUID, api: Any) -> None:
    make.devices(7, org)
    first = api.get("/devices?limit=3&sort=name")
    assert first.json | {"items": 0} == {"items": 0, "total": 7, "limit": 3, "offset": 0}
    assert 'offset=3>; rel="next"' in first.headers["Link"]
    everything = [name for offset in (0, 3, 6) for name in names(api, f"limit=3&offset={offset}")]
    assert sorted(everything) == [f"device-{number}" for number in range(7)]
    assert api.get("/devices?offset=9", expect=200) == {"items": [], "total": 7, "limit": 50, "offset": 9}


def test_sorting(org: UUID, api: Any) -> None:
    for name, silent in (("b", 5), ("a", 30), ("c", None)):
        device, _ = make.device(org, name=name)
        if silent is not None:
            connect(org, device.id, silent=silent)
    assert names(api, "sort=name") == ["a", "b", "c"]
    assert names(api, "sort=-created_at") == names(api, "") == ["c", "a", "b"]
    assert names(api, "sort=-last_seen_at") == ["b", "a", "c"]
    assert names(api, "sort=last_seen_at") == ["c", "a", "b"]
    assert names(api, "sort=-status") == ["c", *sorted(["a", "b"], key=names(api, "sort=-status").index)]
    assert names(api, "sort=updated_at") == ["b", "a", "c"]


@contextmanager
def counted() -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        statements.append(statement)

    event.listen(db.engine(), "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(db.engine(), "before_cursor_execute", note)


def test_the_list_takes_as_many_statements_for_many_as_for_few(org: UUID, api: Any) -> None:
    for device, _ in make.devices(60, org):
        connect(org, device.id)
    api.get("/devices")  # the key's use is noted once a minute
    taken = {}
    for limit in (5, 50):
        with counted() as statements:
            page = api.get(f"/devices?limit={limit}&status=online&sort=-last_seen_at", expect=200)
        assert (len(page["items"]), page["total"]) == (limit, 60)
        taken[limit] = statements
    assert taken[5] == taken[50]
    assert len(taken[50]) <= 3


def test_targets(org: UUID, api: Any) -> None:
    pumps = {device.id for device, _ in make.devices(2, org, tags=["pump", "x"])}
    valve = make.device(org, tags=["valve"])[0].id
    foreign = make.device(make.organization(), tags=["pump"])[0].id

    def chosen(**target: Any) -> set[UUID]:
        with db.transaction(org) as session:
            return set(session.scalars(service.select_targets(org, **target)))

    assert chosen(tags=["pump", "none"]) == pumps
    assert chosen(device_ids=[valve, foreign, uuid4()]) == {valve}
    assert chosen(device_ids=[valve], tags=["x"]) == chosen(all=True) == pumps | {valve}
    assert chosen() == chosen(tags=[], device_ids=[]) == set()
