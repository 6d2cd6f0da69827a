"""The tunnel over real sockets and two web processes: the device's side is played frame by frame."""

import time
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from sqlalchemy import text
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from app import db
from tests import make
from tests.platform import TLS, Platform
from tests.tunnel.conftest import V2, Caller, Device
from tests.tunnel.wire import UPGRADE, Wire

pytestmark = pytest.mark.xdist_group("gateways")


def connected(gateways: Platform, tenant: UUID, number: int = 0, **hello: Any) -> Device:
    device, key = make.device(tenant)
    return Device(gateways.url(number), device.id, key, **hello)


def test_the_first_frame_for_a_v1_agent_holds_only_what_it_knows(gateways: Platform, tenant: UUID) -> None:
    device = connected(gateways, tenant)
    assert device.first.keys() == {"type", "device_id", "timestamp"}
    assert device.first["timestamp"].endswith("Z")
    device.close()


def test_a_v2_agent_is_told_session_and_accepted_capabilities(gateways: Platform, tenant: UUID) -> None:
    device = connected(gateways, tenant, protocol=2, capabilities=["deploy_flow", "levitate"])
    assert device.first["capabilities"] == ["deploy_flow"]
    assert device.first["heartbeat_interval"] == 30
    assert isinstance(device.first["session"], int)
    device.close()


@pytest.mark.parametrize("path", ["/tunnel", "/api/v1/tunnel"])
def test_both_paths_serve_the_tunnel(gateways: Platform, tenant: UUID, path: str) -> None:
    made, key = make.device(tenant)
    url = gateways.url() + path.removesuffix("/tunnel")
    device = Device(url, made.id, key)
    assert device.first["type"] == "connected"
    device.send({"type": "ping"})
    assert device.receive()["type"] == "pong"
    device.close()


def test_a_wrong_key_and_another_devices_key_are_refused(gateways: Platform, tenant: UUID) -> None:
    (first, _), (_, other_key) = make.devices(2, tenant)
    for key in ("device_" + "x" * 43, other_key):
        device = Device(gateways.url(), first.id, key)
        assert (device.first["type"], device.first["code"]) == ("error", "UNAUTHORIZED")
        assert device.closed() == 1008


def test_a_disabled_device_is_closed_with_its_own_code(gateways: Platform, tenant: UUID, app: Any) -> None:
    device, key = make.device(tenant)
    make.client(app, tenant).put(f"/devices/{device.id}", {"disabled": True}, expect=200)
    refused = Device(gateways.url(), device.id, key)
    assert refused.first["code"] == "DEVICE_DISABLED"
    assert refused.closed() == 4003


def test_a_command_crosses_from_one_web_process_to_a_device_on_another(
    gateways: Platform, tenant: UUID, caller: Caller
) -> None:
    device = connected(gateways, tenant)
    waiting = caller.later("GET", f"/edge-nodes/{device.device_id}/flows")
    command = device.answer({"flows": [{"id": "a"}]})
    assert (command["action"], command["payload"]) == ("list_flows", {})
    answer = waiting.result()
    assert (answer.status_code, answer.json()) == (200, {"flows": [{"id": "a"}]})
    device.close()


def test_an_offline_device_is_503_at_once(tenant: UUID, caller: Caller) -> None:
    device, _ = make.device(tenant)
    started = time.monotonic()
    answer = caller("GET", f"/edge-nodes/{device.id}/health")
    assert time.monotonic() - started < 1
    assert (answer.status_code, answer.json()["code"]) == (503, "DEVICE_OFFLINE")
    assert answer.json()["last_seen_at"] is None
    assert "Retry-After" in answer.headers


def test_a_late_device_is_504_with_an_unknown_outcome(gateways: Platform, tenant: UUID, caller: Caller) -> None:
    device = connected(gateways, tenant)
    answer = caller("GET", f"/edge-nodes/{device.device_id}/health?timeout=1")
    assert (answer.status_code, answer.json()["code"], answer.json()["outcome"]) == (504, "DEVICE_TIMEOUT", "unknown")
    device.close()


def test_a_dropped_socket_is_502_at_once(gateways: Platform, tenant: UUID, caller: Caller) -> None:
    device = connected(gateways, tenant)
    waiting = caller.later("GET", f"/edge-nodes/{device.device_id}/health")
    device.receive()
    started = time.monotonic()
    device.socket.socket.close()
    answer = waiting.result()
    assert time.monotonic() - started < 2
    assert (answer.status_code, answer.json()["outcome"]) == (502, "unknown")


