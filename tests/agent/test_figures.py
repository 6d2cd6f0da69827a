"""Simulated devices' figures: seeded lives that look like a machine's, heat in its time, load as asked for."""

import asyncio
import itertools
import random
from dataclasses import replace

import pytest

from agent.cli import fleet_options, parser
from agent.drivers.base import Deployment
from agent.drivers.figures import Board, Load, Overheat
from agent.drivers.simulated import Behaviour, SimulatedDriver
from agent.enrol import Member
from agent.simulator import Fleet, FleetOptions
from tests.agent.cloud import Cloud
from tests.agent.support import QUICK, counting_flow, until


def readings(seed=1, name="demo-001", overheat=None, seconds=300, step=5):
    board = Board(name, random.Random(f"{seed}:{name}"), overheat)
    return [board.reading(age) for age in range(0, seconds, step)]


def test_simulated_figures_are_seeded_plausible_and_differ_between_devices():
    assert readings() == readings()
    assert readings() != readings(seed=2) != readings(name="demo-002")
    cpu = [reading["cpu"]["usage_percent"] for reading in readings(seconds=3600)]
    temperature = [reading["temperature"] for reading in readings(seconds=3600)]
    assert 0 < min(cpu) <= max(cpu) <= 100
    assert 30 < min(temperature) <= max(temperature) < 75
    # A walk, not dice: neighbours are close, and it moves all the same.
    assert max(abs(a - b) for a, b in itertools.pairwise(temperature)) < 8
    assert len(set(temperature)) > 50


def test_an_overheated_device_is_hot_in_its_time_and_cools_down_by_itself():
    hot = readings(overheat=Overheat(60, 120, 600), seconds=1400)
    above = [5 * index for index, reading in enumerate(hot) if reading["temperature"] > 80]
    expected = [age for age in range(0, 1400, 5) if 60 <= age % 600 < 180]
    assert set(above) <= {age + late for age in expected for late in (0, 5, 10)}
    assert len(expected) - 6 <= len(above) <= len(expected) + 6
    once = readings(overheat=Overheat(60, 120), seconds=1400)
    assert {5 * index for index, reading in enumerate(once) if reading["temperature"] > 80} == {
        age for age in above if age < 300
    }


def test_load_is_as_much_as_asked_for_and_evenly_spread():
    load = Load(123.4, random.Random(1))
    assert load.points(1_000_000) == []
    made = [point for second in range(1, 11) for point in load.points(1_000_000 + 1000 * second)]
    assert abs(len(made) - 1234) <= 1
    times = [time for _, time, _ in made]
    assert times == sorted(times)
    assert (times[0] > 1_000_000, times[-1]) == (True, 1_010_000)
    assert len({name for name, _, _ in made}) == 20
    assert len({(name, time) for name, time, _ in made}) == len(made)


def test_a_simulated_flow_counts_what_would_have_run():
    async def run():
        driver = SimulatedDriver("s", Behaviour())
        await driver.deploy(Deployment("f", 1, "h", counting_flow(interval=0.01)))
        driver._opened -= 10
        counted = (await driver.flow_metrics())["f"]["executions"]
        assert 990 <= counted <= 1100
        await driver.stop("f")
        assert await driver.flow_metrics() == {}

    asyncio.run(run())


def test_a_fleet_reports_and_only_the_named_device_overheats():
    async def run():
        async with asyncio.timeout(15), Cloud() as cloud:
            cloud.accept_telemetry()
            members = [Member(f"m-{n}", *cloud.add(f"device-{n}", f"key-{n}")) for n in range(3)]
            link = replace(QUICK, telemetry_interval=0.1)
            behaviour = Behaviour(points_per_second=200)
            options = FleetOptions(cloud.url, members=members, link=link, behaviour=behaviour)
            async with Fleet(replace(options, overheat={"m-1": Overheat(0, 60)})) as fleet:
                for device in fleet.devices:
                    device.driver._board._temperature = 75.0
                    device.driver._opened -= 10
                    device.driver._board._age = 0.0

                def hottest():
                    found = {}
                    for link in cloud.history:
                        frames = [frame for frame in link.frames if frame["type"] == "telemetry"]
                        values = [v for f in frames for name, _, v in f["metrics"] if name == "temperature"]
                        found[link.device_id] = max(values, default=0)
                    return found

                await until(lambda: all(hottest().values()) and hottest()["device-1"] > 80)
                found = hottest()
                assert found["device-0"] < 80 > found["device-2"]
                await until(lambda: sum(name.startswith("load.") for name, _, _ in cloud.points) > 200)

    asyncio.run(run())


def test_the_command_line_describes_heat_and_interval():
    common = ["simulate", "--url", "http://127.0.0.1:1", "--devices", "3", "--api-key", "k"]
    more = ["--telemetry-interval", "5", "--overheat", "demo-003:60:120:900", "--overheat", "demo-001:1:2"]
    options = fleet_options(parser().parse_args([*common, *more]))
    assert options.link.telemetry_interval == 5
    assert options.overheat == {"demo-003": Overheat(60, 120, 900), "demo-001": Overheat(1, 2)}
    heats = [("overheat", wrong) for wrong in ("demo-003", ":1:2", "a:x:1")]
    for option, wrong in [*heats, ("telemetry-interval", "-1")]:
        with pytest.raises(SystemExit):
            parser().parse_args([*common, f"--{option}={wrong}"])
