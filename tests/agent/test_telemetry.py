"""Telemetry over real sockets: batches, acknowledgements, what is sent again, what is kept while nobody takes it."""

import asyncio
import json
import logging
from dataclasses import replace

import pytest

from agent import journal, telemetry
from agent.backlog import Backlog, DiskBacklog
from agent.drivers.local import LocalDriver
from agent.drivers.simulated import Behaviour, SimulatedDriver
from agent.journal import AgentLog, Journal
from agent.settings import Settings
from agent.telemetry import AHEAD, MAX_FRAME, WINDOW, batches
from tests.agent.cloud import Cloud
from tests.agent.support import QUICK, counting_flow, deployment, device_on, until

FAST = replace(QUICK, telemetry_interval=0.05, ack_timeout=0.3)
RARE = replace(QUICK, telemetry_interval=3600, ack_timeout=0.3)


def scenario(work, accepts=True):
    """Run an async test with a cloud of its own, which takes telemetry or does not."""

    async def run():
        async with asyncio.timeout(20), Cloud() as cloud:
            await work(cloud.accept_telemetry() if accepts else cloud)

    asyncio.run(run())


class Numbers(SimulatedDriver):
    """Measures 1, 2, 3 …, so that what arrived can be counted without a gap."""

    def __init__(self):
        super().__init__("numbers", Behaviour())
        self.measured = 0

    async def measure(self, at):
        self.measured += 1
        return [("n", at, self.measured)]


def numbers(cloud):
    return [value for name, _, value in cloud.points if name == "n"]


# Batches


def test_figures_and_counts_arrive_with_their_times_by_the_released_agents_names(tmp_path):
    async def work(cloud):
        driver = LocalDriver(tmp_path)
        async with device_on(cloud, driver, options=FAST):
            link = await cloud.link()
            await link.ask("deploy_flow", deployment(counting_flow(interval=0.01)))
            await until(lambda: sum(v for name, _, v in cloud.points if name == "flow.flow-1.executions") >= 10)
        names = {name for name, _, _ in cloud.points}
        assert {"cpu.usage_percent", "memory.percent", "load_avg.1min", "network.rx_bytes", "uptime"} <= names
        assert "flow.flow-1.errors" in names
        assert not {"hostname", "os", "arch"} & names
        now = journal.unix_ms()
        assert all(now - 30_000 < time <= now for _, time, _ in cloud.points)
        frame = next(iter(cloud.stored.values()))
        assert frame.keys() == {"type", "id", "metrics", "logs"}
        executions = sum(value for name, _, value in cloud.points if name == "flow.flow-1.executions")
        assert executions <= len(driver._history.newest(200))

    scenario(work)


def test_flows_tell_what_becomes_of_them_and_what_they_show(tmp_path):
    async def work(cloud):
        async with device_on(cloud, LocalDriver(tmp_path), options=FAST):
            link = await cloud.link()
            await link.ask("deploy_flow", deployment(counting_flow("count if count < 3 else nothing")))
            await until(lambda: any("nothing" in line[2] for line in cloud.lines))
            await link.ask("stop_flow", {"flow_id": "flow-1"})
            await link.ask("remove_flow", {"flow_id": "flow-1"})
            await until(lambda: any("removed" in line[2] for line in cloud.lines))
        told = [(level, text) for _, level, text, _ in cloud.lines]
        assert ("info", "flow counting v1: installed and running") in told
        assert ("info", "out: 1") in told
        assert any(level == "warning" and "nothing" in text for level, text in told)
        assert [text for _, text in told if "stopped" in text] == ["flow counting v1: stopped"]
        assert all(line[3]["flow_id"] == "flow-1" for line in cloud.lines)

    scenario(work)


def test_a_cloud_that_did_not_accept_telemetry_gets_none_and_nothing_is_gathered_for_it():
    async def work(cloud):
        driver = Numbers()
        async with device_on(cloud, driver, options=FAST) as device:
            link = await cloud.link()
            await link.ask("deploy_flow", deployment())
            await asyncio.sleep(0.3)
            measured = driver.measured
            await asyncio.sleep(0.2)
            assert (driver.measured, cloud.arrivals) == (measured, [])
            cloud.accept_telemetry()
            link.cut()
            await until(lambda: driver.measured > measured and cloud.stored and device.received["ack"])

    scenario(work, accepts=False)


