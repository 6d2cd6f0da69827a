"""Nothing acknowledged is lost and nothing stored twice when web, worker or Redis die in the middle of ingest.

Real processes are killed with SIGKILL while devices send; what the devices saw acknowledged is what is stored, exactly.
"""

import random
import threading
import time
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import redis
from websockets.exceptions import WebSocketException

from config.settings import settings
from tests import make
from tests.e2e.conftest import until
from tests.platform import Platform
from tests.telemetry.support import TELEMETRY, acknowledged, frame, inbox, now_ms, points, used
from tests.tunnel.conftest import Device

pytestmark = pytest.mark.xdist_group("telemetry-faults")

POINTS = 20
WINDOW = 4


class Sender:
    """A device that sends numbered batches, keeps each until it is acknowledged, and dials whichever gateway answers.

    ``acknowledged`` holds the first value of every batch whose ack it has seen.
    """

    def __init__(self, urls: list[str], device_id: UUID, key: str) -> None:
        self.urls, self.id, self.key = urls, device_id, key
        self.acknowledged: set[int] = set()
        self.resent = 0
        self._unacknowledged: dict[str, dict[str, Any]] = {}
        self._next = 0
        self._sending = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def finish(self, timeout: float = 40) -> None:
        """Send nothing new; return once everything is acknowledged."""
        self._sending = False
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"{len(self._unacknowledged)} batches are still not acknowledged"

    def _run(self) -> None:
        while self._sending or self._unacknowledged:
            try:
                device = Device(random.choice(self.urls), self.id, self.key, **TELEMETRY)
                self._serve(device)
            except (OSError, WebSocketException, AssertionError, TimeoutError, EOFError):
                time.sleep(0.1)

    def _serve(self, device: Device) -> None:
        assert device.first["type"] == "connected"
        for batch in self._unacknowledged.values():
            device.send(batch)
            self.resent += 1
        try:
            while self._sending or self._unacknowledged:
                while self._sending and len(self._unacknowledged) < WINDOW:
                    self._send(device)
                done = self._unacknowledged.pop(acknowledged(device, 3), None)
                if done:
                    self.acknowledged.add(int(done["metrics"][0][2]))
        finally:
            device.socket.socket.close()

    def _send(self, device: Device) -> None:
        moment = now_ms()
        batch = frame([["counter", moment, self._next * POINTS + n] for n in range(POINTS)])
        self._next += 1
        self._unacknowledged[batch["id"]] = batch
        device.send(batch)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Two web processes, a worker and a scheduler of this module's own, to be killed."""
    with Platform(tmp_path_factory.mktemp("ingest"), web=2) as running:
        yield running


def ingest(platform: Platform, org: UUID, faults: Any, seconds: float = 8.0) -> list[Sender]:
    """Devices send while ``faults(platform)`` happens again and again; they end with everything acknowledged."""
    urls = [platform.url(0), platform.url(1)]
    senders = [Sender(urls, made.id, key) for made, key in make.devices(8, org)]
    until(lambda: all(sender.acknowledged for sender in senders), 15)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        faults(platform)
    for sender in senders:
        sender.finish()
    return senders


def check(org: UUID, senders: list[Sender]) -> None:
    """What is acknowledged is stored, once, and nothing else is."""
    until(lambda: inbox(org) == 0, 20)
    wanted = {sender.id: sender.acknowledged for sender in senders}
    count = sum(len(batches) for batches in wanted.values()) * POINTS
    until(lambda: used(org)[0] >= count, 10)
    found = points(org)
    assert len(found) == count
    assert used(org) == (count, 0, 0)
    for device_id, batches in wanted.items():
        values = [int(point.value) for point in found if point.device_id == device_id]
        assert len(values) == len(set(values))
        assert set(values) == {first + n for first in batches for n in range(POINTS)}


def test_web_processes_killed_during_ingest(whole: Platform, org: UUID) -> None:
    def kill(platform: Platform) -> None:
        name = random.choice(["web0", "web1"])
        platform.kill(name)
        platform.start(name)
        time.sleep(random.uniform(1.0, 2.0))

    senders = ingest(whole, org, kill)
    assert sum(sender.resent for sender in senders) > 0  # it did hit something
    check(org, senders)


def test_workers_killed_during_ingest(whole: Platform, org: UUID) -> None:
    def kill(platform: Platform) -> None:
        time.sleep(random.uniform(0.5, 1.5))
        platform.restart("worker")

    check(org, ingest(whole, org, kill))


def test_redis_emptied_during_ingest(whole: Platform, org: UUID) -> None:
    client = redis.Redis.from_url(settings().redis_url)

    def flush(_platform: Platform) -> None:
        client.flushdb()  # every job and every subscription's key; another test's database is left alone
        time.sleep(random.uniform(0.05, 0.3))

    check(org, ingest(whole, org, flush, 4))


def test_everything_at_once(whole: Platform, org: UUID) -> None:
    client = redis.Redis.from_url(settings().redis_url)

    def kill(platform: Platform) -> None:
        client.flushdb()
        for name in random.sample(["web0", "web1", "worker"], 2):
            platform.restart(name)
        time.sleep(random.uniform(1.0, 2.5))

    check(org, ingest(whole, org, kill, 10))
