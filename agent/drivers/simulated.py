"""A device without a machine: flows in memory, invented figures, latency and failures as asked for, seeded."""

import asyncio
import random
import time
from dataclasses import dataclass

from agent.content import content_hash
from agent.drivers.base import JsonObject, Point
from agent.drivers.figures import Board, Load, Overheat
from agent.drivers.installed import Installed, InstalledFlows, definition_of
from agent.protocol import INVALID_FLOW, UNSUPPORTED_NODE_TYPE, CommandError
from agent.runtime import nodes
from agent.runtime.definition import FlowError, parse
from agent.runtime.executions import History


@dataclass
class Behaviour:
    """How a simulated device behaves; may be changed while it runs.

    Latency in milliseconds per command, ± the jitter; `failure_rate`: part of the starts that fail;
    `node_types`: the only types that it has, None: every type. What follows holds from its birth: when it is too hot,
    and how many points a second it reports beside its figures. `error_rate`: part of its flows' executions that fail.
    """

    latency_ms: float = 0.0
    latency_jitter_ms: float = 0.0
    failure_rate: float = 0.0
    node_types: frozenset[str] | None = None
    overheat: Overheat | None = None
    points_per_second: float = 0.0
    error_rate: float = 0.0


class SimulatedDriver(InstalledFlows):
    """Answers as a device would, at the cost of a few dictionaries."""

    echoes_desired = True

    def __init__(self, name: str, behaviour: Behaviour, seed: int = 1) -> None:
        super().__init__()
        self.name, self.behaviour = name, behaviour
        self._rng = random.Random(f"{seed}:{name}:driver")
        self._history = History(limit=20)
        self._board = Board(name, random.Random(f"{seed}:{name}:board"), behaviour.overheat)
        self._load = Load(behaviour.points_per_second, self._rng)
        self._pulses: dict[str, Pulse] = {}
        self._failed: dict[str, int] = {}

    @property
    def polled(self) -> bool:  # type: ignore[override]
        """Only errors come by themselves: ten thousand sound devices need no timer."""
        return self.behaviour.error_rate > 0

    def edit(self, flow_id: str, definition: JsonObject) -> None:
        """Change an installed flow as somebody at the device would, past the cloud."""
        flow = self._find(flow_id)
        flow.flow = {**flow.flow, **definition}
        flow.found = content_hash(definition_of(flow.flow))

    async def working(self, action: str) -> None:
        jitter = self.behaviour.latency_jitter_ms
        latency = self.behaviour.latency_ms + (self._rng.uniform(-jitter, jitter) if jitter else 0)
        if latency > 0:
            await asyncio.sleep(latency / 1000)

    async def node_types(self) -> list[JsonObject]:
        allowed = self.behaviour.node_types
        known = {kind["type"]: kind for kind in nodes.catalogue()}
        return [known.get(name, {"type": name}) for name in sorted(known if allowed is None else allowed)]

    async def reported_types(self) -> list[str] | None:
        allowed = self.behaviour.node_types
        return None if allowed is None else sorted(allowed)

    async def executions(self) -> list[JsonObject]:
        return self._history.newest()

    async def system_metrics(self) -> JsonObject:
        """Figures that move, so that charts and alerts have something to show."""
        return self._board.reading(self._age())

    async def flow_metrics(self) -> dict[str, JsonObject]:
        age, rate = self._age(), self.behaviour.error_rate
        return {flow_id: pulse.take(age, rate) for flow_id, pulse in self._pulses.items()}

    def _errors(self, flow_id: str) -> int:
        pulse = self._pulses.get(flow_id)
        return pulse.errors(self._age(), self.behaviour.error_rate) if pulse else self._failed.get(flow_id, 0)

    async def measure(self, at: int) -> list[Point]:
        return [*await super().measure(at), *self._load.points(at)]

    def _age(self) -> float:
        return time.monotonic() - self._opened

    async def gpio_state(self) -> JsonObject:
        return {"pins": [{"pin": pin, "direction": "in", "value": self._rng.randrange(2)} for pin in (17, 27, 22)]}

    def _check(self, flow: Installed) -> None:
        try:
            types = parse(definition_of(flow.flow)).types()
        except FlowError as error:
            raise CommandError(INVALID_FLOW, str(error)) from error
        missing = sorted(types - self.behaviour.node_types) if self.behaviour.node_types is not None else []
        if missing:
            raise CommandError(UNSUPPORTED_NODE_TYPE, f"unsupported node types: {', '.join(missing)}")

    async def _launch(self, flow: Installed) -> None:
        if self._rng.random() < self.behaviour.failure_rate:
            raise RuntimeError("simulated failure")
        await self._relaunch(flow)

    async def _relaunch(self, flow: Installed) -> None:
        execution = self._history.start(flow.flow_id, "start")
        execution.begin()
        execution.end()
        rate, age = rate_of(definition_of(flow.flow)), self._age()
        self._pulses[flow.flow_id] = Pulse(rate, age, age, self._failed.get(flow.flow_id, 0))

    async def _halt(self, flow: Installed) -> None:
        """Nothing runs, so there is nothing to stop but counting."""
        self._failed[flow.flow_id] = self._errors(flow.flow_id)
        self._pulses.pop(flow.flow_id, None)

    async def _forget(self, flow_id: str) -> None:
        self._failed.pop(flow_id, None)


@dataclass
class Pulse:
    """How often a flow would have run and failed: `rate` a second since the ages `counted` and `seen`."""

    rate: float
    counted: float
    seen: float
    failed: int = 0
    told: int = -1
    owed: float = 0.0

    def __post_init__(self) -> None:
        self.told = self.failed

    def take(self, age: float, error_rate: float) -> JsonObject:
        """Executions and errors since the last call."""
        beats = int(self.rate * (age - self.counted))
        if beats:
            self.counted += beats / self.rate
        before, self.told = self.told, self.errors(age, error_rate)
        return {"executions": beats, "errors": self.told - before}

    def errors(self, age: float, error_rate: float) -> int:
        """All of them, those of the flow's earlier runs too."""
        self.owed += self.rate * (age - self.seen) * error_rate
        self.seen, new = age, int(self.owed)
        self.owed -= new
        self.failed += new
        return self.failed


def rate_of(definition: JsonObject) -> float:
    """Executions a second that the inject nodes of a checked definition would start."""
    intervals = [(node.get("config") or {}).get("interval") for node in definition["nodes"] if node["type"] == "inject"]
    return sum(1 / interval for interval in intervals if isinstance(interval, (int, float)) and interval >= 0.01)