def test_the_cloud_sets_the_interval(tmp_path):
    async def work(cloud):
        shadow = cloud.shadow("device-1")
        shadow["desired"] = shadow["delta"] = {"telemetry_interval": 1}
        settings = Settings(tmp_path / "settings.json")
        async with device_on(cloud, Numbers(), options=RARE, settings=settings):
            await until(lambda: numbers(cloud) == [1, 2])
            link = await cloud.link()
            assert (await link.ask("configure", {"settings": {"telemetry_interval": 0}}))["status"] == "success"
            await asyncio.sleep(1.2)
            assert len(numbers(cloud)) == 2
            for wrong in (-1, 0.5, 4000, "soon", False):
                answer = await link.ask("configure", {"settings": {"telemetry_interval": wrong}})
                assert answer["code"] == "INVALID_PAYLOAD"
        assert shadow["reported"]["telemetry_interval"] == 1

    scenario(work)


def test_batches_are_cut_to_the_size_of_a_frame_and_lose_nothing():
    points = [[f"metric.{number}", 1_700_000_000_000, number / 7] for number in range(30_000)]
    lines = [[1_700_000_000_000, "info", "ü" * 4000] for _ in range(300)]
    made = list(batches(points, lines))
    assert len(made) > 4
    assert len({batch.id for batch in made}) == len(made)
    assert all(len(batch.text.encode()) <= MAX_FRAME for batch in made)
    frames = [json.loads(batch.text) for batch in made]
    assert [point for frame in frames for point in frame["metrics"]] == points
    assert [line for frame in frames for line in frame["logs"]] == lines
    assert (sum(batch.points for batch in made), sum(batch.lines for batch in made)) == (30_000, 300)
    assert list(batches([], [])) == []
    assert list(batches([["x" * MAX_FRAME, 1, 1]], [])) == []


# Acknowledgements


def test_what_is_not_acknowledged_goes_over_the_next_connection_under_its_id_and_in_order():
    async def work(cloud):
        cloud.acks = False
        driver = Numbers()
        async with device_on(cloud, driver, options=replace(FAST, ack_timeout=60)) as device:
            link = await cloud.link()
            await until(lambda: len(cloud.arrivals) >= 4)
            first = list(cloud.arrivals)
            cloud.acks = True
            link.cut()
            await until(lambda: len(cloud.arrivals) >= len(first) + 5)
            again = cloud.arrivals[len(first) : 2 * len(first)]
            assert again == first
            await until(lambda: not len(device.telemetry.backlog))
        assert numbers(cloud) == list(range(1, driver.measured + 1))
        assert len(cloud.stored) < len(cloud.arrivals)

    scenario(work)


def test_a_lost_acknowledgement_is_answered_by_the_same_batch_on_the_same_connection():
    async def work(cloud):
        cloud.acks = False
        async with device_on(cloud, Numbers(), options=replace(RARE, ack_timeout=0.1)) as device:
            link = await cloud.link()
            device.telemetry.journal.note("info", "hello")
            device.telemetry.changed()
            await until(lambda: len(cloud.arrivals) == 4)
            assert len(set(cloud.arrivals)) == 1
            cloud.acks = True
            await until(lambda: not len(device.telemetry.backlog))
            await asyncio.sleep(0.3)
            assert (len(cloud.arrivals), device.connections) == (5, 1)
            assert link.frames[-1]["logs"][0][1:] == ["info", "hello"]

    scenario(work)


def test_only_so_many_are_on_the_wire_and_not_far_ahead_of_the_oldest():
    async def work(cloud):
        cloud.acks = False
        async with device_on(
            cloud, Numbers(), options=replace(FAST, telemetry_interval=0.01, ack_timeout=60)
        ) as device:
            link = await cloud.link()
            await until(lambda: len(device.telemetry.backlog) > 40)
            assert len(cloud.arrivals) == WINDOW
            # All but the oldest are acknowledged, again and again: the window moves on, but only so far.
            for _ in range(20):
                for batch_id in cloud.arrivals[1:]:
                    link.send({"type": "ack", "id": batch_id})
                await asyncio.sleep(0.02)
            assert len(cloud.arrivals) == AHEAD
            link.send({"type": "ack", "id": cloud.arrivals[0]})
            await until(lambda: len(cloud.arrivals) == AHEAD + WINDOW)

    scenario(work)


