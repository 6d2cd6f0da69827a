"""Clients that ask as fast as they are answered, in a process of their own: ``python -m bench.load``, JSON in and out.

Plain sockets on uvloop: a client library would use more of the machine than what is measured.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

import uvloop

from bench.platform import ROOT


@dataclass(frozen=True)
class Load:
    """What came of it. ``latencies``: milliseconds, in rising order."""

    per_second: float
    latencies: list[float]

    def percentile(self, percent: float) -> float:
        return self.latencies[min(len(self.latencies) - 1, int(len(self.latencies) * percent / 100))]


def get(
    port: int, path: str, headers: Mapping[str, str], *, clients: int, seconds: float, warm_up: float = 1.0
) -> Load:
    """GET a path on this machine from so many clients at once. Raises RuntimeError for any answer but 200."""
    asked = {
        "port": port, "path": path, "headers": dict(headers), "clients": clients, "seconds": seconds,
        "warm_up": warm_up,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"], input=json.dumps(asked), capture_output=True, text=True, cwd=ROOT,
        env=dict(os.environ), check=False, timeout=seconds + warm_up + 60,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{path}: {done.stderr[-2000:]}")
    latencies = sorted(json.loads(done.stdout))
    return Load(len(latencies) / seconds, latencies)


async def _measure(
    port: int, path: str, headers: Mapping[str, str], clients: int, seconds: float, warm_up: float
) -> list[float]:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{lines}\r\n".encode()
    begin = time.perf_counter() + warm_up
    ones = [asyncio.create_task(_client(port, request, begin, begin + seconds)) for _ in range(clients)]
    return [taken for one in ones for taken in await one]


async def _client(port: int, request: bytes, begin: float, end: float) -> list[float]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    latencies = []
    while (started := time.perf_counter()) < end:
        writer.write(request)
        await _answer(reader)
        finished = time.perf_counter()
        if begin <= started and finished <= end:
            latencies.append((finished - started) * 1000)
    writer.close()
    return latencies


async def _answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = head.split(b" ", 2)[1]
    length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
    body = await reader.readexactly(length)
    if status != b"200":
        raise RuntimeError(f"answered {status.decode()}: {body[:500].decode()}")


if __name__ == "__main__":
    json.dump(uvloop.run(_measure(**json.load(sys.stdin))), sys.stdout)