def test_a_devices_error_is_502_and_an_unknown_action_501(gateways: Platform, tenant: UUID, caller: Caller) -> None:
    device = connected(gateways, tenant)
    waiting = caller.later("GET", f"/edge-nodes/{device.device_id}/flows")
    device.answer(status="error", error="disk on fire")
    assert waiting.result().json()["error"] == "disk on fire"
    assert waiting.result().status_code == 502
    waiting = caller.later("POST", f"/edge-nodes/{device.device_id}/flows", {"flow": {"id": "x"}})
    device.answer(status="error", error="create_flow not yet implemented")
    assert (waiting.result().status_code, waiting.result().json()["code"]) == (501, "NOT_SUPPORTED_BY_DEVICE")
    device.close()


def test_the_newest_connection_wins_and_the_old_ones_end_changes_nothing(
    gateways: Platform, tenant: UUID, caller: Caller, app: Any
) -> None:
    made, key = make.device(tenant)
    old = Device(gateways.url(0), made.id, key, **V2)
    new = Device(gateways.url(1), made.id, key, **V2)
    assert old.closed() == 4009
    waiting = caller.later("GET", f"/edge-nodes/{made.id}/health")
    new.answer({"status": "healthy"})
    assert waiting.result().json() == {"status": "healthy"}
    assert make.client(app, tenant).get(f"/devices/{made.id}/status", expect=200)["status"] == "online"
    new.close()


def test_another_devices_answer_is_dropped(gateways: Platform, tenant: UUID, caller: Caller) -> None:
    device, thief = connected(gateways, tenant), connected(gateways, tenant)
    waiting = caller.later("GET", f"/edge-nodes/{device.device_id}/health")
    command = device.receive()
    thief.send({"type": "response", "id": command["id"], "status": "success", "data": {"forged": True}})
    time.sleep(0.2)
    device.send({"type": "response", "id": command["id"], "status": "success", "data": {"forged": False}})
    assert waiting.result().json() == {"forged": False}
    device.close()
    thief.close()


def test_at_most_one_changing_command_is_in_flight(gateways: Platform, tenant: UUID, caller: Caller) -> None:
    device = connected(gateways, tenant, **V2)
    first = caller.later("POST", f"/edge-nodes/{device.device_id}/flows/a/stop")
    stop_a = device.receive()
    second = caller.later("POST", f"/edge-nodes/{device.device_id}/flows/b/stop")
    reading = caller.later("GET", f"/edge-nodes/{device.device_id}/flows")
    assert device.receive()["action"] == "list_flows"  # reads pass; the second change waits
    device.send({"type": "response", "id": stop_a["id"], "status": "success", "data": {}})
    assert first.result().status_code == 200
    assert device.receive()["payload"] == {"flow_id": "b"}
    device.close()
    assert second.result().status_code == 502
    assert reading.result().status_code == 502


@pytest.mark.parametrize("frame", ["{", "[]", '"x"', "null", '{"type": 7}', "{}", "\u0000", "[" * 2000])
def test_a_malformed_frame_closes_with_4008(gateways: Platform, tenant: UUID, frame: str) -> None:
    device = connected(gateways, tenant)
    device.send(frame)
    assert device.closed() == 4008


def test_frames_are_bounded_before_and_after_authentication(gateways: Platform, tenant: UUID) -> None:
    made, key = make.device(tenant)
    with pytest.raises(Exception, match=r"1009"):
        Device(gateways.url(), made.id, key, padding="x" * 5000)
    device = Device(gateways.url(), made.id, key)
    device.send({"type": "ping", "padding": "x" * 1_100_000})
    assert device.closed() == 1009


def test_a_silent_socket_is_closed_after_five_seconds(gateways: Platform) -> None:
    socket = connect(gateways.url().replace("http", "ws") + "/tunnel", ping_interval=None, legacy=True)
    started = time.monotonic()
    with pytest.raises(ConnectionClosed):
        socket.recv(timeout=10)
    assert 4 < time.monotonic() - started < 8


def test_unknown_frames_and_answers_are_ignored(gateways: Platform, tenant: UUID) -> None:
    device = connected(gateways, tenant)
    device.send({"type": "levitate"})
    device.send({"type": "response", "id": str(uuid4()), "status": "success"})
    device.send({"type": "command", "id": "7", "action": "dance", "payload": {}})
    assert device.receive()["error"] == "unknown command action: dance"
    device.send({"type": "command", "id": "8", "action": "get_shadow", "payload": {}})
    answer = device.receive()
    assert (answer["id"], answer["status"], answer["data"]["version"]) == ("8", "success", 0)
    device.close()


