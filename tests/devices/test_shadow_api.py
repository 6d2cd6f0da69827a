"""The shadow over REST: who writes what, versions, limits, races, the push."""

from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests import make
from tests.devices.helpers import at_once, jobs_for

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture
def device(app: Any, org: UUID) -> Any:
    """A device: its shadow's path, and a client with its key."""
    made, key = make.device(org)
    client = make.Client(app, {"X-API-Key": key})
    client.id, client.path = made.id, f"/devices/{made.id}/shadow"
    return client


def test_a_new_shadow_is_empty_but_whole(api: Any, device: Any) -> None:
    document = api.get(device.path, expect=200)
    updated_at = document.pop("updated_at")
    assert document == {
        "device_id": str(device.id), "version": 0, "desired": {}, "reported": {}, "delta": {},
        "metadata": {"desired": {}, "reported": {}}, "sync_state": "unknown",
    }  # fmt: skip
    assert datetime.fromisoformat(updated_at).tzinfo is not None
    assert updated_at.endswith("Z")


def test_a_change_travels_to_the_device_and_back(api: Any, device: Any) -> None:
    wanted = api.put(device.path, {"desired": {"led": {"color": "red"}, "rate": 5}, "client_token": "t-1"}, expect=200)
    assert (wanted["version"], wanted["client_token"], wanted["sync_state"]) == (1, "t-1", "unknown")
    assert wanted["delta"] == {"led": {"color": "red"}, "rate": 5}
    assert set(wanted["metadata"]["desired"]) == {"led.color", "rate"}
    assert wanted["metadata"]["desired"]["rate"] == wanted["updated_at"]

    told = device.put(device.path, {"reported": {"led": {"color": "red"}, "rate": 4, "online": True}}, expect=200)
    assert (told["version"], told["delta"], told["sync_state"]) == (2, {"rate": 5}, "pending")
    assert "client_token" not in told

    done = device.put(device.path, {"reported": {"rate": 5.0}}, expect=200)
    assert (done["version"], done["delta"], done["sync_state"]) == (3, {}, "in_sync")
    assert done["metadata"]["reported"]["online"] == told["metadata"]["reported"]["online"]
    assert done["metadata"]["reported"]["rate"] > told["metadata"]["reported"]["rate"]
    assert api.get(device.path, expect=200) == done == device.get(device.path, expect=200)


def test_null_deletes_and_arrays_are_replaced(api: Any, device: Any) -> None:
    api.put(device.path, {"desired": {"a": {"b": 1, "c": 2}, "pins": [1, 2, 3]}}, expect=200)
    document = api.put(device.path, {"desired": {"a": {"b": None}, "pins": [4]}}, expect=200)
    assert document["desired"] == {"a": {"c": 2}, "pins": [4]}
    assert set(document["metadata"]["desired"]) == {"a.c", "pins"}


def test_a_stale_version_is_refused_with_the_current_one(api: Any, device: Any) -> None:
    api.put(device.path, {"desired": {"a": 1}, "version": 0}, expect=200)
    refused = api.put(device.path, {"desired": {"a": 2}, "version": 0}, expect=409)
    assert (refused["code"], refused["current_version"]) == ("VERSION_CONFLICT", 1)
    assert api.get(device.path, expect=200)["desired"] == {"a": 1}
    api.put(device.path, {"desired": {"a": 2}, "version": 1}, expect=200)


def test_a_device_clears_desired_but_never_writes_it(api: Any, device: Any) -> None:
    api.put(device.path, {"desired": {"reboot": True, "a": {"b": 1}}}, expect=200)
    cleared = device.put(
        device.path,
        {"desired": {"reboot": None, "a": {"b": None}, "x": {"y": None}}, "reported": {"boot": 2}},
        expect=200,
    )
    assert (cleared["desired"], cleared["reported"]) == ({"a": {}}, {"boot": 2})
    assert device.put(device.path, {"desired": {"a": 1}}, expect=403)["code"] == "FORBIDDEN"
    assert api.get(device.path, expect=200) == cleared


def test_users_write_desired_only(app: Any, org: UUID, api: Any, device: Any) -> None:
    api.put(device.path, {"reported": {"a": 1}}, expect=403)
    api.put(device.path, {"desired": {"a": 1}, "reported": {"a": 1}}, expect=403)
    viewer = make.client(app, org, "viewer")
    viewer.put(device.path, {"desired": {"a": 1}}, expect=403)
    assert viewer.get(device.path, expect=200)["version"] == 0


def test_a_device_key_opens_its_own_shadow_only(app: Any, org: UUID, device: Any) -> None:
    neighbour, _ = make.device(org)
    foreign, _ = make.device(make.organization())
    for other in (neighbour.id, foreign.id, uuid4()):
        answers = (
            device.get(f"/devices/{other}/shadow"),
            device.put(f"/devices/{other}/shadow", {"reported": {"a": 1}}),
        )
        assert [(answer.status_code, answer.json["error"]) for answer in answers] == [(404, "device not found")] * 2
    for path in ("/devices", f"/devices/{device.id}", f"/devices/{device.id}/status"):
        device.get(path, expect=403)
    device.delete(f"/devices/{device.id}", expect=403)


