"""This process as a gateway: the devices whose sockets it holds, and the commands that come for them."""

import random
import threading
import time
from contextlib import suppress
from functools import cache
from uuid import UUID, uuid4

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import SQLAlchemyError

from app import jobs, journal
from app.batch import Batcher
from app.processes import Heartbeat
from app.tunnel import protocol, queries, v1
from app.tunnel.admission import AWAY, Admission
from app.tunnel.answers import Answers, Origin
from app.tunnel.calls import Calls
from app.tunnel.connection import Connection, Deliver
from app.tunnel.exchange import Exchange
from app.tunnel.link import Link, Message
from app.tunnel.protocol import Answer, Close
from app.tunnel.queries import Admitted, Departure, Heard
from app.tunnel.relay import Relay
from app.tunnel.socket import CLOSE_SECONDS, Closed, TunnelSocket
from config.settings import settings

log = structlog.get_logger("tunnel")

TUNNELS = Gauge("edgeflow_tunnels", "Devices connected", multiprocess_mode="livesum")
COMMANDS = Counter("edgeflow_commands_total", "Commands sent to devices", ["action", "outcome"])

FLUSH_SECONDS = 5.0
PING_SECONDS = 25.0
BYE_SPREAD_MS = 3_000
FROZEN_SECONDS = 5.0
OUR_CODES = frozenset(
    {"DEVICE_OFFLINE", "DEVICE_DISCONNECTED", "DEVICE_TIMEOUT", "NOT_SUPPORTED_BY_DEVICE", "BAD_DEVICE_RESPONSE"}
)


