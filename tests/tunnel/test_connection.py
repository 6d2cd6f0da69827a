"""One device's connection: which command goes when, and what its caller is told."""

import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from app.tunnel.connection import HOLD_SECONDS, WAITING_COMMANDS, Connection
from app.tunnel.protocol import Answer, Connect
from tests.e2e.conftest import until
from tests.tunnel.wire import TEXT, Wire, socket_and_wire


class Tried:
    """A connection, the wire at the device's end, and what the callers were told."""

    def __init__(self, connection: Connection, wire: Wire) -> None:
        self.connection, self.wire = connection, wire
        self.told: dict[str, list[Answer]] = {}

    def ask(self, command_id: str, action: str = "stop_flow", timeout: float = 30) -> None:
        told = self.told.setdefault(command_id, [])
        self.connection.ask(command_id, action, {}, timeout, told.append)

    def sent(self) -> list[str]:
        """The ids that reached the device, up to now."""
        ids = []
        self.wire.sock.settimeout(0.1)
        try:
            while True:
                ids.append(self.wire.hear()["id"])
        except TimeoutError:
            return ids

    def answer(self, command_id: str, **fields: Any) -> bool:
        return self.connection.answered({"id": command_id, "status": "success", **fields})

    def outcomes(self, command_id: str) -> list[tuple[str | None, str]]:
        return [(answer.code, answer.outcome) for answer in self.told[command_id]]


@pytest.fixture(params=[("dedup",)])
def tried(request: Any) -> Iterator[Tried]:
    with socket_and_wire() as (tunnel, wire):
        tunnel.start_writer("test")
        connect = Connect(uuid4(), "key", "1.0", 2 if request.param else 1, request.param)
        yield Tried(Connection(tunnel, connect, uuid4(), 1), wire)


forgetful = pytest.mark.parametrize("tried", [()], indirect=True)


def test_changes_go_one_after_the_other_and_reads_pass(tried: Tried) -> None:
    for command_id, action in (("a", "stop_flow"), ("b", "start_flow"), ("c", "list_flows"), ("d", "configure")):
        tried.ask(command_id, action)
    assert tried.sent() == ["a", "c"]
    assert tried.answer("c")
    assert tried.sent() == []
    assert tried.answer("a")
    assert tried.sent() == ["b"]
    assert tried.answer("b")
    assert tried.sent() == ["d"]
    assert tried.outcomes("b") == [(None, "done")]


def test_a_late_change_keeps_its_place_and_then_makes_room(tried: Tried) -> None:
    tried.ask("a", timeout=1)
    tried.ask("b", timeout=300)
    tried.ask("c", timeout=1)
    now = time.monotonic()
    tried.connection.expire(now + 2)
    assert tried.outcomes("a") == [("DEVICE_TIMEOUT", "unknown")]
    assert tried.outcomes("c") == [("DEVICE_TIMEOUT", "not_sent")]
    assert tried.sent() == ["a"]  # it may still run: the next one waits
    tried.connection.expire(now + 2 + HOLD_SECONDS)
    assert tried.sent() == ["b"]
    assert not tried.answer("a")
    assert tried.outcomes("a") == [("DEVICE_TIMEOUT", "unknown")]


def test_a_late_answer_frees_the_place_at_once(tried: Tried) -> None:
    tried.ask("a", timeout=1)
    tried.ask("b")
    tried.connection.expire(time.monotonic() + 2)
    assert not tried.answer("a")
    assert tried.sent() == ["a", "b"]


def test_a_late_read_is_forgotten(tried: Tried) -> None:
    tried.ask("a", "list_flows", timeout=1)
    tried.connection.expire(time.monotonic() + 2)
    assert tried.outcomes("a") == [("DEVICE_TIMEOUT", "unknown")]
    assert tried.connection.in_flight == 0


def test_a_repeated_id_is_told_again_to_an_agent_that_remembers(tried: Tried) -> None:
    tried.ask("a")
    tried.ask("a")
    assert tried.sent() == ["a", "a"]
    assert tried.answer("a")
    assert not tried.answer("a")
    assert tried.outcomes("a") == [(None, "done")]


@forgetful
def test_a_repeated_id_is_not_told_again_to_one_that_does_not(tried: Tried) -> None:
    tried.ask("a")
    tried.ask("a")
    assert tried.sent() == ["a"]


def test_a_repeated_id_that_waits_goes_once(tried: Tried) -> None:
    for command_id in ("a", "b", "b"):
        tried.ask(command_id)
    tried.answer("a")
    assert tried.sent() == ["a", "b"]


def test_who_asks_again_gets_the_answer_that_was_late(tried: Tried) -> None:
    tried.ask("a", timeout=1)
    tried.connection.expire(time.monotonic() + 2)
    tried.ask("a")
    assert tried.answer("a", data=7)
    assert [answer.data for answer in tried.told["a"]] == [None, 7]


def test_a_lost_connection_tells_each_caller_whether_his_command_was_sent(tried: Tried) -> None:
    for command_id in ("a", "b"):
        tried.ask(command_id)
    tried.connection.lost()
    assert tried.outcomes("a") == [("DEVICE_DISCONNECTED", "unknown")]
    assert tried.outcomes("b") == [("DEVICE_DISCONNECTED", "not_sent")]
    tried.ask("c")  # nobody would ever answer or expire it
    assert tried.outcomes("c") == [("DEVICE_DISCONNECTED", "not_sent")]
    assert tried.connection.in_flight == 0


def test_a_closing_socket_answers_and_frees_the_place(tried: Tried) -> None:
    tried.connection.socket.hang_up(1000, "bye")
    for command_id in ("a", "b"):
        tried.ask(command_id)
        assert tried.outcomes(command_id) == [("DEVICE_DISCONNECTED", "unknown")]
    assert tried.connection.in_flight == 0


def test_more_commands_than_can_wait_are_turned_away(tried: Tried) -> None:
    for number in range(WAITING_COMMANDS + 2):
        tried.ask(str(number))
    assert tried.outcomes(str(WAITING_COMMANDS)) == []
    assert tried.outcomes(str(WAITING_COMMANDS + 1)) == [("DEVICE_TIMEOUT", "not_sent")]


def test_a_caller_that_cannot_take_its_answer_harms_nobody(tried: Tried) -> None:
    def refuse(_answer: Answer) -> None:
        raise RuntimeError("no")

    tried.connection.ask("a", "stop_flow", {}, 30, refuse)
    tried.ask("b")
    assert tried.answer("a")
    assert tried.sent() == ["a", "b"]


def test_of_shadows_that_wait_only_the_newest_is_sent(tried: Tried) -> None:
    """The link is full, so they wait; versions may come in any order."""
    filler = threading.Thread(target=tried.connection.socket.post, args=("x" * 4_000_000,))
    filler.start()
    filler.join(5)
    time.sleep(0.2)
    for version in (3, 5, 4):
        tried.connection.push_shadow(version, {"v": version}, {})
    opcode, text = tried.wire.read()
    assert (opcode, len(text)) == (TEXT, 4_000_000)
    assert tried.wire.hear()["version"] == 5
    tried.connection.push_shadow(6, {}, {})
    assert tried.wire.hear()["version"] == 6


def test_asks_and_ends_from_many_threads_answer_everyone_once(tried: Tried) -> None:
    ids = [str(number) for number in range(200)]
    threads = [threading.Thread(target=tried.ask, args=(one, "list_flows")) for one in ids]
    threads.insert(100, threading.Thread(target=tried.connection.lost))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    until(lambda: all(len(tried.told[one]) == 1 for one in ids), 5)
    assert tried.connection.in_flight == 0
