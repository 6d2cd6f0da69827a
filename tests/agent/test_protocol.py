"""Frames, waits, faults: the pure parts."""

import json
import math
import random
from datetime import datetime

import pytest

from agent import protocol
from agent.faults import LinkFaults, fate_of
from agent.protocol import CommandError, FrameError
from agent.waiting import Ended, Waits, next_wait


def test_every_frame_carries_a_time_with_a_zone():
    frames = [protocol.connect("d", "k"), protocol.ping(), protocol.success("1", {}), protocol.failure("1", "X", "no")]
    for frame in frames:
        assert datetime.fromisoformat(json.loads(frame)["timestamp"]).tzinfo is not None


def test_connect_offers_protocol_2_and_only_what_is_implemented():
    frame = json.loads(protocol.connect("d", "device_k"))
    assert (frame["protocol"], frame["device_id"], frame["api_key"]) == (2, "d", "device_k")
    assert set(frame["capabilities"]) == {"deploy_flow", "configure", "get_node_types", "dedup", "telemetry"}
    assert len(protocol.connect("d" * 36, "device_" + "k" * 64)) < 4096


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"type": 1}', "nonsense", '"x"', "[" * 100_000])
def test_what_is_no_frame_is_told_apart(text):
    with pytest.raises(FrameError):
        protocol.decode(text)


def test_a_command_needs_an_id_and_an_object_as_payload():
    assert protocol.command_of({"type": "command", "id": "1", "action": "a"}).payload == {}
    with pytest.raises(FrameError):
        protocol.command_of({"type": "command", "action": "a"})
    for payload in ([], "x", 1, True):
        with pytest.raises(CommandError, match="payload must be an object"):
            protocol.command_of({"type": "command", "id": "1", "action": "a", "payload": payload})


@pytest.mark.parametrize(
    ("data", "text"), [("x" * 2**20, "answer too large"), (math.nan, "not JSON"), ({1j}, "not JSON")]
)
def test_an_answer_that_cannot_be_sent_becomes_an_error(data, text):
    answer = json.loads(protocol.success("1", data))
    assert (answer["id"], answer["status"], answer["code"]) == ("1", "error", "INTERNAL_ERROR")
    assert text in answer["error"]


def test_waits_grow_with_full_jitter_up_to_the_cap():
    rng, waits = random.Random(1), Waits(base=1, cap=60)
    for failures, highest in [(0, 1), (1, 2), (3, 8), (6, 60), (500, 60)]:
        tries = [next_wait(Ended("lost"), failures, waits, rng) for _ in range(500)]
        assert 0 <= min(tries) < 0.05 * highest
        assert 0.95 * highest < max(tries) <= highest


@pytest.mark.parametrize(
    ("ended", "low", "high"),
    [
        (Ended("bad key", 1008), 240, 360),
        (Ended("disabled", 4003), 240, 360),
        (Ended("replaced", 4009), 30, 60),
        (Ended("bye", 1000, retry_after=5.0), 5, 10),
    ],
)
def test_the_close_code_decides_the_wait(ended, low, high):
    rng = random.Random(1)
    assert all(low <= next_wait(ended, 0, Waits(), rng) <= high for _ in range(100))


def test_faults_are_seeded_and_of_the_rate_asked_for():
    faults = LinkFaults(drop_rate=0.05, loss_rate=0.05, duplicate_rate=0.1, reorder_rate=0.1)
    fates = [fate_of(faults, random.Random(f"7:{n}")) for n in range(4000)]
    assert fates == [fate_of(faults, random.Random(f"7:{n}")) for n in range(4000)]
    assert 0.03 < sum(fate.drop for fate in fates) / 4000 < 0.07
    assert 0.07 < sum(len(fate.sends) == 2 for fate in fates) / 4000 < 0.13
    assert 0.03 < sum(not fate.sends and not fate.drop for fate in fates) / 4000 < 0.07
