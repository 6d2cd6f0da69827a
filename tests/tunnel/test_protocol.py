"""The frames, without a socket."""

from uuid import UUID, uuid4

import pytest

from app.tunnel import protocol
from app.tunnel.protocol import Answer, ProtocolError

DEVICE = UUID("5f0c7b4e-9d7c-4f6a-8a33-6d2b1c0e9a11")
HELLO = {"type": "connect", "device_id": str(DEVICE), "api_key": "device_x", "version": "1.0.0"}


def hello(**changes: object) -> str:
    return protocol.encode({key: value for key, value in {**HELLO, **changes}.items() if value is not ...})


def test_a_v1_connect_has_no_protocol_and_no_capabilities() -> None:
    connect = protocol.parse_connect(hello(capabilities=["deploy_flow"]))
    assert (connect.device_id, connect.protocol, connect.capabilities) == (DEVICE, 1, ())


def test_a_newer_protocol_is_spoken_as_ours_and_only_known_capabilities_count() -> None:
    connect = protocol.parse_connect(hello(protocol=7, capabilities=["dedup", "levitate", 3]))
    assert (connect.protocol, connect.capabilities) == (2, ("dedup",))


@pytest.mark.parametrize(
    "raw",
    [
        hello(type="ping"),
        hello(api_key=...),
        hello(api_key=""),
        hello(api_key=7),
        hello(device_id="me"),
        hello(device_id=...),
        hello(protocol=0),
        hello(protocol="2"),
        hello(protocol=True),  # beside integers PostgreSQL would refuse the whole batch of connects
        hello(protocol=1.5),
        hello(capabilities={"dedup": 1}),
        "[]",
        "{",
        "",
        "\ud800".encode("utf-8", "surrogatepass"),
    ],
)
def test_anything_else_is_no_connect(raw: str) -> None:
    with pytest.raises(ProtocolError):
        protocol.parse_connect(raw)


def test_a_version_can_be_written_down() -> None:
    assert protocol.parse_connect(hello(version="1\0.0" + "x" * 100)).version == "1.0" + "x" * 60
    assert protocol.parse_connect(hello(version=None)).version == ""


@pytest.mark.parametrize(
    ("frame", "status", "code", "error"),
    [
        ({"status": "success", "data": 1}, "success", None, None),
        ({"status": "success", "error": "ignored", "code": "X"}, "success", None, None),
        ({"status": "error", "error": "on fire"}, "error", "DEVICE_ERROR", "on fire"),
        ({"status": "error", "code": "FLOW_NOT_FOUND"}, "error", "FLOW_NOT_FOUND", "no reason given"),
        ({"status": "error", "error": {"a": 1}, "code": 7}, "error", "DEVICE_ERROR", "{'a': 1}"),
        ({"status": "error", "error": "a\0b", "code": "A\0B"}, "error", "AB", "ab"),
        ({"status": "error", "error": "x" * 5000, "code": "Y" * 100}, "error", "Y" * 64, "x" * 2000),
        ({}, "error", "BAD_DEVICE_RESPONSE", "the device's answer has no valid status"),
        ({"status": True}, "error", "BAD_DEVICE_RESPONSE", "the device's answer has no valid status"),
    ],
)
def test_a_response(frame: dict, status: str, code: str | None, error: str | None) -> None:
    answer = protocol.parse_response(frame)
    assert (answer.status, answer.code, answer.error, answer.outcome) == (status, code, error, "done")


def test_an_answer_too_deep_to_pass_on_is_a_bad_one() -> None:
    frame = protocol.parse('{"type": "response", "status": "success", "data": ' + "[" * 300 + "]" * 300 + "}")
    assert protocol.parse_response(frame).code == "BAD_DEVICE_RESPONSE"


def test_what_a_v1_agent_gets_has_a_time_with_a_zone_and_an_object_as_payload() -> None:
    frame = protocol.command(str(uuid4()), "health_check", {})
    assert frame["payload"] == {}
    assert frame["timestamp"].endswith("Z")
    assert UUID(frame["id"])


def test_a_response_to_a_device_holds_data_or_an_error() -> None:
    assert protocol.response("7", Answer("success", data={"a": 1}))["data"] == {"a": 1}
    refused = protocol.response("7", Answer("error", error="no", code="X"))
    assert (refused["error"], refused["code"], "data" in refused) == ("no", "X", False)


@pytest.mark.parametrize("sent", [True, False])
def test_an_outcome_says_whether_the_command_can_have_been_carried_out(sent: bool) -> None:
    outcome = "unknown" if sent else "not_sent"
    assert protocol.disconnected(sent=sent).outcome == protocol.timed_out(sent=sent).outcome == outcome
    assert protocol.offline().outcome == protocol.busy().outcome == "not_sent"
