"""What a large download through a device's editor costs those who send commands over the same tunnel meanwhile.

The device is the real agent, in a process of its own, before a local server of large files. ``MANY`` clients ask for
the device's health: alone, then while files of ``megabytes`` are downloaded one after the other through the editor's
proxy; the medians of the rounds count. ``across``: the browser's requests arrive at another web process than the one
that holds the tunnel.
"""

import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import UUID

import httpx

from bench import load
from bench.load import Seen
from bench.platform import House
from bench.report import Figure, at_least, at_most, told
from bench.shelf import Shelf
from tests.edge_nodes.hostile import Tab
from tests.platform import ROOT

MANY = 4
MB = 1_000_000
GROWTH_MB = 40
"""What a web process may grow by: windows of a few streams, and what the allocator keeps; not a part of the file."""


class Downloads:
    """Files downloaded one after the other by a thread, until told to stop; ``rates`` are MB/s of whole ones."""

    def __init__(self, tab: Tab, size: int) -> None:
        self._tab, self._size, self._stop = tab, size, threading.Event()
        self.rates: list[float] = []
        self.failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Downloads":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(120)
        if self.failure:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                if self._one():
                    self.rates.append(self._size / MB / (time.monotonic() - began))
        except Exception as error:
            self.failure = error

    def _one(self) -> bool:
        """Whether a whole file came: the last one is given up when the measuring ends, unless it is the only one."""
        with socket.create_connection(("127.0.0.1", self._tab.port), 60) as sock:
            sock.sendall(self._tab.head("GET", f"/{self._size}"))
            got, head = 0, b""
            while part := sock.recv(262144):
                if not head:
                    head = part
                got += len(part)
                if self._stop.is_set() and self.rates:
                    return False
        if not head.startswith(b"HTTP/1.1 200") or got < self._size:
            raise RuntimeError(f"a download ended after {got:,} bytes: {head[:200]!r}")
        return True


@dataclass
class Side:
    """What was seen at one web process."""

    tab: Tab
    idle: list[Seen] = field(default_factory=list)
    busy: list[Seen] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """p99 of commands beside downloads over p99 of commands alone."""
        return _median(self.busy) / _median(self.idle)


def run(*, megabytes: int = 100, seconds: float = 6.0, rounds: int = 3, durable: bool = True) -> list[Figure]:
    """``rounds`` of ``seconds`` without and ``seconds`` with downloads of ``megabytes``, at either web process."""
    with House(web=2, parts=(), durable=durable) as house, Shelf() as shelf:
        _org_id, token = house.sign_up()
        with _agent(house, token, shelf.url) as device_id:
            sides = {name: Side(_tab(house, number, token, device_id)) for number, name in enumerate(("", "across."))}
            for side in sides.values():  # what a first download loads once is no growth
                side.tab.get(f"/{megabytes * MB // 10}", timeout=60)
            before = [house.serving(number).memory_info().rss for number in range(2)]
            with _Highest(house) as highest:
                for number in range(rounds):
                    for name, side in sides.items():
                        _round(house, side, device_id, token, megabytes * MB, seconds)
                        print(f"   round {number + 1}, {name or 'direct'}: {side.rates[-1]:.1f} MB/s, p99 "
                              f"{side.idle[-1].p99_ms:.1f} / {side.busy[-1].p99_ms:.1f} ms", flush=True)  # fmt: skip
        grown = max(peak - first for peak, first in zip(highest.rss, before, strict=True)) / MB
    return [*_figures(sides), at_most("editor.web_growth_mb", grown, "MB", GROWTH_MB)]


def _round(house: House, side: Side, device_id: UUID, token: str, size: int, seconds: float) -> None:
    paths = [f"/api/v1/edge-nodes/{device_id}/health"]
    side.idle.append(load.run(house.url(0), paths, token, clients=MANY, seconds=seconds))
    with Downloads(side.tab, size) as downloads:
        side.busy.append(load.run(house.url(0), paths, token, clients=MANY, seconds=seconds))
    side.rates += downloads.rates


def _figures(sides: dict[str, Side]) -> Iterator[Figure]:
    for name, side in sides.items():
        yield at_most(f"editor.{name}commands_p99_ratio", side.ratio, "times", 3)
        yield told(f"editor.{name}commands_p99_ms", _median(side.busy), f"ms beside a download, {MANY} clients")
        yield told(f"editor.{name}commands_p99_idle_ms", _median(side.idle), f"ms alone, {MANY} clients")
        yield at_least(f"editor.{name}mb_per_second", statistics.median(side.rates), "MB/s beside the commands", 1)


def _median(seen: list[Seen]) -> float:
    return statistics.median(one.p99_ms for one in seen)


@contextmanager
def _agent(house: House, token: str, editor_url: str) -> Iterator[UUID]:
    """The reference agent, provisioned and connected to the first web process."""
    with httpx.Client(base_url=f"{house.url()}/api/v1", headers={"Authorization": f"Bearer {token}"}) as http:
        made = http.post("/devices", json={"name": "editor"}).raise_for_status().json()
        code, state = made["provisioning_code"], str(house.folder / "agent")
        command = [sys.executable, "-m", "agent", "run", "--url", house.url(), "--provisioning-code", code]
        command += ["--editor-url", editor_url, "--state-dir", state]
        with (house.folder / "agent.log").open("wb") as log:
            process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 30
            while http.get(f"/devices/{made['id']}/status").json()["status"] != "online":
                if time.monotonic() > deadline or process.poll() is not None:
                    raise TimeoutError(f"no agent: {(house.folder / 'agent.log').read_text()[-2000:]}")
                time.sleep(0.1)
            yield UUID(made["id"])
        finally:
            process.terminate()
            process.wait(10)


def _tab(house: House, number: int, token: str, device_id: UUID) -> Tab:
    asked = httpx.get(
        f"{house.url(number)}/api/v1/edge-nodes/{device_id}/editor-url",
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    asked.raise_for_status()
    return Tab.at(asked.json()["url"], house.platform.ports[number])


class _Highest:
    """The highest resident memory of each web process while it is looked at, every 50 ms."""

    def __init__(self, house: House) -> None:
        self._processes = [house.serving(number) for number in range(2)]
        self.rss = [0, 0]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "_Highest":
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        self._thread.join(5)

    def _run(self) -> None:
        while not self._stop.wait(0.05):
            self.rss = [max(was, one.memory_info().rss) for was, one in zip(self.rss, self._processes, strict=True)]
