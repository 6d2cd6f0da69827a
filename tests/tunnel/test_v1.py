"""The adapter for the released agent: what it asks, in which order, and that its caller is always answered."""

import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from app.tunnel import v1
from app.tunnel.connection import Connection
from app.tunnel.protocol import Answer, Connect
from tests.e2e.conftest import until
from tests.tunnel.wire import Wire, socket_and_wire

DEPLOY = {"flow_id": "f", "version": 2, "flow": {"nodes": [], "id": "another"}, "start": True}


class Played:
    """A v1 agent whose answers the test gives: by action, a result, an error text, or a function of the payload."""

    def __init__(self, connection: Connection, wire: Wire) -> None:
        self.connection, self.wire = connection, wire
        self.says: dict[str, Any] = {"list_flows": {"flows": []}}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        threading.Thread(target=self._play, daemon=True).start()

    @property
    def actions(self) -> list[str]:
        return [action for action, _payload in self.asked]

    def carry_out(
        self, action: str, payload: dict[str, Any], *, command_id: str = "", timeout: float = 5
    ) -> list[Answer]:
        """Begin; the answers arrive in the list."""
        answers: list[Answer] = []
        v1.carry_out(self.connection, command_id or str(uuid4()), action, payload, timeout, answers.append)
        return answers

    def done(self, action: str, payload: dict[str, Any], **options: Any) -> Answer:
        answers = self.carry_out(action, payload, **options)
        answer: Answer = until(lambda: answers, 5, every=0.01)[0]
        return answer

    def _play(self) -> None:
        try:
            while True:
                command = self.wire.hear()
                self.asked.append((command["action"], command["payload"]))
                self._answer(command, self.says.get(command["action"], {}))
        except (OSError, EOFError):
            return

    def _answer(self, command: Any, said: Any) -> None:
        said = said(command["payload"]) if callable(said) else said
        if said is None:
            return
        fields = {"status": "error", "error": said} if isinstance(said, str) else {"status": "success", "data": said}
        self.connection.answered({"id": command["id"], **fields})


@pytest.fixture
def agent() -> Iterator[Played]:
    with socket_and_wire() as (tunnel, wire):
        tunnel.start_writer("test")
        connection = Connection(tunnel, Connect(uuid4(), "key", "1.0.0", 1, ()), uuid4(), 1)
        yield Played(connection, wire)


def flows(**status: str) -> dict[str, Any]:
    return {"flows": [{"id": flow_id, "status": value} for flow_id, value in status.items()]}


def test_a_new_flow_is_listed_created_started(agent: Played) -> None:
    answer = agent.done("deploy_flow", DEPLOY)
    assert (answer.ok, answer.data) == (True, {"flow_id": "f", "status": "installed"})
    assert agent.actions == ["list_flows", "create_flow", "start_flow"]
    assert agent.asked[1][1]["flow"]["id"] == "f"


def test_a_known_flow_is_updated_and_a_running_one_stopped_first(agent: Played) -> None:
    agent.says["list_flows"] = flows(f="running")
    assert agent.done("deploy_flow", DEPLOY).ok
    assert agent.actions == ["list_flows", "update_flow", "stop_flow", "start_flow"]


def test_a_flow_that_is_not_to_be_started_is_only_stored(agent: Played) -> None:
    assert agent.done("deploy_flow", {**DEPLOY, "start": False}).ok
    assert agent.actions == ["list_flows", "create_flow"]


def test_already_running_is_success(agent: Played) -> None:
    agent.says["start_flow"] = "flow f is already running"
    assert agent.done("deploy_flow", DEPLOY).ok


def test_what_is_not_implemented_ends_it_for_good(agent: Played) -> None:
    agent.says["create_flow"] = "create_flow not yet implemented"
    answer = agent.done("deploy_flow", DEPLOY)
    assert (answer.code, answer.error) == ("NOT_SUPPORTED_BY_DEVICE", "create_flow not yet implemented")
    assert agent.actions == ["list_flows", "create_flow"]


@pytest.mark.parametrize("action", ["configure", "get_node_types"])
def test_what_only_newer_agents_know_is_not_asked(agent: Played, action: str) -> None:
    assert agent.done(action, {}).code == "NOT_SUPPORTED_BY_DEVICE"
    assert agent.actions == []


def test_a_flow_is_removed_after_it_was_stopped(agent: Played) -> None:
    agent.says["list_flows"] = flows(f="running")
    assert agent.done("remove_flow", {"flow_id": "f"}).ok
    assert agent.actions == ["list_flows", "stop_flow", "delete_flow"]


def test_a_flow_that_is_not_there_is_removed(agent: Played) -> None:
    assert agent.done("remove_flow", {"flow_id": "f"}).data["status"] == "removed"
    assert agent.actions == ["list_flows"]


def test_a_repeated_id_is_ignored_while_it_is_carried_out(agent: Played) -> None:
    agent.says["create_flow"] = lambda _payload: time.sleep(0.3) or {}
    first = agent.carry_out("deploy_flow", DEPLOY, command_id="one")
    again = agent.carry_out("deploy_flow", DEPLOY, command_id="one")
    until(lambda: first, 5)
    time.sleep(0.2)
    assert (len(first), again) == (1, [])
    assert agent.actions.count("start_flow") == 1


