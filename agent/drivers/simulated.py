"""A device without a machine: flows in memory, invented figures, latency and failures as asked for, seeded."""

import asyncio
import random
import time
from dataclasses import dataclass

from agent.drivers.base import JsonObject
from agent.drivers.installed import Installed, InstalledFlows, definition_of
from agent.protocol import INVALID_FLOW, UNSUPPORTED_NODE_TYPE, CommandError
from agent.runtime import nodes
from agent.runtime.definition import FlowError, parse
from agent.runtime.executions import History


@dataclass
class Behaviour:
    """How a simulated device behaves; may be changed while it runs.

    Latency in milliseconds per command, ± the jitter; `failure_rate`: part of the starts that fail;
    `node_types`: the only types that it has, None: every type.
    """

    latency_ms: float = 0.0
    latency_jitter_ms: float = 0.0
    failure_rate: float = 0.0
    node_types: frozenset[str] | None = None


class SimulatedDriver(InstalledFlows):
    """Answers as a device would, at the cost of a few dictionaries."""

    echoes_desired = True

    def __init__(self, name: str, behaviour: Behaviour, seed: int = 1) -> None:
        super().__init__()
        self.name, self.behaviour = name, behaviour
        self._rng = random.Random(f"{seed}:{name}:driver")
        self._history = History(limit=20)

    async def working(self, action: str) -> None:
        jitter = self.behaviour.latency_jitter_ms
        latency = self.behaviour.latency_ms + (self._rng.uniform(-jitter, jitter) if jitter else 0)
        if latency > 0:
            await asyncio.sleep(latency / 1000)

    async def node_types(self) -> list[JsonObject]:
        allowed = self.behaviour.node_types
        known = {kind["type"]: kind for kind in nodes.catalogue()}
        return [known.get(name, {"type": name}) for name in sorted(known if allowed is None else allowed)]

    async def executions(self) -> list[JsonObject]:
        return self._history.newest()

    async def system_metrics(self) -> JsonObject:
        """Figures that move, so that charts and alerts have something to show."""
        rng, total = self._rng, 1_000_000_000
        used = int(total * rng.uniform(0.3, 0.6))
        return {
            "hostname": self.name,
            "os": "linux",
            "arch": "aarch64",
            "board_model": "Simulated Board rev 1",
            "uptime": int(time.monotonic() - self._opened),
            "temperature": round(rng.uniform(40, 60), 1),
            "cpu": {"usage_percent": round(rng.uniform(5, 60), 1)},
            "memory": {
                "total_bytes": total,
                "used_bytes": used,
                "free_bytes": total - used,
                "available_bytes": total - used,
                "percent": round(100 * used / total, 1),
            },
            "swap": {"total_bytes": 0, "used_bytes": 0, "free_bytes": 0, "percent": 0.0},
            "load_avg": {span: round(rng.uniform(0, 2), 2) for span in ("1min", "5min", "15min")},
            "network": {"rx_bytes": rng.randrange(10**9), "tx_bytes": rng.randrange(10**9)},
        }

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

    async def _halt(self, flow: Installed) -> None:
        """Nothing runs, so there is nothing to stop."""
