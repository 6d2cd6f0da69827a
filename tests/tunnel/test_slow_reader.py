"""A device that reads slowly: a frame of 8 MB arrives whole; one that does not read at all hurts nobody."""

import base64
import json
import os
import socket
import struct
import time
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
import redis

from app.tunnel import bus
from config.settings import settings
from tests import make
from tests.e2e.conftest import until
from tests.platform import Platform
from tests.tunnel.conftest import V2, Caller, Device

pytestmark = pytest.mark.xdist_group("gateways")

MEGABYTE = 1_000_000


class SlowDevice:
    """A WebSocket by hand, over a small receive buffer, that reads only when the test says so."""

    def __init__(self, url: str, device_id: UUID, key: str) -> None:
        address = urlsplit(url)
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.socket.settimeout(30)
        self.socket.connect((address.hostname, address.port))
        nonce = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /tunnel HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {nonce}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        header = b""
        while not header.endswith(b"\r\n\r\n"):
            header += self._exactly(1)
        self._send({"type": "connect", "device_id": str(device_id), "api_key": key, "version": "1.0.0", **V2})
        assert json.loads(self.read()[1])["type"] == "connected"

    def _send(self, frame: Any) -> None:
        body = json.dumps(frame).encode()
        self.socket.sendall(struct.pack("!BBH", 0x81, 0x80 | 126, len(body)) + b"\0\0\0\0" + body)  # a mask of zeros

    def read(self) -> tuple[int, bytes]:
        """The next frame: opcode and body, by the length that its header promises."""
        first, length = self._exactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._exactly(8))
        return first & 0x0F, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self.socket.recv(min(count, 65536))
            assert part, "the connection ended in the middle of a frame"
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def gateway_of(caller: Caller, device_id: UUID) -> str:
    items = until(lambda: caller("GET", "/tunnel/status").json()["items"])
    return next(one["gateway"] for one in items if one["device_id"] == str(device_id))


def push(gateway: str, device_id: UUID, version: int, megabytes: int) -> None:
    """As ``bus.notify``, whose patience is for messages of a usual size."""
    desired = {"text": "x" * megabytes * MEGABYTE}
    message = {"t": "shadow", "device": str(device_id), "version": version, "desired": desired, "delta": {}}
    with redis.Redis.from_url(settings().redis_url) as client:
        assert client.publish(bus.channel(gateway), json.dumps(message)) == 1


def test_a_frame_of_8_mb_reaches_a_slow_reader_whole(gateways: Platform, tenant: UUID, caller: Caller) -> None:
    made, key = make.device(tenant)
    device = SlowDevice(gateways.url(0), made.id, key)
    push(gateway_of(caller, made.id), made.id, 1, 8)
    time.sleep(1.5)  # by now the kernel's buffers are full and the writer waits
    opcode, body = device.read()
    assert opcode == 1
    assert len(json.loads(body)["desired"]["text"]) == 8 * MEGABYTE
    device.socket.close()


def test_a_device_that_does_not_read_is_cut_off_and_others_stay_quick(
    gateways: Platform, tenant: UUID, caller: Caller
) -> None:
    (deaf, deaf_key), (other, other_key) = make.devices(2, tenant)
    stuck = SlowDevice(gateways.url(0), deaf.id, deaf_key)
    healthy = Device(gateways.url(0), other.id, other_key, **V2)
    gateway = gateway_of(caller, deaf.id)
    push(gateway, deaf.id, 1, 12)
    time.sleep(0.3)
    waiting = [caller.later("GET", f"/edge-nodes/{deaf.id}/flows?timeout=3") for _ in range(3)]
    started = time.monotonic()
    quick = caller.later("GET", f"/edge-nodes/{other.id}/health")
    healthy.answer({"status": "healthy"})
    assert quick.result().status_code == 200
    assert time.monotonic() - started < 1
    assert {one.result().status_code for one in waiting} <= {502, 504}
    stuck.socket.close()
    healthy.close()
