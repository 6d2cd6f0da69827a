"""How many commands a second one web process carries to its devices and back, beside two peers in the same run.

A command is ``GET /edge-nodes/:id/health``: authenticated, tenant and role checked, sent through the tunnel, answered
by the device, answered to the caller. The peers (``bench/peers``) do the same job in FastAPI, one process each, with as
many devices and the same clients: one with the same checks on the same database, one with none. All stand side by side
and are measured in turn, several rounds, so that a slow moment of the machine hits them alike; the medians count.
"""

import os
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import TracebackType

import httpx

from bench import load
from bench.load import Seen
from bench.platform import House, Member, devices
from bench.report import Figure, at_least, at_most, told
from bench.swarm import Swarm
from tests.platform import ROOT, free_port

MANY = 32


class Peer:
    """``bench.peers.<name>`` in one uvicorn process, as uvicorn runs by default (uvloop, httptools)."""

    def __init__(self, name: str, house: House) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "uvicorn", f"bench.peers.{name}:app", "--port", str(port)]
        self._log = (house.folder / f"{name}.log").open("ab")
        environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=self._log, stderr=self._log)

    def __enter__(self) -> "Peer":
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                httpx.get(f"{self.url}/openapi.json", timeout=2)
            except httpx.HTTPError:
                time.sleep(0.1)
            else:
                return self
        self.__exit__(None, None, None)
        raise TimeoutError(f"a peer does not serve; its log is {self._log.name}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._log.close()


@dataclass
class Contender:
    """What is measured: where requests go, for which devices, and what was seen with many clients and with one."""

    url: str
    paths: list[str]
    token: str
    many: list[Seen] = field(default_factory=list)
    one: list[Seen] = field(default_factory=list)

    def measure(self, seconds: float) -> None:
        self.many.append(load.run(self.url, self.paths, self.token, clients=MANY, seconds=seconds))
        self.one.append(load.run(self.url, self.paths, self.token, clients=1, seconds=seconds / 2))

    @property
    def per_second(self) -> float:
        return statistics.median(seen.per_second for seen in self.many)

    @property
    def p50_ms(self) -> float:
        """At one client."""
        return statistics.median(seen.p50_ms for seen in self.one)

    @property
    def p99_ms(self) -> float:
        """At many clients."""
        return statistics.median(seen.p99_ms for seen in self.many)


def run(*, count: int = 200, seconds: float = 4.0, rounds: int = 3, peers: bool = True) -> list[Figure]:
    """``count`` devices, ``rounds`` of ``seconds``; without ``peers`` only what needs none of their packages."""
    with ExitStack() as running:
        house = running.enter_context(House(web=2, parts=(), durable=peers))
        org_id, token = house.sign_up()
        fleets = devices(count * (2 if peers else 1), org_id)

        def contend(url: str, gateway: str, members: list[Member]) -> Contender:
            running.enter_context(Swarm(f"{gateway}/tunnel", members))
            return Contender(url, [f"/api/v1/edge-nodes/{device_id}/health" for device_id, _key in members], token)

        ours = contend(house.url(0), house.url(0), fleets[:count])
        across = Contender(house.url(1), ours.paths, token)
        contenders = {"ours": ours, "across": across}
        if peers:
            bare, checked = (running.enter_context(Peer(name, house)).url for name in ("bare", "checked"))
            contenders["bare_twin"] = contend(bare, bare, fleets[:count])
            contenders["checked_twin"] = contend(checked, checked, fleets[count:])
        for number in range(rounds):
            for name, contender in contenders.items():
                contender.measure(seconds)
                print(f"   round {number + 1}, {name}: {contender.many[-1].per_second:,.0f}/s", flush=True)
    return [*(_ratios(contenders) if peers else []), *_values(contenders)]


def _ratios(by: dict[str, Contender]) -> list[Figure]:
    ours, checked, bare = by["ours"], by["checked_twin"], by["bare_twin"]
    return [
        at_least("commands.ratio_to_checked_twin", ours.per_second / checked.per_second, "times", 2),
        at_least("commands.ratio_to_bare_twin", ours.per_second / bare.per_second, "times", 0.7),
        at_most("commands.p50_ratio_to_checked_twin", ours.p50_ms / checked.p50_ms, "times", 1),
    ]


def _values(by: dict[str, Contender]) -> list[Figure]:
    figures = []
    for name, contender in by.items():
        stem = "commands" if name == "ours" else f"commands.{name}"
        figures += [
            told(f"{stem}.per_second", contender.per_second, f"/s at {MANY} clients"),
            told(f"{stem}.p50_ms", contender.p50_ms, "ms at 1 client"),
            told(f"{stem}.p99_ms", contender.p99_ms, f"ms at {MANY} clients"),
        ]
    return figures