def test_sequences_of_one_device_do_not_mix(agent: Played) -> None:
    agent.says["create_flow"] = lambda _payload: time.sleep(0.1) or {}
    both = [agent.carry_out("deploy_flow", {**DEPLOY, "flow_id": flow_id}) for flow_id in ("f", "g")]
    until(lambda: all(both), 5)
    assert [payload["flow_id"] for action, payload in agent.asked if action == "start_flow"] == ["f", "g"]
    assert agent.actions == ["list_flows", "create_flow", "start_flow"] * 2


def test_the_first_start_of_a_connection_asks_what_runs(agent: Played) -> None:
    agent.says["list_flows"] = flows(f="running", g="stopped")
    assert agent.done("start_flow", {"flow_id": "f"}).data["status"] == "already_running"
    assert agent.actions == ["list_flows"]
    assert agent.done("start_flow", {"flow_id": "g"}).ok
    assert agent.actions == ["list_flows", "start_flow"]


def test_a_start_after_an_unanswered_one_asks_first(agent: Played) -> None:
    agent.done("start_flow", {"flow_id": "g"})
    agent.says["start_flow"] = None
    late = agent.carry_out("start_flow", {"flow_id": "g"}, timeout=0.3)
    until(lambda: agent.actions.count("start_flow") == 2, 5)
    agent.connection.expire(time.monotonic() + 1)
    assert until(lambda: late, 5)[0].outcome == "unknown"
    agent.says["list_flows"] = flows(g="running")
    assert agent.done("start_flow", {"flow_id": "g"}).data["status"] == "already_running"
    assert agent.actions.count("start_flow") == 2


@pytest.mark.parametrize(
    ("action", "payload"),
    [
        ("deploy_flow", {}),
        ("deploy_flow", {"flow_id": "f"}),
        ("deploy_flow", {"flow_id": "f", "flow": "x"}),
        ("remove_flow", {}),
        ("start_flow", {}),
    ],
)
def test_a_command_without_its_flow_is_answered_and_not_sent(
    agent: Played, action: str, payload: dict[str, Any]
) -> None:
    answer = agent.done(action, payload)
    assert (answer.code, answer.outcome) == ("INVALID_FLOW", "not_sent")
    assert agent.actions == []


@pytest.mark.parametrize("listed", [{"flows": "none"}, [], None, {"flows": None}, 7])
def test_a_list_of_another_shape_is_a_bad_answer(agent: Played, listed: Any) -> None:
    agent.says["list_flows"] = lambda _payload: listed if listed is not None else []
    assert agent.done("deploy_flow", DEPLOY).code == "BAD_DEVICE_RESPONSE"


@pytest.mark.parametrize("flow_id", [["x"], {"a": 1}])
def test_strange_flows_on_the_device_are_just_other_flows(agent: Played, flow_id: Any) -> None:
    agent.says["list_flows"] = {"flows": [{"id": flow_id}, "x", None, {"status": "running"}]}
    assert agent.done("deploy_flow", DEPLOY).ok


def test_a_connection_that_is_lost_between_two_commands_answers_at_once(agent: Played) -> None:
    def lose(_payload: Any) -> dict[str, Any]:
        threading.Timer(0.05, agent.connection.lost).start()
        time.sleep(0.2)
        return {}

    agent.says["create_flow"] = lose
    started = time.monotonic()
    answer = agent.done("deploy_flow", DEPLOY, timeout=60)
    assert (answer.code, answer.outcome) == ("DEVICE_DISCONNECTED", "unknown")
    assert time.monotonic() - started < 2
    assert agent.done("deploy_flow", DEPLOY, timeout=60).outcome == "not_sent"


def test_a_sequence_whose_time_is_over_before_its_turn_is_not_begun(agent: Played) -> None:
    agent.says["create_flow"] = lambda _payload: time.sleep(0.6) or {}
    first = agent.carry_out("deploy_flow", DEPLOY)
    answer = agent.done("deploy_flow", {**DEPLOY, "flow_id": "g"}, timeout=0.2)
    assert (answer.code, answer.outcome) == ("DEVICE_TIMEOUT", "not_sent")
    until(lambda: first, 5)
    assert agent.actions == ["list_flows", "create_flow", "start_flow"]


def test_trouble_in_the_adapter_itself_is_answered_too(agent: Played, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_given: Any) -> Answer:
        raise ZeroDivisionError

    monkeypatch.setitem(v1._SEQUENCES, "deploy_flow", fail)
    answer = agent.done("deploy_flow", DEPLOY)
    assert (answer.code, answer.outcome) == ("INTERNAL_ERROR", "unknown")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("create_flow not yet implemented", "NOT_SUPPORTED_BY_DEVICE"),
        ("unknown command action: dance", "NOT_SUPPORTED_BY_DEVICE"),
        ("flow x not found", "FLOW_NOT_FOUND"),
        ("disk full", "DEVICE_ERROR"),
        (None, "DEVICE_ERROR"),
    ],
)
def test_an_error_text_means_a_code(text: str | None, code: str) -> None:
    assert v1.understood(Answer("error", error=text, code="DEVICE_ERROR")).code == code


def test_our_own_outcomes_are_not_read_again() -> None:
    lost = Answer("error", error="flow not found", code="DEVICE_TIMEOUT", outcome="unknown")
    assert v1.understood(lost) is lost


def test_a_sequence_that_ends_halfway_does_not_say_that_nothing_was_sent(agent: Played) -> None:
    agent.says["create_flow"] = lambda _payload: time.sleep(0.4) or {}
    agent.says["start_flow"] = "must not be asked"
    answers = agent.carry_out("deploy_flow", DEPLOY, timeout=0.3)
    assert until(lambda: answers, 5)[0].outcome == "unknown"
    assert "start_flow" not in agent.actions
