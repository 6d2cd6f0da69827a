"""A simulated machine's figures: seeded walks that look like a small board at work, heat on demand, load for tests."""

import math
import random
from dataclasses import dataclass
from typing import Any

HOT = 92.0
WARMING_SECONDS, COOLING_SECONDS = 4.0, 10.0
LOAD_NAMES = 20
MEMORY_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Overheat:
    """From second `start` of a device's life for `seconds` it is too hot; again every `period` seconds, 0: once."""

    start: float
    seconds: float
    period: float = 0.0

    def holds(self, age: float) -> bool:
        """Whether it is that time."""
        since = age - self.start
        if since < 0:
            return False
        return (since % self.period if self.period else since) < self.seconds


@dataclass
class Walk:
    """A value that wanders and is drawn back to `mean`, within bounds."""

    value: float
    mean: float
    step: float
    low: float
    high: float
    pull: float = 0.1

    def next(self, rng: random.Random) -> float:
        """One step further."""
        drawn = self.value + self.pull * (self.mean - self.value) + rng.gauss(0, self.step)
        self.value = min(self.high, max(self.low, drawn))
        return self.value


class Board:
    """One board. `age`, in seconds, is what it goes by: equal seeds and equal ages are equal lives."""

    def __init__(self, name: str, rng: random.Random, overheat: Overheat | None = None) -> None:
        self._name, self._rng, self._overheat = name, rng, overheat
        cpu, memory = rng.uniform(10, 40), rng.uniform(30, 60)
        self._cpu = Walk(cpu, cpu, 4.0, 1.0, 100.0)
        self._memory = Walk(memory, memory, 0.6, 5.0, 95.0, pull=0.05)
        self._room = Walk(0.0, 0.0, 0.4, -5.0, 5.0)
        self._temperature = self._calm()
        self._age = self._received = self._sent = 0.0

    def _calm(self) -> float:
        """Degrees Celsius at this load."""
        return 38.0 + 0.22 * self._cpu.value + self._room.value

    def reading(self, age: float) -> dict[str, Any]:
        """As `metrics.system_metrics` answers for a real machine."""
        rng, passed = self._rng, max(0.0, age - self._age)
        self._age = age
        cpu, memory = self._cpu.next(rng), self._memory.next(rng)
        self._room.next(rng)
        self._heat(age, passed)
        self._received += passed * rng.uniform(500, 5_000)
        self._sent += passed * rng.uniform(200, 2_000)
        used = int(MEMORY_BYTES * memory / 100)
        free = MEMORY_BYTES - used
        load = cpu / 25
        return {
            "hostname": self._name,
            "os": "linux",
            "arch": "aarch64",
            "board_model": "Simulated Board rev 1",
            "uptime": int(age),
            "temperature": round(self._temperature, 1),
            "cpu": {"usage_percent": round(cpu, 1)},
            "memory": {
                "total_bytes": MEMORY_BYTES,
                "used_bytes": used,
                "free_bytes": free,
                "available_bytes": free,
                "percent": round(memory, 1),
            },
            "swap": {"total_bytes": 0, "used_bytes": 0, "free_bytes": 0, "percent": 0.0},
            "load_avg": {"1min": round(load, 2), "5min": round(0.9 * load, 2), "15min": round(0.8 * load, 2)},
            "network": {"rx_bytes": int(self._received), "tx_bytes": int(self._sent)},
        }

    def _heat(self, age: float, passed: float) -> None:
        """Warm up or cool down towards what this moment wants."""
        hot = self._overheat is not None and self._overheat.holds(age)
        target, pace = (HOT, WARMING_SECONDS) if hot else (self._calm(), COOLING_SECONDS)
        self._temperature += (target - self._temperature) * (1 - math.exp(-passed / pace))


class Load:
    """So many more points a second, evenly in time, over LOAD_NAMES names."""

    def __init__(self, points_per_second: float, rng: random.Random) -> None:
        self._rate, self._rng = points_per_second, rng
        self._names = [f"load.{number:02d}" for number in range(LOAD_NAMES)]
        self._owed, self._made, self._at = 0.0, 0, 0

    def points(self, at: int) -> list[tuple[str, int, float]]:
        """What is due since the last call; `at` is the time in Unix ms."""
        since, self._at = (self._at or at), at
        self._owed += self._rate * max(0, at - since) / 1000
        count = int(self._owed)
        self._owed -= count
        first, self._made = self._made, self._made + count
        names, value, spacing = self._names, round(self._rng.uniform(0, 100), 3), (at - since) / max(1, count)
        return [
            (names[number % LOAD_NAMES], since + int(spacing * (number - first + 1)), value + number % 7)
            for number in range(first, first + count)
        ]
