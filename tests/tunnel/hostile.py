"""A program that treats a gateway badly: ``python -m tests.tunnel.hostile URL SECONDS DEVICE:KEY…``.

One thread for each kind of malice; it prints how often each was carried out.
"""

import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.tunnel.wire import BINARY, CONTINUATION, PING, PONG, TEXT, Wire, frame

Credentials = tuple[str, str]
done: Counter[str] = Counter()


def connected(url: str, who: Credentials, **options: int) -> Wire:
    wire = Wire.dial(url, **options)  # type: ignore[arg-type]
    wire.hello(*who)
    return wire


def malformed(url: str, who: Credentials, until: float) -> None:
    """Frames that break the protocol, each on a connection of its own or in a row."""
    chance = random.Random(7)
    deep = b"[" * 300 + b"]" * 300
    broken = [
        frame(TEXT, b"{"), frame(TEXT, b"[" * 4000), frame(TEXT, b"\xff\xfe"), frame(BINARY, b"\0" * 100),
        frame(TEXT, b"{}", rsv=4), frame(TEXT, b"{}", masked=False), frame(CONTINUATION, b"x"), frame(11),
        frame(TEXT, b'{"type": 7}'), frame(PING, b"x" * 126), frame(TEXT, b"null"), os.urandom(200),
        frame(TEXT, b'{"type": "response", "id": {"a": []}, "status": "success", "data": ' + deep + b"}"),
    ]  # fmt: skip
    while time.monotonic() < until:
        wire = connected(url, who) if chance.random() < 0.5 else Wire.dial(url)
        for _ in range(20):
            wire.sock.sendall(chance.choice(broken))
            done["malformed"] += 1
        wire.code()
        wire.close()


def flood(kind: str, piece: bytes, *, reads: bool = False, first: bytes = b"") -> Callable[..., None]:
    """Send the same thing as fast as it is taken."""

    def run(url: str, who: Credentials, until: float) -> None:
        while time.monotonic() < until:
            wire = connected(url, who, receive_buffer=8192)
            wire.sock.settimeout(0.2)
            wire.sock.sendall(first)
            block = piece * (8192 // len(piece) + 1)
            while time.monotonic() < until:
                try:
                    wire.sock.sendall(block)
                    done[kind] += 1
                    if reads:
                        wire.sock.recv(65536)
                except TimeoutError:
                    continue
            wire.close()

    return run


def silent(url: str, _who: Credentials, until: float) -> None:
    """Sockets that never say anything, and upgrades that never end."""
    wires = []
    while time.monotonic() < until and len(wires) < 200:
        wires.append(Wire.dial(url))
        done["silent"] += 1
        time.sleep(0.01)
    time.sleep(max(0, until - time.monotonic()))
    for wire in wires:
        wire.close()


def unknown(url: str, _who: Credentials, until: float) -> None:
    """Pings, and large first frames, before authentication."""
    while time.monotonic() < until:
        wire = Wire.dial(url)
        wire.sock.sendall(frame(PING) * 2000 + frame(TEXT, b"x" * 100_000))
        wire.code()
        wire.close()
        done["unknown"] += 1


KINDS: list[Callable[..., None]] = [
    malformed,
    malformed,
    flood("pings", frame(PING)),
    flood("pings read", frame(PING, b"x" * 100), reads=True),
    flood("pongs", frame(PONG, b"nan")),
    flood("hearts unread", frame(TEXT, b'{"type": "ping"}')),
    flood("fragments", frame(CONTINUATION, b"", fin=False), first=frame(TEXT, b"", fin=False)),
    flood("large", frame(TEXT, b'{"type": "x", "y": "' + b"y" * 900_000 + b'"}'), reads=False),
    flood("strange", frame(TEXT, b'{"type": "levitate"}')),
    silent,
    unknown,
]


def persist(kind: Callable[..., None], url: str, who: Credentials, until: float) -> None:
    while time.monotonic() < until:
        try:
            kind(url, who, until)
        except (OSError, EOFError, AssertionError):
            done["cut off"] += 1


def main(url: str, seconds: str, *devices: str) -> None:
    until = time.monotonic() + float(seconds)
    credentials = [tuple(device.split("=")) for device in devices]
    threads = [
        threading.Thread(target=persist, args=(kind, url, who, until), daemon=True)
        for kind, who in zip(KINDS, credentials, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(float(seconds) + 5)
    print(dict(done))


if __name__ == "__main__":
    main(*sys.argv[1:])