def test_a_foreign_shadow_is_not_there(api: Any) -> None:
    foreign, _ = make.device(make.organization())
    for other in (foreign.id, uuid4()):
        assert api.get(f"/devices/{other}/shadow", expect=404)["code"] == "NOT_FOUND"
        assert api.put(f"/devices/{other}/shadow", {"desired": {"a": 1}}, expect=404)["code"] == "NOT_FOUND"


def test_limits(api: Any, device: Any) -> None:
    def nested(depth: int) -> Any:
        return {"a": nested(depth - 1)} if depth else 1

    api.put(device.path, {"desired": nested(8)}, expect=200)
    assert "desired" in api.put(device.path, {"desired": nested(9)}, expect=400)["details"]
    assert "desired" in api.put(device.path, {"desired": nested(900)}, expect=400)["details"]
    api.put(device.path, {"desired": {"a": [[[[[[[[1]]]]]]]]}}, expect=400)
    api.put(device.path, {"desired": {str(number): 1 for number in range(1025)}}, expect=400)
    assert api.put(device.path, {"desired": {"a": "x" * 33_000}}, expect=413)["code"] == "PAYLOAD_TOO_LARGE"
    device.put(device.path, {"reported": {"a": "x" * 20_000}}, expect=200)
    device.put(device.path, {"reported": {"b": "x" * 20_000}}, expect=413)
    assert api.get(device.path, expect=200)["version"] == 2


@pytest.mark.parametrize(
    "body",
    [
        b"{}", b"[]", b"null", b'{"desired": null}', b'{"desired": []}', b'{"desired": {"a": "\\u0000"}}',
        b'{"desired": {"\\u0000": 1}}', b'{"desired": {"a": "\\ud800"}}', b'{"desired": {"a": "\xff"}}',
        b'{"desired": {"a": NaN}}', b'{"desired": {"a": 1e999}}', b'{"desired": {}, "version": "0"}',
        b'{"desired": {}, "version": 1.5}', b'{"desired": {}, "version": true}', b'{"desired": {}, "version": -1}',
        b'{"desired": {}, "version": 99999999999999999999}', b'{"desired": {}, "client_token": "a\\u0000"}',
        b'{"desired": {}, "wished": {}}', b'{"desired": ' + b'{"a":' * 2000 + b"1" + b"}" * 2001, b"{",
    ],
)  # fmt: skip
def test_what_is_not_valid_is_refused(api: Any, device: Any, body: bytes) -> None:
    headers = {**api.headers, "Content-Type": "application/json"}
    answer = api.http.put(f"/api/v1{device.path}", data=body, headers=headers)
    assert (answer.status_code, answer.json["code"]) == (400, "VALIDATION_ERROR")
    assert api.get(device.path, expect=200)["version"] == 0


@pytest.mark.parametrize("number", ["1e300", "123456789012345678901234567890", "-0.0", "0.1", "9007199254740993"])
def test_numbers_come_back_as_numbers(api: Any, device: Any, number: str) -> None:
    headers = {**api.headers, "Content-Type": "application/json"}
    api.http.put(f"/api/v1{device.path}", data=f'{{"desired": {{"n": {number}}}}}', headers=headers)
    assert float(api.get(device.path, expect=200)["desired"]["n"]) == float(number)


def test_the_device_is_told_of_desired_only(org: UUID, api: Any, device: Any) -> None:
    def pushes() -> int:
        return len(jobs_for("tunnel.push_shadow", org, device.id))

    api.put(device.path, {"desired": {"a": 1}}, expect=200)
    assert pushes() == 1
    api.put(device.path, {"desired": {"a": 1}}, expect=200)
    device.put(device.path, {"reported": {"a": 1}}, expect=200)
    api.put(device.path, {"desired": {"a": 2}, "version": 0}, expect=409)
    assert pushes() == 1


def test_concurrent_writers_lose_nothing(org: UUID, api: Any, device: Any) -> None:
    def write(writer: int) -> list[int]:
        client, section = (device, "reported") if writer % 2 else (api, "desired")
        return [
            client.put(device.path, {section: {f"w{writer}": {str(turn): turn}}}, expect=200)["version"]
            for turn in range(25)
        ]

    versions = at_once(20, write)
    assert sorted(version for own in versions for version in own) == list(range(1, 501))
    assert all(own == sorted(own) for own in versions)
    document = api.get(device.path, expect=200)
    everything = {str(turn): turn for turn in range(25)}
    assert document["version"] == 500
    assert {**document["desired"], **document["reported"]} == {f"w{writer}": everything for writer in range(20)}


def test_of_many_writers_at_one_version_one_wins(api: Any, device: Any) -> None:
    answers = at_once(10, lambda n: api.put(device.path, {"desired": {"winner": n}, "version": 0}).status_code)
    assert sorted(answers) == [200] + [409] * 9
    assert api.get(device.path, expect=200)["version"] == 1
