"""A swarm of bare devices in a process of its own: ``python -m bench.swarm``, driven over its standard streams.

Each device is one raw WebSocket that answers every command at once, as cheaply as Python can: what is measured is the
server. It dials again as soon as it has lost its socket. The first line in is
``{"url": …, "members": [[id, key], …], "at_once": n}``. Whenever all are connected, a line goes out:
``{"seconds": s, "p50_ms": …, "p99_ms": …}``, the first counted from the moment when one was not, the others of single
connects. The line ``cut`` drops all sockets; end-of-file ends the swarm.
"""

import asyncio
import base64
import json
import os
import resource
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import orjson
import uvloop

from bench.measure import percentile

ROOT = Path(__file__).parent.parent
PING_SECONDS = 30.0
RETRY_SECONDS = 0.1
DIAL_SECONDS = 10.0
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
NO_MASK = b"\0\0\0\0"  # a mask of zeros is a valid one, and costs nothing to apply
HEALTH = {"status": "ok", "version": "1.0.0", "uptime": 4711}


def frame(opcode: int, payload: bytes) -> bytes:
    """A whole, masked WebSocket frame."""
    size = len(payload)
    head = bytes((0x80 | opcode, 0x80 | size)) if size < 126 else struct.pack("!BBH", 0x80 | opcode, 0xFE, size)
    return head + NO_MASK + payload


class Device(asyncio.Protocol):
    """One socket of one device. ``connected`` is settled by the cloud's first frame, ``lost`` by the socket's end."""

    def __init__(self, host: str, hello: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.connected, self.lost = loop.create_future(), loop.create_future()
        self._host, self._hello, self._buffer, self._upgraded = host, hello, b"", False
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /tunnel HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )

    def connection_lost(self, _error: Exception | None) -> None:
        if not self.connected.done():
            self.connected.set_exception(ConnectionError("lost before it was connected"))
        self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        if not self._upgraded:
            data = self._upgrade(data)
        self._buffer = self._take_frames(data)

    def _upgrade(self, data: bytes) -> bytes:
        head, found, rest = data.partition(b"\r\n\r\n")
        if not found:
            self._buffer = data
            return b""
        if not head.startswith(b"HTTP/1.1 101"):
            self.transport.abort()
            return b""
        self._upgraded = True
        self.transport.write(self._hello)
        return rest

    def _take_frames(self, data: bytes) -> bytes:
        """Act on the whole frames in ``data``; what is left of it. Those of a server are unmasked."""
        while len(data) >= 2:
            size, start = data[1], 2
            if size == 126 and len(data) >= 4:
                size, start = int.from_bytes(data[2:4], "big"), 4
            elif size >= 126:
                break  # larger than 64 KiB, or its length is not here yet: no benchmark sends the former
            if len(data) < start + size:
                break
            self._take(data[0] & 15, data[start : start + size])
            data = data[start + size :]
        return data

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == TEXT:
            self._read(orjson.loads(payload))
        elif opcode == PING:
            self.transport.write(frame(PONG, payload))
        elif opcode == CLOSE:
            self.transport.abort()

    def _read(self, message: dict[str, Any]) -> None:
        if message["type"] == "command":
            answer = {"type": "response", "id": message["id"], "status": "success", "data": HEALTH}
            self.transport.write(frame(TEXT, orjson.dumps(answer)))
        elif message["type"] == "connected" and not self.connected.done():
            self.connected.set_result(None)

    def ping(self) -> None:
        self.transport.write(frame(TEXT, b'{"type":"ping"}'))


class Crowd:
    """All devices of the process. ``at_once`` bounds the dials under way at the first connect only."""

    def __init__(self, url: str, members: Sequence[tuple[object, str]], at_once: int) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._members = parts.hostname, parts.port, members
        self._turn = asyncio.Semaphore(at_once)
        self._first_time = True
        self._sockets: dict[str, Device] = {}
        self._began = time.monotonic()
        self._seconds: list[float] = []

    async def live(self) -> None:
        await asyncio.gather(*(self._live(str(device_id), key) for device_id, key in self._members))

    def cut(self) -> None:
        """Drop all sockets; each device dials again at once."""
        for device in list(self._sockets.values()):
            device.transport.abort()

    async def _live(self, device_id: str, key: str) -> None:
        hello = {
            "type": "connect", "device_id": device_id, "api_key": key, "version": "1.0.0", "protocol": 2,
            "capabilities": ["deploy_flow", "configure", "get_node_types", "dedup", "telemetry"],
        }  # fmt: skip
        opening = frame(TEXT, orjson.dumps(hello))
        while True:
            device = await self._connect(device_id, opening)
            pings = asyncio.create_task(self._ping(device))
            await device.lost
            pings.cancel()
            if len(self._sockets) == len(self._members):
                self._began, self._seconds = time.monotonic(), []
            del self._sockets[device_id]

    async def _connect(self, device_id: str, opening: bytes) -> Device:
        turn = self._turn if self._first_time else asyncio.Semaphore(1)
        async with turn:
            started = time.monotonic()
            while True:
                try:
                    device = await asyncio.wait_for(self._dial(opening), DIAL_SECONDS)
                    break
                except (OSError, TimeoutError):
                    await asyncio.sleep(RETRY_SECONDS)
        self._sockets[device_id] = device
        self._seconds.append(time.monotonic() - started)
        if len(self._sockets) == len(self._members):
            self._tell()
        return device

    async def _dial(self, opening: bytes) -> Device:
        host = f"{self._host}:{self._port}"
        loop = asyncio.get_running_loop()
        _transport, device = await loop.create_connection(lambda: Device(host, opening), self._host, self._port)
        try:
            await device.connected
        except BaseException:
            device.transport.abort()
            raise
        return device

    def _tell(self) -> None:
        self._first_time = False
        milliseconds = [seconds * 1000 for seconds in self._seconds]
        told = {
            "seconds": time.monotonic() - self._began,
            "p50_ms": percentile(milliseconds, 50),
            "p99_ms": percentile(milliseconds, 99),
        }
        print(json.dumps(told), flush=True)

    async def _ping(self, device: Device) -> None:
        while True:
            await asyncio.sleep(PING_SECONDS)
            device.ping()


class Swarm:
    """The process, for benchmarks: ``with Swarm(url, members) as swarm`` returns when all devices are connected."""

    def __init__(self, url: str, members: Sequence[tuple[object, str]], *, at_once: int = 50) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.swarm"], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        order = {"url": url, "at_once": at_once, "members": [[str(device_id), key] for device_id, key in members]}
        self._say(json.dumps(order))
        self.first: dict[str, float] = {}

    def __enter__(self) -> "Swarm":
        self.first = self.all_connected()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def all_connected(self) -> dict[str, float]:
        """Wait for the next moment when all are connected: ``seconds``, ``p50_ms``, ``p99_ms`` of one connect."""
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the swarm ended with {self._process.wait()}")
        told: dict[str, float] = json.loads(line)
        return told

    def cut(self) -> None:
        self._say("cut")

    def _say(self, line: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()


async def _main() -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    loop = asyncio.get_running_loop()
    order = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    crowd = Crowd(order["url"], order["members"], order["at_once"])
    living = asyncio.create_task(crowd.live())
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        if line.strip() == "cut":
            crowd.cut()
    living.cancel()


if __name__ == "__main__":
    uvloop.run(_main())