def test_status_lists_the_organizations_connections(gateways: Platform, tenant: UUID, caller: Caller, app: Any) -> None:
    device = connected(gateways, tenant, **V2)
    stranger = connected(gateways, make.organization())
    page = caller("GET", "/tunnel/status").json()
    assert [one["device_id"] for one in page["items"]] == [device.device_id]
    assert page["items"][0]["session"] == device.first["session"]
    assert page["items"][0].keys() >= {"gateway", "in_flight", "bytes_in", "bytes_out", "rtt_ms", "connected_at"}
    device.close()
    stranger.close()
    deadline = time.monotonic() + 5
    while caller("GET", "/tunnel/status").json()["total"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert caller("GET", "/tunnel/status").json()["total"] == 0


def test_a_key_makes_a_command_go_out_once(gateways: Platform, tenant: UUID, caller: Caller) -> None:
    device = connected(gateways, tenant, **V2)
    path, key = f"/edge-nodes/{device.device_id}/flows/a/stop?timeout=1", {"Idempotency-Key": "once"}
    late = caller("POST", path, **key)
    assert late.status_code == 504
    again = caller("POST", path, **key)
    assert (again.status_code, again.json(), again.headers["Idempotent-Replayed"]) == (504, late.json(), "true")
    assert device.receive()["action"] == "stop_flow"
    with pytest.raises(TimeoutError):
        device.receive(timeout=0.3)
    device.close()


def test_one_connect_that_postgresql_cannot_take_spoils_no_other(gateways: Platform, tenant: UUID) -> None:
    """They are admitted in batches: what is wrong with one must not refuse the rest."""
    good, bad = make.devices(10, tenant), make.devices(10, tenant)
    made = list[Device]()

    def dial(device_id: UUID, key: str, **hello: Any) -> None:
        made.append(Device(gateways.url(), device_id, key, **hello))

    threads = [Thread(target=dial, args=(one.id, key)) for one, key in good]
    threads += [Thread(target=dial, args=(one.id, key), kwargs={"protocol": True}) for one, key in bad]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    welcome = {device.device_id for device in made if device.first["type"] == "connected"}
    assert welcome == {str(one.id) for one, _key in good}
    for device in made:
        device.close()


def test_a_connect_that_lost_against_a_newer_one_is_told_so(gateways: Platform, tenant: UUID) -> None:
    """Two gateways admit at once, and the newer epoch is written first: the device is not disabled."""
    made, key = make.device(tenant)
    Device(gateways.url(), made.id, key).close()
    with db.transaction(system=True) as session:
        newer = text("UPDATE connections SET epoch = epoch + 1000000 WHERE device_id = :id")
        session.execute(newer, {"id": made.id})
    late = Device(gateways.url(1), made.id, key)
    assert (late.first["type"], late.first["code"]) == ("error", "REPLACED")
    assert late.closed() == 4009


@pytest.mark.parametrize("header", ["Sec-WebSocket-Key", "Sec-WebSocket-Version"])
def test_half_an_upgrade_is_a_bad_request(gateways: Platform, header: str) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", **UPGRADE}
    del headers[header]
    answer = httpx.get(f"{gateways.url()}/tunnel", headers=headers, verify=TLS)
    assert (answer.status_code, answer.json()["code"]) == (400, "VALIDATION_ERROR")


def test_compression_is_offered_in_vain(gateways: Platform, tenant: UUID) -> None:
    made, key = make.device(tenant)
    wire = Wire.dial(gateways.url(), Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
    assert "extensions" not in wire.head.lower()
    assert wire.hello(made.id, key)["type"] == "connected"
    wire.close()


def test_an_answer_too_deep_to_pass_on_is_said_to_be_bad(gateways: Platform, tenant: UUID, caller: Caller) -> None:
    device = connected(gateways, tenant)
    for number in (0, 1):  # the caller's process is another one, then the device's own
        http = Caller(gateways.url(number), str(caller.http.headers["X-API-Key"]))
        waiting = http.later("GET", f"/edge-nodes/{device.device_id}/health")
        command = device.receive()
        answer = f'{{"type": "response", "id": "{command["id"]}", "status": "success", "data": '
        device.send(answer + "[" * 300 + "]" * 300 + "}")
        assert (waiting.result().status_code, waiting.result().json()["code"]) == (502, "BAD_DEVICE_RESPONSE")
        http.http.close()
    device.close()


def test_a_disabled_device_loses_its_tunnel_though_the_notice_was_lost(
    gateways: Platform, tenant: UUID, app: Any
) -> None:
    """No worker runs here, so the job that closes the tunnel never does: the gateway's own look must."""
    device = connected(gateways, tenant, **V2)
    make.client(app, tenant).put(f"/devices/{device.device_id}", {"disabled": True}, expect=200)
    assert device.closed(timeout=15) == 4009
