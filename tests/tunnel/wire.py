"""A WebSocket by hand: frames as a test wants them, well formed or not."""

import base64
import json
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from app.tunnel.socket import Closed, TunnelSocket

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


class Wire:
    """The client's end of a WebSocket over ``sock``; it reads only when told to."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(10)

    @classmethod
    def dial(cls, url: str, *, receive_buffer: int | None = None, **headers: str) -> "Wire":
        """Upgrade a new connection; the answer's head is in ``head``."""
        address = urlsplit(url)
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(10)
        sock.connect((address.hostname, address.port))
        wire = cls(sock)
        given = {"Host": address.netloc, **UPGRADE, **{key.replace("_", "-"): value for key, value in headers.items()}}
        lines = "".join(f"{key}: {value}\r\n" for key, value in given.items() if value)
        sock.sendall(f"GET /tunnel HTTP/1.1\r\n{lines}\r\n".encode())
        wire.head = wire._head()
        return wire

    head = ""

    def frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> None:
        self.sock.sendall(frame(opcode, payload, fin=fin, rsv=rsv, masked=masked))

    def say(self, message: Any) -> None:
        self.frame(TEXT, message.encode() if isinstance(message, str) else json.dumps(message).encode())

    def hello(self, device_id: Any, key: str, **fields: Any) -> Any:
        """Connect as a device; the cloud's first frame."""
        self.say({"type": "connect", "device_id": str(device_id), "api_key": key, "version": "1.0.0", **fields})
        return self.hear()

    def hear(self) -> Any:
        """The next text frame."""
        while True:
            opcode, payload = self.read()
            if opcode == TEXT:
                return json.loads(payload)
            assert opcode != CLOSE, f"closed: {payload!r}"

    def code(self) -> int | None:
        """The close code, once the peer has closed; None when it just hung up."""
        try:
            while True:
                opcode, payload = self.read()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2]) if payload else 1005
        except (ConnectionError, EOFError):
            return None

    def read(self) -> tuple[int, bytes]:
        first, length = self._exactly(2)
        if length == 126:
            (length,) = struct.unpack("!H", self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._exactly(8))
        return first & 0x0F, self._exactly(length)

    def close(self) -> None:
        self.sock.close()

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self.sock.recv(min(count, 65536))
            if not part:
                raise EOFError("the connection ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _head(self) -> str:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += self._exactly(1)
        return head.decode()


UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
    "Sec-WebSocket-Version": "13",
}


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True) -> bytes:
    """One frame; the mask is zeros, so the payload stands in it as it is."""
    bit = 0x80 if masked else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack("!BH", bit | 126, len(payload))
    else:
        head += struct.pack("!BQ", bit | 127, len(payload))
    return head + (b"\0\0\0\0" if masked else b"") + payload


@contextmanager
def socket_and_wire() -> Iterator[tuple[TunnelSocket, Wire]]:
    """The cloud's socket, without its server, and the device's end of it."""
    here, there = socket.socketpair()
    headers = {f"HTTP_{key.upper().replace('-', '_')}": value for key, value in UPGRADE.items()}
    made = TunnelSocket({"gunicorn.socket": here, "HTTP_HOST": "test", **headers})
    wire = Wire(there)
    wire.head = wire._head()
    try:
        yield made, wire
    finally:
        made.abort("the test ends")
        here.close()
        there.close()


def reading(tunnel: TunnelSocket) -> list[str]:
    """Read in a thread, as a handler does; the texts that arrive."""
    texts: list[str] = []

    def run() -> None:
        try:
            for text in tunnel.messages():
                texts.append(text)
        except Closed:
            return

    threading.Thread(target=run, daemon=True).start()
    return texts