class Hub:
    """The gateway of this process. ``id`` names it in ``connections.gateway`` and on Redis."""

    def __init__(self) -> None:
        self.process_id = uuid4()
        self.id = str(self.process_id)
        self.draining = False
        self._connections: dict[UUID, Connection] = {}
        self._replaced: set[Connection] = set()
        """Told to close and no longer in ``_connections``: a link that is half open never answers that."""
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._heartbeat = Heartbeat("web", self.process_id)
        self._heartbeat.start()
        self.calls = Calls(self)
        self.streams = Exchange(self)
        self.link = Link(self.id, self._receive, self.streams.cut)
        self._departures: Batcher[Departure] = Batcher(
            "gone", queries.gone, seconds=0.05, most=500, key=lambda one: one[0], passing=AWAY
        )
        self.admission = Admission(self.id, self._departures)
        self._answers = Answers()
        self._turns: dict[UUID, int] = {}
        """By device, and kept when it leaves: it may be back before what was sent to it meanwhile."""
        self._ticked_at = time.monotonic()
        self._stale_until = self._woke_at = 0.0
        threading.Thread(target=self._tick, name="tunnel-ticks", daemon=True).start()
        threading.Thread(target=self._flush_all, name="tunnel-flush", daemon=True).start()

    # Devices come and go.

    def join(self, connection: Connection, admitted: Admitted) -> None:
        """Take over a device: older connections of it, here or elsewhere, are closed."""
        with self._lock:
            current = self._connections.get(connection.device_id)
            newest = current is None or current.epoch < connection.epoch
            if newest:
                self._connections[connection.device_id] = connection
            older = current if newest else connection
            if older:
                self._replaced.add(older)
        TUNNELS.set(len(self._connections))
        if older:
            self._replace(older)
        if admitted.replaced_gateway and admitted.replaced_gateway != self.id:
            self.link.post(
                admitted.replaced_gateway, {"t": "kick", "device": connection.device_id, "epoch": connection.epoch}
            )
        if self.draining:
            self._goodbye(connection)
        if admitted.has_work:
            jobs.send("rollouts.device_connected", str(admitted.org_id), str(admitted.device_id))
        log.info("device connected", device_id=str(connection.device_id), org_id=str(connection.org_id),
                 epoch=connection.epoch, protocol=connection.protocol)  # fmt: skip

    def leave(self, connection: Connection, reason: str) -> None:
        """The socket is gone: answer who waits, and record it under this connection's epoch."""
        with self._lock:
            if self._connections.get(connection.device_id) is connection:
                del self._connections[connection.device_id]
            self._replaced.discard(connection)
        TUNNELS.set(len(self._connections))
        connection.lost()
        self._departures.add((connection.device_id, connection.epoch, reason))
        log.info("device disconnected", device_id=str(connection.device_id), org_id=str(connection.org_id),
                 epoch=connection.epoch, reason=reason)  # fmt: skip

    def drain(self) -> None:
        """Before this process ends: tell v2 devices to come back elsewhere in a moment, and close all in order."""
        self.draining = True
        self.streams.close()
        for connection in self._all():
            self._goodbye(connection)
        deadline = time.monotonic() + CLOSE_SECONDS
        while self._sockets() and time.monotonic() < deadline:
            time.sleep(0.05)
        for connection in self._sockets():
            connection.socket.abort("the gateway restarts")
        time.sleep(0.1)
        self._departures.drain(2)
        self._answers.drain(2)
        self._heartbeat.stop()

    def _goodbye(self, connection: Connection) -> None:
        with suppress(Closed):  # it is leaving already
            if connection.protocol == 2:
                connection.socket.post(protocol.encode(protocol.bye(random.randint(0, BYE_SPREAD_MS))))  # noqa: S311
            connection.socket.hang_up(Close.RESTART, "the gateway restarts")

    # Commands.

    def deliver(self, device_id: UUID, command: Message, deliver: Deliver) -> None:
        """Send a command to a device of this process; ``deliver`` gets its answer, whatever happens."""
        connection = self._connections.get(device_id)
        if connection is None:
            deliver(protocol.offline())
            return
        command_id, action, payload, timeout = (command[key] for key in ("id", "action", "payload", "timeout"))

        started = time.monotonic()

        def count(given: Answer) -> None:
            answer = v1.understood(given) if connection.protocol == 1 else given
            self._observe(connection, command, answer, time.monotonic() - started)
            deliver(answer)

        if v1.adapted(connection, action):
            v1.carry_out(connection, command_id, action, payload, timeout, count)
        elif action in protocol.CAPABILITIES and action not in connection.capabilities:
            count(protocol.unsupported(f"the device's agent does not offer {action}"))
        else:
            connection.ask(command_id, action, payload, timeout, count, request_id=command["rid"])

    def _observe(self, connection: Connection, command: Message, answer: Answer, seconds: float) -> None:
        outcome = (answer.code or "ok")[:100]
        # Devices choose their own codes; as a label each would be a series of its own for ever.
        _counter(command["action"], outcome if outcome in OUR_CODES or answer.ok else "DEVICE_ERROR").inc()
        # A caller of this process tells it in the line of his own request.
        tell = log.debug if command.get("from") == self.id else log.info
        tell("command", action=command["action"], outcome=outcome, ms=round(seconds * 1000),
             device_id=connection.device_id, command_id=command["id"], request_id=command["rid"])  # fmt: skip
        if command["t"] == "command":  # those of many devices are a rollout's, whose executions tell it
            journal.later(_told(connection, command, outcome, round(seconds * 1000)))

    def _receive(self, message: Message) -> None:
        """A message on this process's channel."""
        _MESSAGES[message["t"]](self, message)

    def _command(self, message: Message) -> None:
        caller = message["from"]

        def answer(answer: Answer) -> None:
            self.link.post(caller, {"t": "answer", "id": message["id"], "answer": answer.__dict__})

        self.deliver(UUID(message["device"]), message, answer)

    def _commands(self, message: Message) -> None:
        """Many devices, one action: what they share stands once in the message."""
        if self._stale():
            log.warning(
                "commands dropped: this process was stopped; they are sent again", commands=len(message["items"])
            )
            return
        origin = Origin(message["job"], UUID(message["org"]), message["rid"])
        for item in message["items"]:
            if self._overtaken(UUID(item["device"]), item["turn"]):
                log.warning("command dropped: a later one of the device came first", command_id=item["id"])
                continue
            command = {**message, "id": item["id"], "payload": {**message["common"], **item["payload"]}}
            self.deliver(UUID(item["device"]), command, self._answers.deliver_to(origin, item["id"]))

    def _overtaken(self, device_id: UUID, turn: int) -> bool:
        """Whether a later command of the device has come already: then this one's sender was stopped before it sent."""
        latest = self._turns[device_id] = max(turn, self._turns.get(device_id, 0))
        return turn < latest

    def _stale(self) -> bool:
        """Whether this process was stopped for a while: what lay in its socket meanwhile may have been overtaken."""
        moment = time.monotonic()
        return moment < self._stale_until or moment - self._ticked_at > FROZEN_SECONDS

    def outdated(self, socket: TunnelSocket) -> bool:
        """Whether this process was stopped since a socket was opened: its device may have gone to another meanwhile,
        and what it had said here must not take it away from there."""
        return socket.opened_at <= self._woke_at or time.monotonic() - self._ticked_at > FROZEN_SECONDS

    def _answer(self, message: Message) -> None:
        self.calls.answered(message["id"], Answer(**message["answer"]))

    def _kick(self, message: Message) -> None:
        connection = self._connections.get(UUID(message["device"]))
        if connection and connection.epoch < message["epoch"]:
            self._replace(connection)

    def _close(self, message: Message) -> None:
        connection = self._connections.get(UUID(message["device"]))
        if connection:
            connection.socket.hang_up(message["code"], message["reason"])

    def _shadow(self, message: Message) -> None:
        connection = self._connections.get(UUID(message["device"]))
        if connection is None:
            return
        try:
            if connection.protocol >= 2:
                connection.push_shadow(message["version"], message["desired"], message["delta"])
            else:
                payload = {"desired": message["desired"]}
                connection.ask(str(uuid4()), "update_desired", payload, 30, lambda _answer: None)
        except Closed:
            log.info("shadow not pushed: the device is leaving", device_id=message["device"])

    def _replace(self, connection: Connection) -> None:
        connection.socket.hang_up(Close.REPLACED, "replaced by a newer connection")

    # Streams.

    def relay(self, device_id: UUID) -> Relay | None:
        """The streams of a device of this process; None of one that is not here."""
        connection = self._connections.get(device_id)
        return connection.relay if connection else None

    def relays(self) -> list[Relay]:
        return [connection.relay for connection in self._sockets()]

    # Time.

    def _tick(self) -> None:
        pinged = time.monotonic()
        while not self._stopped.wait(0.1):
            moment = time.monotonic()
            if moment - self._ticked_at > FROZEN_SECONDS:
                self._stale_until, self._woke_at = moment + 1, moment
            self._ticked_at = moment
            ping = moment - pinged >= min(PING_SECONDS, settings().offline_after / 3)
            pinged = moment if ping else pinged
            for connection in self._sockets():
                try:
                    self._care_for(connection, moment, ping=ping)
                except Exception:  # one connection's trouble must not end the care for all
                    log.exception("tick failed", device_id=str(connection.device_id))

    def _care_for(self, connection: Connection, moment: float, *, ping: bool) -> None:
        socket = connection.socket
        if connection.in_flight:
            connection.expire(moment)
        if connection.poll:
            connection.poll.tick(moment)
        if moment - socket.heard_at > settings().offline_after:
            socket.abort("silent")
        elif socket.closing_at is not None and moment - socket.closing_at > CLOSE_SECONDS:
            socket.abort("no answer to close")
        elif ping:
            try:
                socket.ping()
            except Closed:
                return

    def _flush_all(self) -> None:
        seconds = min(FLUSH_SECONDS, settings().offline_after / 5)
        while not self._stopped.wait(seconds * random.uniform(0.8, 1.2)):  # noqa: S311
            try:
                self._flush()
            except SQLAlchemyError as error:
                log.warning("presence not written", error=str(error).splitlines()[0])
            except Exception:
                log.exception("presence not written")

    def _flush(self) -> None:
        moment, held = time.monotonic(), self._all()
        for start in range(0, len(held), 1_000):
            part = held[start : start + 1_000]
            mine = queries.heard([_heard(connection, moment) for connection in part])
            for connection in part:
                if self._connections.get(connection.device_id) is not connection:
                    # It left while this was being written, which has brought it back.
                    self._departures.add((connection.device_id, connection.epoch, "closed"))
                elif connection.device_id not in mine:
                    self._replace(connection)

    def _all(self) -> list[Connection]:
        return list(self._connections.values())

    def _sockets(self) -> list[Connection]:
        return [*self._connections.values(), *self._replaced]


