"""A fleet in one process: thousands of devices, each a real socket, each with a seeded life of its own."""

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from agent import storage
from agent.answers import Answers
from agent.backlog import Backlog
from agent.credentials import Credentials
from agent.device import Device, Options
from agent.drivers.figures import Overheat
from agent.drivers.simulated import Behaviour, SimulatedDriver
from agent.enrol import Account, Enrolment, Member, StateFile, credentials_of
from agent.faults import LinkFaults
from agent.rest import Rest, RestError

log = logging.getLogger("agent.fleet")

Result = TypeVar("Result")
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class FleetOptions:
    """What a fleet is. `members`: devices that exist already, in place of `devices` to be found or made. `overheat`
    by name. Telemetry's interval is the `link`'s; each device keeps `buffer_bytes` of it in memory."""

    url: str
    devices: int = 0
    members: Sequence[Member] = ()
    prefix: str = "demo"
    tags: Sequence[str] = ()
    seed: int = 1
    api_key: str = ""
    email: str = ""
    password: str = ""
    state_file: Path | None = None
    behaviour: Behaviour = field(default_factory=Behaviour)
    overheat: Mapping[str, Overheat] = field(default_factory=dict)
    faults: LinkFaults | None = None
    link: Options = field(default_factory=Options)
    at_once: int = 50
    enrol_at_once: int = 8
    buffer_bytes: int = 1024 * 1024


class FleetError(Exception):
    """The fleet cannot be set up."""


class Fleet:
    """`start`, look at `devices`, `connected`, `ledger`, then `stop`; also an async context manager."""

    def __init__(self, options: FleetOptions) -> None:
        self.options = options
        self.devices: list[Device] = []
        self._rest = Rest(options.url, concurrency=16)
        self._enrolment = self._prepare(options)
        self._remembered: set[str] = set()
        self._dialling = asyncio.Semaphore(options.at_once)
        self._launching: asyncio.Task[None] | None = None

    def _prepare(self, options: FleetOptions) -> Enrolment | None:
        if options.members:
            return None
        account = Account(self._rest, options.api_key, options.email, options.password)
        if not account.usable:
            raise FleetError("making devices needs an API key, or an email and a password")
        state = StateFile(options.state_file, options.url)
        return Enrolment(self._rest, account, state, options.tags, options.seed)

    @property
    def connected(self) -> int:
        """How many devices are connected at this moment."""
        return sum(device.connected for device in self.devices)

    @property
    def ledger(self) -> dict[str, dict[str, int]]:
        """Per device id: how often each changing command was carried out. More than once is a fault."""
        return {device.credentials.device_id: dict(device.answers.applied) for device in self.devices}

    async def flows(self) -> dict[str, list[dict[str, Any]]]:
        """Per device id: the flows that are installed on it."""
        return {device.credentials.device_id: await device.driver.list_flows() for device in self.devices}

    def dump(self, path: Path) -> None:
        """Write the ledger to a file."""
        storage.write_json(path, self.ledger)

    async def start(self, timeout: float | None = 60.0, progress: Progress | None = None) -> None:
        """Find or make the devices and connect them, waiting for all of them at most `timeout` seconds.

        None: for ever; 0: not at all. Raises FleetError when devices cannot be made; whoever is not connected in
        time keeps trying. `progress(what, done, of)` hears how far it is.
        """
        tell = progress or (lambda what, done, total: None)
        for member in await self._members(tell):
            self.devices.append(self._device(member))
        self._launching = asyncio.create_task(self._launch(tell))
        await asyncio.wait([self._launching], timeout=timeout)

    async def stop(self) -> None:
        """Close every connection with 1000 and forget the devices' flows."""
        if self._launching:
            self._launching.cancel()
            await asyncio.gather(self._launching, return_exceptions=True)
        await asyncio.gather(*(device.stop() for device in self.devices))
        await self._rest.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def _members(self, tell: Progress) -> list[Member]:
        if self._enrolment is None:
            return list(self.options.members)
        names = [f"{self.options.prefix}-{number:03d}" for number in range(1, self.options.devices + 1)]
        turn, done = asyncio.Semaphore(self.options.enrol_at_once), 0

        async def enrol(enrolment: Enrolment, name: str) -> Member:
            nonlocal done
            async with turn:
                member, remembered = await enrolment.find_or_make(name)
            if remembered:
                self._remembered.add(member.name)
            done += 1
            tell("enrolled", done, len(names))
            if done % 100 == 0:
                enrolment.save()
            return member

        try:
            return await _all_or_first_error([enrol(self._enrolment, name) for name in names])
        except RestError as error:
            raise FleetError(f"devices cannot be made: {error}") from error
        finally:
            self._enrolment.save()

    def _device(self, member: Member) -> Device:
        seed = self.options.seed
        return Device(
            credentials_of(member, self.options.url),
            SimulatedDriver(member.name, self._behaviour_of(member.name), seed),
            self._rest,
            name=member.name,
            options=self.options.link,
            answers=Answers(),
            backlog=Backlog(self.options.buffer_bytes),
            faults=self.options.faults,
            rng=random.Random(f"{seed}:{member.name}:link"),
            refused=self._refused,
        )

    def _behaviour_of(self, name: str) -> Behaviour:
        """Everybody's, as the same object so that a test may change it for all, but an overheated device's own."""
        overheat, behaviour = self.options.overheat.get(name), self.options.behaviour
        return replace(behaviour, overheat=overheat) if overheat else behaviour

    async def _launch(self, tell: Progress) -> None:
        """Start the devices, so many at once: a burst of thousands would only fill the server's queue of connects."""

        done = 0

        async def launch(device: Device) -> None:
            nonlocal done
            async with self._dialling:
                device.start()
                try:
                    await device.wait_connected(20)
                except TimeoutError:
                    log.info("%s is not connected yet and keeps trying", device.name)
            await device.wait_connected(None)
            done += 1
            tell("connected", done, len(self.devices))

        await asyncio.gather(*(launch(device) for device in self.devices))

    async def _refused(self, device: Device) -> Credentials | None:
        """New credentials for a remembered device that the cloud does not know any more; None for others."""
        if self._enrolment is None or device.name not in self._remembered or device.connections:
            return None
        try:
            member = await self._enrolment.again(device.name)
        except RestError as error:
            log.error("%s cannot be made again: %s", device.name, error)
            return None
        self._enrolment.save()
        return credentials_of(member, self.options.url)


async def _all_or_first_error(calls: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


class FleetThread:
    """A fleet in a thread with a loop of its own, for callers that are not asynchronous."""

    def __init__(self, options: FleetOptions, timeout: float = 60.0) -> None:
        self._options, self._timeout = options, timeout
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet", daemon=True)
        self.fleet: Fleet

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            self.fleet = self.run(self._make())
            self.run(self.fleet.start(self._timeout))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self.run(self.fleet.stop())
        finally:
            self._end()

    def run(self, call: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine in the fleet's loop and wait for it."""
        future: Future[Result] = asyncio.run_coroutine_threadsafe(call, self._loop)
        return future.result(self._timeout + 30)

    async def _make(self) -> Fleet:
        return Fleet(self._options)

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
