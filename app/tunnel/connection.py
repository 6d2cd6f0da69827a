"""One device's connection: its socket, the commands in flight on it, and the rule of one changing command at a time."""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog

from app.tunnel import protocol
from app.tunnel.polling import Poll
from app.tunnel.protocol import CHANGING, Answer, Connect, Frame
from app.tunnel.relay import Relay
from app.tunnel.socket import Closed, TunnelSocket

log = structlog.get_logger("tunnel")

WAITING_COMMANDS = 64
HOLD_SECONDS = 60.0

Deliver = Callable[[Answer], None]


@dataclass(eq=False)
class Pending:
    """A command on its way. ``deliver`` is called once with its answer; None afterwards (a late one is dropped)."""

    id: str
    action: str
    payload: dict[str, Any] = field(repr=False)
    deadline: float
    deliver: Deliver | None
    request_id: str | None = None
    sent: bool = False

    @property
    def changing(self) -> bool:
        return self.action in CHANGING

    def settle(self, answer: Answer) -> None:
        """Answer who waits. What goes wrong there is theirs: it must not end the device's connection."""
        deliver, self.deliver = self.deliver, None
        if deliver:
            try:
                deliver(answer)
            except Exception:
                log.exception("answer not delivered", command_id=self.id, action=self.action)


@dataclass
class Unstored:
    """What a device has sent of telemetry that is not stored yet."""

    frames: int = 0
    bytes: int = 0


class Connection:
    """A connected device. All that touches ``pending`` holds the lock; answers are delivered outside it."""

    def __init__(self, socket: TunnelSocket, connect: Connect, org_id: UUID, epoch: int) -> None:
        self.socket, self.org_id, self.epoch = socket, org_id, epoch
        self.device_id, self.protocol = connect.device_id, connect.protocol
        self.capabilities = frozenset(connect.capabilities)
        self.unsettled = connect.protocol == 1
        """v1: a command of an earlier connection may still be running on the device; ask before starting anything."""
        self.sequence = threading.Lock()
        """Held by the v1 adapter while it sends several commands that belong together."""
        self.adapting: set[str] = set()
        self.strange = 0
        self.unstored = Unstored()
        self.relay = Relay(socket)
        self.poll: Poll | None = None
        """Set for a device that sends no telemetry of its own."""
        self._lock = threading.Lock()
        self._pending: dict[str, Pending] = {}
        self._waiting: deque[Pending] = deque()
        self._changing: Pending | None = None
        self._shadow: Frame | None = None
        self._gone = False

    @property
    def in_flight(self) -> int:
        return len(self._pending) + len(self._waiting)

    def ask(
        self,
        command_id: str,
        action: str,
        payload: dict[str, Any],
        timeout: float,
        deliver: Deliver,
        *,
        request_id: str | None = None,
    ) -> None:
        """Send a command, or queue it behind the changing one in flight.

        An id that is here already is not asked twice: an agent that remembers ids is told it again, because its answer
        may have been lost; nobody else is.
        """
        asked = Pending(command_id, action, payload, time.monotonic() + timeout, deliver, request_id)
        with self._lock:
            refused, send = self._place(asked)
        if refused:
            asked.settle(refused)
        elif send:
            self._send(send)

    def _place(self, asked: Pending) -> tuple[Answer | None, Pending | None]:
        """Where a new command goes (the lock is held): why it cannot be, or what is to be sent now."""
        if self._gone:
            return protocol.disconnected(sent=False), None
        known = self._pending.get(asked.id)
        if known:
            if known.deliver is None:  # it was given up; who asks now gets the late answer
                known.deliver, known.deadline = asked.deliver, asked.deadline
            return None, known if "dedup" in self.capabilities else None
        if any(one.id == asked.id for one in self._waiting):
            return None, None
        if len(self._waiting) >= WAITING_COMMANDS:
            return protocol.busy(), None
        if asked.changing and self._changing:
            self._waiting.append(asked)
            return None, None
        self._admit(asked)
        return None, asked

    def answered(self, frame: Frame) -> bool:
        """Hand a response to whoever waits for it; False when nobody does (late, repeated, or of another device)."""
        with self._lock:
            asked = self._pending.pop(str(frame.get("id")), None)
            following = self._release(asked)
        if asked is None:
            return False
        late = asked.deliver is None
        asked.settle(protocol.parse_response(frame))
        self._follow(following)
        return not late

    def expire(self, moment: float) -> None:
        """Answer what is overdue. A changing command that went out keeps its place for a while: it may still run."""
        with self._lock:
            overdue = [one for one in self._waiting if one.deadline <= moment]
            self._waiting = deque(one for one in self._waiting if one.deadline > moment)
            late = [one for one in self._pending.values() if one.deadline <= moment and one.deliver]
            forgotten = [one for one in self._pending.values() if one.deadline + HOLD_SECONDS <= moment]
            forgotten += [one for one in late if not one.changing]
            following = []
            for one in forgotten:
                self._pending.pop(one.id, None)
                following.append(self._release(one))
        for one in [*overdue, *late]:
            self.unsettled = self.unsettled or (self.protocol == 1 and one.sent and one.changing)
            one.settle(protocol.timed_out(sent=one.sent))
        for next_one in following:
            self._follow(next_one)

    def lost(self) -> None:
        """The socket is gone: whoever waits learns it at once, and whether his command had been sent."""
        with self._lock:
            self._gone = True  # the v1 adapter may be between two commands: nobody would answer the next one
            orphans = [*self._pending.values(), *self._waiting]
            self._pending.clear()
            self._waiting.clear()
            self._changing = None
        for one in orphans:
            one.settle(protocol.disconnected(sent=one.sent))
        self.relay.lost()

    def push_shadow(self, version: int, desired: dict[str, Any], delta: dict[str, Any]) -> None:
        """Tell a v2 device its newest shadow: one that still waits in the outbox is replaced, not followed."""
        with self._lock:
            queued, self._shadow = self._shadow, protocol.shadow(version, desired, delta)
            if queued and queued["version"] > version:
                self._shadow = queued
        if queued is None:
            self.socket.post_later(self._take_shadow)

    def _take_shadow(self) -> str:
        with self._lock:
            frame, self._shadow = self._shadow, None
        return protocol.encode(frame or protocol.pong())

    def _admit(self, asked: Pending) -> None:
        self._pending[asked.id] = asked
        if asked.changing:
            self._changing = asked

    def _release(self, done: Pending | None) -> Pending | None:
        """The changing command that may go next, now that ``done`` has left (the lock is held)."""
        if done is None or done is not self._changing:
            return None
        self._changing = self._waiting.popleft() if self._waiting else None
        if self._changing:
            self._pending[self._changing.id] = self._changing
        return self._changing

    def _follow(self, asked: Pending | None) -> None:
        if asked:
            self._send(asked)

    def _send(self, asked: Pending) -> None:
        if asked.deliver is None:
            return  # answered meanwhile: the connection was lost, and that said so
        asked.sent = True
        try:
            request_id = asked.request_id if self.protocol >= 2 else None
            self.socket.post(protocol.encode(protocol.command(asked.id, asked.action, asked.payload, request_id)))
        except Closed:
            with self._lock:
                self._pending.pop(asked.id, None)
                following = self._release(asked)
            asked.settle(protocol.disconnected(sent=True))
            self._follow(following)