def test_acknowledgements_that_make_no_sense_change_nothing():
    async def work(cloud):
        async with device_on(cloud, Numbers(), options=FAST):
            link = await cloud.link()
            for odd in ({}, {"id": None}, {"id": 7}, {"id": []}, {"id": "unknown"}):
                link.send({"type": "ack", **odd})
            await until(lambda: len(numbers(cloud)) > 3)
            assert (await link.ask("health_check"))["status"] == "success"

    scenario(work)


# Offline


def test_nothing_is_lost_while_offline_nor_over_a_restart(tmp_path):
    async def work(cloud):
        driver = Numbers()
        async with device_on(cloud, driver, options=FAST, backlog=DiskBacklog(tmp_path)):
            link = await cloud.link()
            await until(lambda: len(cloud.stored) >= 2)
            cloud.refuse = (1013, "later")
            link.cut()
            await until(lambda: driver.measured > len(cloud.stored) + 5)
        before = len(cloud.stored)
        waiting = DiskBacklog(tmp_path)
        assert before + len(waiting) == driver.measured
        waiting.close()
        cloud.refuse = None
        async with device_on(cloud, driver, options=FAST, backlog=DiskBacklog(tmp_path)) as device:
            await until(lambda: not len(device.telemetry.backlog) and len(cloud.stored) > before + 6)
        assert numbers(cloud) == list(range(1, len(cloud.stored) + 1))

    scenario(work)


def test_a_batch_is_on_disk_before_it_is_sent_and_sent_again_after_a_kill(tmp_path):
    async def work(cloud):
        cloud.acks = False
        backlog = DiskBacklog(tmp_path)
        async with device_on(cloud, Numbers(), options=replace(FAST, ack_timeout=60), backlog=backlog):
            await until(lambda: len(cloud.arrivals) >= 2)
            found = {entry.id for entry in DiskBacklog(tmp_path).oldest(99)}
            assert set(cloud.arrivals) <= found

    scenario(work)


def test_what_the_bound_has_cost_is_told_once_when_acknowledgements_come_again(caplog):
    async def work(cloud):
        cloud.acks = False
        driver = Numbers()
        backlog = Backlog(max_bytes=2_000)
        async with device_on(cloud, driver, options=replace(FAST, ack_timeout=60), backlog=backlog) as device:
            link = await cloud.link()
            await until(lambda: backlog.lost.batches >= 5)
            lost = backlog.lost.points
            assert "was full" not in caplog.text
            cloud.acks = True
            link.cut()
            await until(lambda: any("was full" in line[2] for line in cloud.lines))
            await until(lambda: not len(device.telemetry.backlog))
        told = [line for line in cloud.lines if "was full" in line[2]]
        assert len(told) == caplog.text.count("was full") == 1
        assert told[0][1] == "warning"
        assert told[0][3]["points"] >= lost
        # Those sent before they were dropped may have been stored: never is less stored than was not lost.
        assert len(numbers(cloud)) >= driver.measured - told[0][3]["points"] - 1

    scenario(work)


# Limits and mishaps