def _told(connection: Connection, command: Message, outcome: str, ms: int) -> journal.Note:
    action = command["action"]
    about = {"action": action, "outcome": outcome, "ms": ms, "command_id": command["id"], "request_id": command["rid"]}
    words, level = (f"{action} done", "info") if outcome == "ok" else (f"{action} failed: {outcome}", "warning")
    return journal.Note(connection.org_id, "command", words, level, connection.device_id, about)


@cache
def _counter(action: str, outcome: str) -> Counter:
    return COMMANDS.labels(action, outcome)


def _heard(connection: Connection, moment: float) -> Heard:
    socket = connection.socket
    return Heard(
        connection.device_id, connection.epoch, moment - socket.heard_at, connection.in_flight,
        socket.bytes_in, socket.bytes_out, socket.rtt_ms,
    )  # fmt: skip


_MESSAGES = {
    "command": Hub._command,
    "commands": Hub._commands,
    "answer": Hub._answer,
    "kick": Hub._kick,
    "close": Hub._close,
    "shadow": Hub._shadow,
    "stream": lambda hub, message: hub.streams.arrived(message),
    "stream_back": lambda hub, message: hub.streams.returned(message),
}


@cache
def hub() -> Hub:
    """The gateway of this process, started at first use (after the web server has forked)."""
    return Hub()
