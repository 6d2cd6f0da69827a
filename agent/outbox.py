"""What leaves by the tunnel. Answers go through an ill link if one is simulated, over the next connection if there is
none now; streams' chunks in turns, and always behind everything else."""

import asyncio
import contextlib
import random
import socket as sockets
from collections import deque

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent.faults import ON_TIME, LinkFaults, fate_of

MAX_UNSENT = 100
MAX_IN_KERNEL = 64 * 1024
"""Bytes that the system may hold for the tunnel without having sent them."""


class ChunkLane:
    """The streams' way onto a socket: one chunk at a time, in the order in which streams asked for their turn.

    All else (answers, heartbeats, telemetry) is written at once, so ahead of it are never more than one chunk, the
    library's write limit (32 KiB) and what the system holds, however many streams are busy.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self._socket, self._turn = socket, asyncio.Lock()
        own = socket.transport.get_extra_info("socket")
        if own is not None and hasattr(sockets, "TCP_NOTSENT_LOWAT"):
            with contextlib.suppress(OSError):  # a help, no condition
                own.setsockopt(sockets.IPPROTO_TCP, sockets.TCP_NOTSENT_LOWAT, MAX_IN_KERNEL)

    async def send(self, frame: str) -> None:
        """Send when it is this stream's turn; raises ConnectionClosed."""
        async with self._turn:  # its waiters are served first come, first served: each stream waits with one chunk
            await self._socket.send(frame)
            # A link that takes everything would otherwise never let a command be read.
            await asyncio.sleep(0)


class Outbox:
    """Sends answers over the present socket; keeps the newest ones while there is none."""

    def __init__(self, faults: LinkFaults | None, rng: random.Random) -> None:
        self.faults, self._rng = faults, rng
        self._socket: ClientConnection | None = None
        self._unsent: deque[str] = deque(maxlen=MAX_UNSENT)
        self._later: set[asyncio.Task[None]] = set()

    async def use(self, socket: ClientConnection) -> None:
        """Send over `socket` from now on, first what has been waiting."""
        self._socket = socket
        waiting = list(self._unsent)
        self._unsent.clear()
        for answer in waiting:
            await self._send(answer)

    def leave(self, socket: ClientConnection) -> None:
        """The socket is gone."""
        if self._socket is socket:
            self._socket = None

    async def put(self, answer: str) -> None:
        """Send an answer, or do to it what the faults say."""
        fate = fate_of(self.faults, self._rng) if self.faults else ON_TIME
        if fate.drop and self._socket:
            self._socket.transport.abort()
        for delay in fate.sends:
            if delay > 0:
                self._send_later(answer, delay)
            else:
                await self._send(answer)

    def close(self) -> None:
        """Give up what was to leave later."""
        for task in self._later:
            task.cancel()

    def _send_later(self, answer: str, delay: float) -> None:
        async def wait_and_send() -> None:
            await asyncio.sleep(delay)
            await self._send(answer)

        task = asyncio.create_task(wait_and_send())
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def _send(self, answer: str) -> None:
        try:
            if self._socket is None:
                self._unsent.append(answer)
            else:
                await self._socket.send(answer)
        except ConnectionClosed:
            self._unsent.append(answer)
