"""A fleet in a process of its own: ``python -m tests.faults.fleet``, told and asked by lines of JSON.

The first line on standard input is what it is; then each line is a request, answered by one line on standard output:
``{"do": "report"}`` or ``{"do": "move", "to": 1}``. The end of the input ends it.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import uvloop

from agent.answers import Answers
from agent.cli import _raise_descriptor_limit
from agent.device import Device, Options
from agent.drivers.simulated import Behaviour
from agent.enrol import Member
from agent.faults import LinkFaults
from agent.rest import Rest
from agent.simulator import Fleet, FleetOptions
from tests.platform import ROOT
from tests.twins.v1_fleet import V1Fleet


class Crowd(Protocol):
    """What both kinds of fleets do."""

    async def start(self) -> None: ...

    async def report(self) -> dict[str, Any]: ...

    def move(self, to: int) -> None: ...

    async def stop(self) -> None: ...


class V2Fleet:
    """Devices of the reference agent, spread over the gateways ``urls``."""

    def __init__(self, urls: list[str], members: list[Member], faults: dict[str, float], **behaviour: float) -> None:
        link = LinkFaults(**faults) if faults else None
        options = FleetOptions(
            urls[0], members=members, behaviour=Behaviour(**behaviour), faults=link, link=Options(sync_shadow=False)
        )
        self._fleet = _Spread(options, urls)

    async def start(self) -> None:
        await self._fleet.start(None)

    async def report(self) -> dict[str, Any]:
        """``connected``; per device id how often it applied each command, and its flows."""
        fleet = self._fleet
        return {"connected": fleet.connected, "ledger": fleet.ledger, "flows": await fleet.flows()}

    def move(self, to: int) -> None:
        self._fleet.move(to)

    async def stop(self) -> None:
        await self._fleet.stop()


class _Spread(Fleet):
    """Each device dials its own gateway, in turn over ``urls``."""

    def __init__(self, options: FleetOptions, urls: Sequence[str]) -> None:
        super().__init__(options)
        self._ways = [Rest(url) for url in urls]

    def move(self, to: int) -> None:
        """All leave without a word, as when a gateway's network goes, and dial gateway ``to``."""
        for device in self.devices:
            device.rest = self._ways[to]
            device.cut()

    def _device(self, member: Member) -> Device:
        device = super()._device(member)
        device.rest = self._ways[len(self.devices) % len(self._ways)]
        return device


def _made(told: dict[str, Any]) -> Crowd:
    members = [Member(**one) for one in told.pop("members")]
    if told.pop("kind") == "v1":
        return V1Fleet(members=members, **told)
    if told.pop("without_dedup"):
        Answers.get = lambda self, command_id: None  # type: ignore[method-assign]  # the control: it forgets at once
    return V2Fleet(members=members, **told)


async def _serve() -> None:
    _raise_descriptor_limit()
    lines = asyncio.StreamReader(limit=16 * 1024 * 1024)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    crowd = _made(json.loads(await lines.readline()))
    await crowd.start()
    print("{}", flush=True)
    while line := await lines.readline():
        asked = json.loads(line)
        if asked["do"] == "move":
            crowd.move(asked["to"])
            print("{}", flush=True)
        else:
            print(json.dumps(await crowd.report()), flush=True)
    await crowd.stop()


class FleetProcess:
    """Starts a fleet as a process and speaks with it; entered once all its devices are connected."""

    def __init__(self, log: Path, members: Sequence[Member], **told: Any) -> None:
        self._log = log
        self._told = {"kind": "v2", "members": [asdict(one) for one in members], **told}

    def __enter__(self) -> "FleetProcess":
        command = [sys.executable, "-m", "tests.faults.fleet"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._ask(self._told)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def report(self) -> dict[str, Any]:
        return self._ask({"do": "report"})

    def move(self, to: int) -> None:
        self._ask({"do": "move", "to": to})

    def _ask(self, line: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the fleet has ended: {self._log.read_text()[-2000:]}")
        told: dict[str, Any] = json.loads(answer)
        return told


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
