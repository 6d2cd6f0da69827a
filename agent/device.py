"""One device: its connection to the tunnel, for ever, and the commands that come through it."""

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException

from agent import commands, protocol
from agent.answers import Answers
from agent.backlog import Backlog
from agent.credentials import Credentials
from agent.drivers.base import Driver
from agent.editing import Editing
from agent.executor import Executor
from agent.faults import LinkFaults
from agent.heartbeat import Heartbeat
from agent.hosts import Hosts
from agent.outbox import Outbox
from agent.protocol import CommandError, Frame
from agent.proxy import FRAMES as PROXY_FRAMES
from agent.proxy_local import HEAD_SECONDS
from agent.report import Rounds
from agent.rest import Rest, is_local, retry_after
from agent.settings import Settings
from agent.shadow import ShadowSync
from agent.telemetry import CAPABILITY, Telemetry
from agent.waiting import Ended, Waits, next_wait

log = logging.getLogger("agent.device")


@dataclass(frozen=True)
class Options:
    """How a device behaves on the link; seconds. `telemetry_interval` 0: none, unless the cloud sets another.

    `report_interval`: between looks at what runs, which is reported when it has changed, if there is a shadow at all.
    `editor_timeout`: until the editor begins to answer a request.
    """

    open_timeout: float = 15.0
    connected_timeout: float = 10.0
    heartbeat: float = 30.0
    telemetry_interval: float = 0.0
    report_interval: float = 15.0
    editor_timeout: float = HEAD_SECONDS
    ack_timeout: float = 15.0
    grace: float = 3.0
    sync_shadow: bool = True
    waits: Waits = field(default_factory=Waits)


