"""Simulated devices in a process of their own: they share nothing with the platform's processes but the machine.

``python -m bench.fleet URL LATENCY_MS`` reads a line of JSON ``[[name, id, key], …]``, connects these, prints
``connected N``, and stays until its standard input ends.
"""

import asyncio
import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

import psutil
import uvloop

from agent.device import Options
from agent.drivers.simulated import Behaviour
from agent.enrol import Member
from agent.simulator import Fleet, FleetOptions
from bench.platform import ROOT
from bench.platform import Member as Made

CONNECT_SECONDS = 180.0


async def _serve(url: str, latency_ms: float, members: Sequence[Member]) -> None:
    # No shadow at connecting: two REST calls a device, which have nothing to do with a rollout.
    link = Options(sync_shadow=False)
    fleet = Fleet(FleetOptions(url, members=members, behaviour=Behaviour(latency_ms=latency_ms), link=link))
    await fleet.start(CONNECT_SECONDS)
    gc.collect()
    gc.freeze()  # a look through all of them would keep them all from answering for half a second
    print("connected", fleet.connected, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await fleet.stop()


@contextlib.contextmanager
def running(url: str, made: Sequence[Made], latency_ms: float) -> Iterator[psutil.Process]:
    """The devices, all connected; their process. Raises RuntimeError when they do not come in time."""
    command = [sys.executable, "-m", "bench.fleet", url, str(latency_ms)]
    members = [[f"device-{number:05d}", str(device_id), key] for number, (device_id, key) in enumerate(made)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, cwd=ROOT, env=dict(os.environ), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(members) + "\n")
            process.stdin.flush()
            if process.stdout.readline().split() != ["connected", str(len(made))]:
                log.seek(0)
                raise RuntimeError(f"the devices are not connected: {log.read()[-2000:]}")
            yield psutil.Process(process.pid)
        finally:
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


if __name__ == "__main__":
    given = [Member(*one) for one in json.loads(sys.stdin.readline())]
    uvloop.run(_serve(sys.argv[1], float(sys.argv[2]), given))
