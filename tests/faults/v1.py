"""R5: no v1 agent gives up, however often its gateway is killed."""

import time
from dataclasses import dataclass, field
from typing import Any

from tests.faults.world import World

BUDGET_SECONDS = 75.0
"""5 + 10 + 15 + 20 + 25: what a v1 agent waits between its tries, all together."""


@dataclass
class V1Outcome:
    """``most_tries``: of the five tries after a drop, the most that any agent has needed."""

    agents: int
    kills: int
    gave_up: int = 0
    most_tries: int = 0
    back: list[float] = field(default_factory=list)
    failures: dict[str, int] = field(default_factory=dict)


def run(world: World, kills: int, *, in_the_storm: int, budget: float, away: float = 0) -> V1Outcome:
    """Kill the gateway ``kills`` times: every ``in_the_storm``-th time while its agents are just coming back, else
    when all are there again, which may take ``budget`` seconds. ``away``: how long it stays away each time."""
    outcome = V1Outcome(len(world.members), kills)
    for number in range(1, kills + 1):
        _kill(world, away)
        killed = time.monotonic()
        if number % in_the_storm == 0 and number < kills:
            world.until(lambda: 0 < _connected(world) < len(world.members) // 2, budget / 3, every=0.2)
            continue
        time.sleep(1)  # they have noticed
        world.until(lambda: _connected(world) + _told(world)["gave_up"] == len(world.members), budget, every=0.2)
        outcome.back.append(time.monotonic() - killed)
    told = _told(world)
    outcome.gave_up = len(world.members) - told["connected"]
    outcome.most_tries, outcome.failures = told["most_tries"], told["failures"]
    return outcome


def _kill(world: World, away: float) -> None:
    if not away:
        world.parts.kill("web0")
        return
    world.parts.held.add("web0")
    world.parts.kill("web0")
    time.sleep(away)
    world.parts.held.discard("web0")


def _told(world: World) -> dict[str, Any]:
    return world.fleet.report()


def _connected(world: World) -> int:
    return int(_told(world)["connected"])
