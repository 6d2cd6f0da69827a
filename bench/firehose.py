"""Devices that send telemetry as fast as it is acknowledged, in a process of its own: ``python -m bench.firehose``.

As lean as Python can be, since its processor time counts: frames are prebuilt but for their ids and seconds. The first
line in is ``{"url": …, "members": [[id, key], …], "points": n, "names": n, "window": n, "seconds": s}``; each device
keeps ``window`` frames under way, for so long. When all are connected a line goes out, and one starts them; last goes
``{"frames": n, "points": n, "seconds": s, "cpu_seconds": s, "p99_ms": …}``: what was acknowledged, until the last ack.
"""

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

import orjson
import uvloop

from bench.measure import percentile
from bench.swarm import TEXT, Device, frame

ROOT = Path(__file__).parent.parent
SECOND = b"SECONDSSSS"
ACK_SECONDS = 60.0


def metrics(points: int, names: int) -> bytes:
    """The points of a frame: so many metrics, each sampled evenly within a second that is filled in later."""
    samples = points // names
    rows = [
        f'["bench.metric_{name:02d}",{SECOND.decode()}{sample * 1000 // samples:03d},{20 + name + sample / 10:.2f}]'
        for sample in range(samples)
        for name in range(names)
    ]
    return ("[" + ",".join(rows) + "]").encode()


class Sender(Device):
    """A device that answers each ack with its next frame until it is told to stop."""

    def __init__(self, host: str, hello: bytes, crowd: "Crowd") -> None:
        super().__init__(host, hello)
        self._crowd = crowd
        self._sent: dict[str, float] = {}

    @property
    def under_way(self) -> int:
        return len(self._sent)

    def send(self) -> None:
        batch = str(uuid4())
        self._sent[batch] = time.monotonic()
        body = b'{"type":"telemetry","id":"%s","metrics":%s}' % (batch.encode(), self._crowd.metrics())
        self.transport.write(frame(TEXT, body))

    def _read(self, message: dict[str, Any]) -> None:
        if message["type"] == "ack":
            self._crowd.acknowledged(time.monotonic() - self._sent.pop(message["id"]))
            if self._crowd.sending:
                self.send()
        else:
            super()._read(message)


class Crowd:
    """All devices."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._order, self._second, self._filled = order, 0, b""
        self._template = metrics(order["points"], order["names"])
        self.sending = True
        self._waits: list[float] = []

    def metrics(self) -> bytes:
        second = int(time.time())
        if second != self._second:
            self._second, self._filled = second, self._template.replace(SECOND, b"%d" % second)
        return self._filled

    def acknowledged(self, waited: float) -> None:
        self._waits.append(waited)

    async def connect(self) -> list[Sender]:
        parts = urlsplit(self._order["url"])
        loop = asyncio.get_running_loop()
        senders = []
        for device_id, key in self._order["members"]:
            hello = {
                "type": "connect", "device_id": device_id, "api_key": key, "version": "1.0.0", "protocol": 2,
                "capabilities": ["telemetry"],
            }  # fmt: skip
            opening = frame(TEXT, orjson.dumps(hello))
            host = f"{parts.hostname}:{parts.port}"
            _transport, made = await loop.create_connection(
                lambda host=host, opening=opening: Sender(host, opening, self), parts.hostname, parts.port
            )
            await made.connected
            senders.append(made)
        return senders

    async def fire(self, senders: list[Sender]) -> dict[str, float]:
        began, cpu = time.monotonic(), time.process_time()
        for _ in range(self._order["window"]):
            for sender in senders:
                sender.send()
        await asyncio.sleep(self._order["seconds"])
        self.sending = False
        deadline = time.monotonic() + ACK_SECONDS
        while any(sender.under_way for sender in senders) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return {
            "frames": len(self._waits),
            "points": len(self._waits) * self._order["points"],
            "seconds": time.monotonic() - began,
            "cpu_seconds": time.process_time() - cpu,
            "p99_ms": percentile(self._waits, 99) * 1000,
        }


def run(
    url: str, members: Sequence[tuple[object, str]], *, points: int, names: int, window: int, seconds: float
) -> "Running":
    """Start the devices; the answer's ``fire`` lets them send. They are connected when this returns."""
    order = {
        "url": url, "members": [[str(device_id), key] for device_id, key in members],
        "points": points, "names": names, "window": window, "seconds": seconds,
    }  # fmt: skip
    return Running(order)


class Running:
    """The process, for benchmarks."""

    def __init__(self, order: dict[str, Any]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.firehose"], cwd=ROOT, env=dict(os.environ),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._say(json.dumps(order))
        self._hear()

    def fire(self) -> dict[str, float]:
        """Send for the time that was ordered; what was acknowledged."""
        self._say("fire")
        told: dict[str, float] = json.loads(self._hear())
        self._process.wait(10)
        return told

    def _say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def _hear(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the devices ended with {self._process.wait()}")
        return line


async def _main() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    crowd = Crowd(json.loads(await loop.run_in_executor(None, sys.stdin.readline)))
    senders = await crowd.connect()
    print("connected", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    print(json.dumps(await crowd.fire(senders)), flush=True)


if __name__ == "__main__":
    uvloop.run(_main())
