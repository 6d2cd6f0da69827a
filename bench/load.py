"""A cheap load generator in a process of its own: ``n`` clients, each with one request under way on a kept connection.

``run`` starts it; it reads its orders as JSON from standard input and prints what it saw.
"""

import asyncio
import json
import re
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvloop

from bench.measure import percentile

ROOT = Path(__file__).parent.parent
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Seen:
    """What the clients saw: only answers with status 200 count; the first of the others is kept as ``complaint``."""

    per_second: float
    p50_ms: float
    p99_ms: float
    failures: int
    complaint: str = ""


def run(url: str, paths: list[str], token: str, *, clients: int, seconds: float) -> Seen:
    """GET ``paths`` in turn for ``seconds``, after a fifth as long to warm up. Raises RuntimeError on any failure."""
    order = {"url": url, "paths": paths, "token": token, "clients": clients, "seconds": seconds}
    done = subprocess.run(
        [sys.executable, "-m", "bench.load"],
        cwd=ROOT, input=json.dumps(order), capture_output=True, text=True, check=True, timeout=seconds * 2 + 60,
    )  # fmt: skip
    seen = Seen(**json.loads(done.stdout))
    if seen.failures:
        raise RuntimeError(f"{seen.failures} requests to {url} failed, the first with {seen.complaint}")
    return seen


class Client(asyncio.Protocol):
    """One connection: sends the next request as soon as the answer to the last is whole."""

    def __init__(self, requests: Any, seen: list[tuple[float, float]], failed: list[str]) -> None:
        self._requests, self._seen, self._failed = requests, seen, failed
        self._buffer, self._sent_at = b"", 0.0
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._send()

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(next(self._requests))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        length = LENGTH.search(head) if found else None
        if not length or len(body) < int(length[1]):
            return
        moment = time.perf_counter()
        self._seen.append((moment, moment - self._sent_at))
        if not head.startswith(b"HTTP/1.1 200"):
            self._failed.append(self._buffer.decode(errors="replace"))
        self._buffer = b""
        self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        self._failed.append("connection lost")


async def _main(order: dict[str, Any]) -> Seen:
    parts = urlsplit(order["url"])
    head = f"HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {order['token']}\r\n\r\n"
    requests = cycle([f"GET {path} {head}".encode() for path in order["paths"]])
    seen: list[tuple[float, float]] = []
    failed: list[str] = []
    loop = asyncio.get_running_loop()
    for _ in range(order["clients"]):
        await loop.create_connection(lambda: Client(requests, seen, failed), parts.hostname, parts.port)
    await asyncio.sleep(order["seconds"] / 5)
    while len(seen) < order["clients"]:  # the server still opens what it opens at first use
        await asyncio.sleep(0.02)
    began = time.perf_counter()
    await asyncio.sleep(order["seconds"])
    ended = time.perf_counter()
    counted = [seconds * 1000 for moment, seconds in seen if began <= moment <= ended]
    return Seen(
        per_second=len(counted) / (ended - began),
        p50_ms=percentile(counted, 50),
        p99_ms=percentile(counted, 99),
        failures=len(failed),
        complaint=failed[0] if failed else "",
    )


if __name__ == "__main__":
    print(json.dumps(asdict(uvloop.run(_main(json.load(sys.stdin))))))