class Refused(Exception):
    """The cloud's first frame was not `connected`."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


def tunnel_url(base_url: str) -> str:
    """`http://host` → `ws://host/api/v1/tunnel`, https likewise."""
    parts = urlsplit(base_url)
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    return urlunsplit((scheme, parts.netloc, f"{parts.path.rstrip('/')}/api/v1/tunnel", "", ""))


class Device:
    """Connects, answers commands, reconnects until `stop`.

    `refused` is called when the cloud turns the credentials down; new ones from it are tried at once, but not twice
    in a row. `address` gives the base URL for the next try from the number of failures before it. `allow_hosts`: what
    the setting `local_url` may name beside this machine; without that setting the driver's `editor_url` holds.
    """

    def __init__(
        self,
        credentials: Credentials,
        driver: Driver,
        rest: Rest,
        *,
        name: str = "",
        options: Options | None = None,
        settings: Settings | None = None,
        answers: Answers | None = None,
        backlog: Backlog | None = None,
        faults: LinkFaults | None = None,
        rng: random.Random | None = None,
        refused: Callable[["Device"], Awaitable[Credentials | None]] | None = None,
        address: Callable[[int], str] | None = None,
        allow_hosts: Sequence[str] = (),
    ) -> None:
        self.credentials, self.driver, self.rest = credentials, driver, rest
        self.name = name or credentials.device_id
        self.options = options or Options()
        self.settings = settings or Settings()
        self.answers = answers or Answers()
        if allow_hosts:
            self.settings.hosts = Hosts(allow_hosts)
        self.connections = 0
        self.received: Counter[str] = Counter()
        self.last_end: Ended | None = None
        self._rng = rng or random.Random()
        self._refused, self._may_renew, self._address = refused, refused is not None, address
        self._shadow = ShadowSync(rest, credentials, driver, self.settings, self._rng)
        self._outbox = Outbox(faults, self._rng)
        context = commands.Context(driver, self.settings, self._shadow)
        self._rounds = Rounds(self._shadow.look, self._interval_of_reports, driver, self._rng)
        self._shadow.missed = self._rounds.changed
        self._executor = Executor(context, self.answers, self._outbox.put, self._rounds.changed)
        self.telemetry = Telemetry(
            driver,
            Backlog() if backlog is None else backlog,
            self._interval_of_telemetry,
            self._rng,
            self.name,
            self.options.ack_timeout,
        )
        self._socket: ClientConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._connected, self._stopping = asyncio.Event(), asyncio.Event()
        self._bye: float | None = None
        self._heartbeat = Heartbeat(self.name, self.settings, self.options.heartbeat, self._rng)
        self._editing = Editing(self.name, self.settings, driver, self.options.editor_timeout, self.reconnect)
        for changed in (self._heartbeat.changed, self.telemetry.changed, self._editing.changed):
            self.settings.listen(changed)

    @property
    def connected(self) -> bool:
        """Whether the cloud has said `connected` on the present socket."""
        return self._connected.is_set()

    async def wait_connected(self, seconds: float | None) -> None:
        """Return once connected; raises TimeoutError."""
        await asyncio.wait_for(self._connected.wait(), seconds)

    def start(self) -> None:
        """Begin to connect, in a task of its own."""
        self.telemetry.start()
        self._task = asyncio.create_task(self._run(), name=f"device {self.name}")

    async def stop(self) -> None:
        """Finish what is in execution, for a short while, then close with 1000."""
        self._stopping.set()
        await self._executor.finish(self.options.grace)
        if self._socket:
            await self._socket.close(protocol.NORMAL, "the agent stops")
        if self._task:
            # It may still be dialling, which nobody needs any more; the rest ends after what could begin it anew.
            await asyncio.wait([self._task], timeout=0.1)
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._executor.cancel()
        self._editing.stop()
        await self._shadow.stop()
        await self.telemetry.stop()
        self._outbox.close()

    async def reconnect(self) -> None:
        """Close the present connection and make a new one."""
        if self._socket:
            await self._socket.close(protocol.NORMAL, "reconnecting")

    def cut(self) -> None:
        """Drop the connection as a broken link would: no closing handshake."""
        if self._socket:
            self._socket.transport.abort()

    async def _run(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            if self._address:
                self.rest.base_url = self._address(failures)
            ended = self.last_end = await self._connection()
            if self._stopping.is_set() or (ended.refused and await self._renewed()):
                continue
            failures = 0 if ended.lasted >= self.options.waits.stable_after else failures + 1
            await self._pause(ended, max(0, failures - 1))

    async def _connection(self) -> Ended:
        """One connection from dialling to its end; says how it ended, raises nothing of the network."""
        loop = asyncio.get_running_loop()
        self._bye, since = None, None
        try:
            async with self._dial() as socket:
                hello = await self._introduce(socket)
                since = loop.time()
                await self._serve(socket, hello)
                await socket.close()
            code, reason = socket.close_code, socket.close_reason or ""
            lasted = loop.time() - since
            return Ended(reason or f"closed ({code})", code, lasted, retry_after=self._bye)
        except Refused as error:
            return Ended(str(error), error.code)
        except InvalidStatus as error:
            wait = retry_after(error.response.headers)
            return Ended(f"the upgrade was answered {error.response.status_code}", retry_after=wait)
        except (OSError, WebSocketException) as error:
            return Ended(str(error) or type(error).__name__, lasted=0.0 if since is None else loop.time() - since)

    def _dial(self) -> connect:
        # The heartbeat below watches the link, so a second one of the library's would only cost.
        return connect(
            tunnel_url(self.rest.base_url),
            open_timeout=self.options.open_timeout,
            close_timeout=5,
            max_size=protocol.MAX_FRAME_IN,
            compression=None,
            ping_interval=None,
            proxy=None if is_local(self.rest.base_url) else True,
        )

    async def _introduce(self, socket: ClientConnection) -> Frame:
        offer = (*protocol.CAPABILITIES, protocol.HTTP_PROXY) if self._editing.offer() else protocol.CAPABILITIES
        await socket.send(protocol.connect(self.credentials.device_id, self.credentials.api_key, offer))
        try:
            frame = protocol.decode(await asyncio.wait_for(socket.recv(), self.options.connected_timeout))
        except TimeoutError as error:
            raise Refused("no `connected` in time") from error
        except ConnectionClosed as error:
            raise Refused(str(error), socket.close_code) from error
        except protocol.FrameError as error:
            raise Refused(f"the first frame: {error}") from error
        if frame["type"] == "connected":
            return frame
        with contextlib.suppress(TimeoutError, ConnectionClosed):  # only the close code is of interest
            await asyncio.wait_for(socket.recv(), 2)
        raise Refused(str(frame.get("error") or frame["type"]), socket.close_code)

    async def _serve(self, socket: ClientConnection, hello: Frame) -> None:
        self._socket = socket
        self._editing.connected(socket)
        self.connections += 1
        log.info("%s: connected, session %s", self.name, hello.get("session"))
        wanted = _seconds(hello.get("heartbeat_interval"), self.options.heartbeat)
        beat = asyncio.create_task(self._heartbeat.beat(socket, wanted))
        self._connected.set()
        self._may_renew = self._refused is not None
        try:
            if self.options.sync_shadow:
                self._shadow.connected()
                self._rounds.begin()
            self.telemetry.connected(socket, CAPABILITY in (hello.get("capabilities") or ()))
            await self._outbox.use(socket)
            await self._read(socket)
        finally:
            self._connected.clear()
            self._rounds.end()
            self._outbox.leave(socket)
            self._socket = None
            beat.cancel()
            await self._editing.disconnected()
            await self.telemetry.disconnected()

    async def _read(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):  # how it closed is read from the socket
            while self._bye is None and not self._stopping.is_set():
                text = await socket.recv()
                self._heartbeat.heard()
                await self._take(text)
        if self._bye is not None:
            await self._executor.finish(self.options.grace)

    async def _take(self, text: str | bytes) -> None:
        try:
            frame = protocol.decode(text)
            self.received[frame["type"]] += 1
            await self._dispatch(frame)
        except protocol.FrameError as error:
            log.warning("%s: a frame is ignored: %s", self.name, error)

    async def _dispatch(self, frame: Frame) -> None:
        kind = frame["type"]
        if kind == "command":
            await self._command(frame)
        elif kind == "shadow":
            self._shadow.pushed(frame.get("delta"))
        elif kind == "ack":
            self.telemetry.acknowledged(frame.get("id"))
        elif kind in PROXY_FRAMES:
            await self._editing.take(frame)
        elif kind == "bye":
            self._bye = _seconds(frame.get("reconnect_after_ms"), 0.0) / 1000
        elif kind != "pong":
            log.info("%s: a frame of type %r is ignored", self.name, kind[:50])

    async def _command(self, frame: Frame) -> None:
        self._editing.commanded()
        try:
            await self._executor.take(protocol.command_of(frame))
        except CommandError as error:
            await self._outbox.put(protocol.failure(frame["id"], error.code, str(error)))

    def _interval_of_telemetry(self) -> float:
        wanted = self.settings.get("telemetry_interval")
        return float(self.options.telemetry_interval if wanted is None else wanted)

    def _interval_of_reports(self) -> float:
        return float(self.settings.get("report_interval") or self.options.report_interval)

    async def _pause(self, ended: Ended, failures: int) -> None:
        seconds = next_wait(ended, failures, self.options.waits, self._rng)
        if ended.refused:
            log.error("%s: the cloud refuses this device: %s. Next try in %.0f s", self.name, ended.reason, seconds)
        else:
            log.info("%s: disconnected: %s; next try in %.1f s", self.name, ended.reason, seconds)
        with contextlib.suppress(TimeoutError):  # the wait's ordinary end
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _renewed(self) -> bool:
        """Whether new credentials are worth a try at once; after a second refusal only a long wait is."""
        if not self._may_renew or self._refused is None:
            self._may_renew = self._refused is not None
            return False
        self._may_renew = False
        credentials = await self._refused(self)
        if credentials is None:
            return False
        self.credentials = self._shadow.credentials = credentials
        return True


def _seconds(value: object, default: float) -> float:
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0
    return float(value) if usable else default  # type: ignore[arg-type]
