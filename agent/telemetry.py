"""Telemetry of one device: gathered at an interval, kept until the cloud has it, sent again when it has not.

A batch is `{"type": "telemetry", "id", "metrics": [[name, unix_ms, value, tags?]…], "logs": [[unix_ms, level, message,
fields?]…]}` and is answered by `{"type": "ack", "id"}`. It keeps its id however often it is sent, and the cloud stores
each id once; it remembers a device's newest ids only, so what is sent ahead of an unacknowledged batch is bounded.
"""

import asyncio
import contextlib
import logging
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from agent.backlog import Backlog, Entry, Framed
from agent.drivers.base import Driver
from agent.journal import Journal, Line, line, unix_ms
from agent.protocol import encode

log = logging.getLogger("agent.telemetry")

CAPABILITY = "telemetry"
MAX_FRAME = 512 * 1024
WINDOW = 8
AHEAD = 16
"""How far, in batches, the newest on the wire may be ahead of the oldest unacknowledged one."""
ACK_SECONDS = 15.0
MAX_ACK_SECONDS = 120.0
TELL_SECONDS = 60.0


@dataclass
class Flight:
    """A batch on the wire; `due`: when it is sent again (event loop time)."""

    due: float
    sends: int = 1


class Telemetry:
    """`start`, then `connected` and `disconnected` as connections come and go, `acknowledged` per ack, `stop`.

    `interval()` in seconds is asked anew each time; 0: nothing is gathered, and what waits is still sent.
    """

    def __init__(
        self,
        driver: Driver,
        backlog: Backlog,
        interval: Callable[[], float],
        rng: random.Random,
        name: str = "",
        ack_seconds: float = ACK_SECONDS,
    ) -> None:
        self.backlog, self.journal = backlog, Journal(self._hurry)
        self._driver, self._interval, self._rng, self._name = driver, interval, rng, name
        self._ack_seconds = ack_seconds
        # Until a cloud has said no, what is seen before the first connection is worth keeping.
        self._wanted, self._ill = True, False
        self._wake, self._news = asyncio.Event(), asyncio.Event()
        self._flying: dict[str, Flight] = {}
        self._gatherer: asyncio.Task[None] | None = None
        self._pump: asyncio.Task[None] | None = None
        self._socket: ClientConnection | None = None
        self._started = False
        self._told_at = -TELL_SECONDS
        driver.listen(self.journal.note)

    def start(self) -> None:
        """Begin to gather, if there is an interval: ten thousand idle devices need no task for it."""
        self._started = True
        if self._gatherer is None and self._interval() > 0:
            self._gatherer = asyncio.create_task(self._gather_forever(), name=f"telemetry {self._name}")

    async def stop(self) -> None:
        """Keep what has been gathered for the next start, where there is a disk."""
        self._started = False
        await _end(self._gatherer)
        await self.disconnected()
        if self._active:
            self._put([], self.journal.take())
        self.backlog.close()

    def changed(self) -> None:
        """The interval may be another one now."""
        self._wake.set()
        if self._started:
            self.start()

    def connected(self, socket: ClientConnection, accepted: bool) -> None:
        """A connection is there; `accepted`: its cloud takes telemetry."""
        self._wanted = accepted
        self._wake.set()
        if accepted:
            self._socket = socket
            self._begin_to_send()

    async def disconnected(self) -> None:
        """It is gone: what was on the wire is sent again over the next one."""
        self._socket, pump, self._pump = None, self._pump, None
        await _end(pump)
        self._flying.clear()
        if self.backlog:
            await self.backlog.sync()

    def acknowledged(self, batch_id: Any) -> None:
        """The cloud has stored a batch."""
        if not isinstance(batch_id, str) or not self.backlog.done(batch_id):
            return
        self._flying.pop(batch_id, None)
        self._news.set()
        self._tell_loss()

    @property
    def _active(self) -> bool:
        return self._wanted and self._interval() > 0

    # Gathering

    def _hurry(self) -> None:
        self._wake.set()

    async def _gather_forever(self) -> None:
        # A random beginning, so that a fleet's batches do not come at once.
        wait = self._rng.uniform(0, self._interval())
        loop = asyncio.get_running_loop()
        due = loop.time() + wait
        while True:
            self.journal.wanted = self._active
            await _wait(self._wake, max(0.0, due - loop.time()) if self._active else None)
            self._wake.clear()
            if not self._active:
                self.journal.take()
            elif loop.time() >= due:
                due = max(due + self._interval(), loop.time())
                await self._gather(measure=True)
            else:
                due = min(due, loop.time() + self._interval())
                await self._gather(measure=False)

    async def _gather(self, measure: bool) -> None:
        points = await self._measured() if measure else []
        lines = self.journal.take()
        try:
            self._put(points, lines)
        except ValueError as error:
            log.error("%s: figures that JSON cannot say are left out: %s", self._name, error)
            self._put([], lines)
        if self._socket is None and (points or lines):
            await self.backlog.sync()

    async def _measured(self) -> list[Any]:
        try:
            points = await self._driver.measure(unix_ms())
        except Exception as error:  # a sensor that fails must not end the telemetry of all others
            if not self._ill:
                log.exception("%s: the figures cannot be read", self._name)
                self.journal.note("error", f"the figures cannot be read: {type(error).__name__}: {error}")
            self._ill = True
            return []
        self._ill = False
        return list(points)

    def _put(self, points: list[Any], lines: list[Line]) -> None:
        for batch in batches(points, lines):
            self.backlog.put(batch)
        self._begin_to_send()

    def _tell_loss(self) -> None:
        """Once acknowledgements come again: what the bound has cost meanwhile, in one line."""
        lost, time = self.backlog.lost, asyncio.get_running_loop().time()
        if not lost or time - self._told_at < TELL_SECONDS:
            return
        self._told_at = time
        text = f"the telemetry buffer was full: the oldest {lost.points} points and {lost.lines} log lines were dropped"
        log.warning("%s: %s", self._name, text)
        fields = {"batches": lost.batches, "points": lost.points, "lines": lost.lines}
        self._put([], [line("warning", text, fields)])
        self.backlog.told()

    # Sending

    def _begin_to_send(self) -> None:
        self._news.set()
        if self._socket and self._pump is None and self.backlog:
            self._pump = asyncio.create_task(self._send_forever(self._socket), name=f"telemetry of {self._name}")

    async def _send_forever(self, socket: ClientConnection) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionClosed):  # the device sees to the next connection
            while True:
                self._news.clear()
                self._flying = {id_: flight for id_, flight in self._flying.items() if id_ in self.backlog}
                while entry := self._next(loop.time()):
                    text = self.backlog.text(entry)
                    if text is not None:
                        self._depart(entry, loop.time())
                        await socket.send(text)
                earliest = min((flight.due for flight in self._flying.values()), default=None)
                await _wait(self._news, None if earliest is None else max(0.0, earliest - loop.time()))

    def _next(self, time: float) -> Entry | None:
        """What is to be sent now, oldest first: overdue, or new and within the window."""
        first = None
        for entry in self.backlog.oldest(AHEAD):
            first = entry.number if first is None else first
            flight = self._flying.get(entry.id)
            if flight is None:
                return entry if len(self._flying) < WINDOW and entry.number < first + AHEAD else None
            if flight.due <= time:
                return entry
        return None

    def _depart(self, entry: Entry, time: float) -> None:
        sends = self._flying[entry.id].sends + 1 if entry.id in self._flying else 1
        # Each time more patient: a cloud that is slow to store is not helped by more of the same.
        patience = min(MAX_ACK_SECONDS, self._ack_seconds * 2 ** (sends - 1))
        self._flying[entry.id] = Flight(time + patience, sends)


def batches(points: list[Any], lines: list[Line]) -> Iterator[Framed]:
    """Points and lines as frames of at most MAX_FRAME bytes, each with an id of its own."""
    batch_id = str(uuid.uuid4())
    text = encode({"type": "telemetry", "id": batch_id, "metrics": points, "logs": lines})
    if 4 * len(text) <= MAX_FRAME or len(text.encode()) <= MAX_FRAME:
        if points or lines:
            yield Framed(batch_id, text, len(points), len(lines))
    elif points and lines:
        yield from batches(points, [])
        yield from batches([], lines)
    elif len(points) + len(lines) > 1:
        half, other = len(points) // 2, len(lines) // 2
        yield from batches(points[:half], lines[:other])
        yield from batches(points[half:], lines[other:])
    else:
        log.error("a point or line of %d characters is too large to be sent", len(text))


async def _wait(event: asyncio.Event, seconds: float | None) -> None:
    with contextlib.suppress(TimeoutError):  # the wait's ordinary end
        await asyncio.wait_for(event.wait(), seconds)


async def _end(task: asyncio.Task[None] | None) -> None:
    if task:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