def test_a_flow_that_prints_without_end_does_not_flood(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    async def work(cloud):
        async with device_on(cloud, LocalDriver(tmp_path), options=FAST):
            link = await cloud.link()
            flow = counting_flow(interval=0.01)
            flow["nodes"] += [{**flow["nodes"][0], "id": f"in-{n}"} for n in range(10)]
            await link.ask("deploy_flow", deployment(flow))
            await asyncio.sleep(2.2)
            await link.ask("stop_flow", {"flow_id": "flow-1"})
            await until(lambda: any("stopped" in line[2] for line in cloud.lines))
            await asyncio.sleep(1.1)
        shown = [line for line in cloud.lines if line[2].startswith("out: ")]
        left_out = [line[3]["left_out"] for line in cloud.lines if len(line) == 4 and "left_out" in line[3]]
        executions = sum(value for name, _, value in cloud.points if name == "flow.flow-1.executions")
        assert 50 <= len(shown) <= 50 * 4
        assert executions > 500
        assert len(shown) + sum(left_out) == executions
        # The agent's own log is spared in the same way.
        assert caplog.text.count("flow-1 · out: ") == len(shown)

    scenario(work)


def test_the_journal_is_bounded_and_cuts_what_is_too_long():
    kept = Journal()
    for _ in range(journal.MAX_LINES + 5):
        kept.note("info", "x")
    lines = kept.take()
    assert len(lines) == journal.MAX_LINES + 1
    assert lines[-1][1:] == ["warning", "5 more lines came at once and were left out"]
    assert kept.take() == []
    kept.note("info", "y" * 100_000, {"flow_id": "f"})
    kept.note("info", "fields", {"much": "z" * 10_000})
    kept.note("info", "odd \udcff", {"odd": "\udcff"})
    kept.note("info", "infinite", {"x": float("inf")})
    long, *others = kept.take()
    assert (len(long[2]), long[3]) == (journal.MAX_MESSAGE, {"flow_id": "f"})
    assert [line[2:] for line in others] == [["fields"], ["odd ?"], ["infinite"]]
    kept.wanted = False
    kept.note("info", "z")
    assert kept.take() == []


def test_many_lines_do_not_wait_for_the_interval():
    async def work(cloud):
        async with device_on(cloud, Numbers(), options=RARE) as device:
            await cloud.link()
            await asyncio.sleep(0.1)
            for number in range(journal.HASTE):
                device.telemetry.journal.note("info", f"line {number}")
            await until(lambda: len(cloud.lines) == journal.HASTE, 2)
            assert [line[2] for line in cloud.lines] == [f"line {number}" for number in range(journal.HASTE)]

    scenario(work)


def test_the_agents_own_warnings_are_sent_but_nothing_that_feeds_on_itself():
    async def work(cloud):
        async with device_on(cloud, Numbers(), options=FAST) as device:
            await cloud.link()
            own = AgentLog(device.telemetry.journal)
            logging.getLogger("agent").addHandler(own)
            try:
                await asyncio.to_thread(logging.getLogger("agent.shadow").warning, "from %s", "a thread")
                logging.getLogger("agent.rest").info("of no interest")
                logging.getLogger("agent.telemetry").error("about itself")
                await until(lambda: cloud.lines)
                await asyncio.sleep(0.15)
            finally:
                logging.getLogger("agent").removeHandler(own)
        assert [line[1:] for line in cloud.lines] == [["warning", "from a thread", {"logger": "agent.shadow"}]]

    scenario(work)


@pytest.mark.parametrize("clock", [-62_135_596_800_000, 0, 253_402_300_800_000, 2**63])
def test_an_ill_clock_harms_nothing(monkeypatch, clock):
    """It only labels points: intervals, time limits and order go by the monotonic clock."""
    wandering = iter(range(10**9))
    monkeypatch.setattr(telemetry, "unix_ms", lambda: clock - 3_600_000 * next(wandering))
    monkeypatch.setattr(journal, "unix_ms", lambda: clock)

    async def work(cloud):
        driver = Numbers()
        async with device_on(cloud, driver, options=FAST) as device:
            link = await cloud.link()
            await until(lambda: len(cloud.stored) >= 3)
            link.cut()
            await until(lambda: len(cloud.stored) >= 6)
            device.telemetry.journal.note("info", "when?")
            await until(lambda: cloud.lines)
        assert numbers(cloud)[:6] == [1, 2, 3, 4, 5, 6]
        assert cloud.points[0][1] == clock
        assert cloud.lines[0][0] == clock

    scenario(work)


def test_a_sensor_that_fails_is_told_once_and_ends_nothing(caplog):
    class Ill(Numbers):
        async def measure(self, at):
            points = await super().measure(at)
            if self.measured % 10 < 5:
                raise RuntimeError("no such bus")
            return [("n", at, float("nan"))] if self.measured == 5 else points

    async def work(cloud):
        async with device_on(cloud, Ill(), options=FAST):
            await until(lambda: len(numbers(cloud)) >= 3)
        assert numbers(cloud)[:3] == [6, 7, 8]
        assert [line[2] for line in cloud.lines][:1] == ["the figures cannot be read: RuntimeError: no such bus"]
        assert caplog.text.count("cannot be read") == 1
        assert caplog.text.count("JSON cannot say") == 1

    scenario(work)
