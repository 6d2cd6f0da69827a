"""One real device: provision, keep the credentials, stay connected until told to stop."""

import asyncio
import fcntl
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from agent import credentials, hardware
from agent.answers import Answers
from agent.backlog import MAX_BYTES, DiskBacklog
from agent.credentials import Credentials
from agent.device import Device, Options
from agent.drivers.base import Driver
from agent.journal import AgentLog
from agent.proxy_local import HEAD_SECONDS
from agent.rest import Rest, RestError, Retry, retrying
from agent.settings import Settings

log = logging.getLogger("agent")

Result = TypeVar("Result")

FOR_EVER = Retry(tries=0, base=1.0, cap=60.0)


class AgentError(Exception):
    """The agent cannot run, for a reason that a person has to remove."""


@dataclass(frozen=True)
class AgentOptions:
    """`log_level` and `telemetry_interval` (seconds) hold until the cloud sets others; `telemetry_buffer` in bytes.

    `allow_hosts`: beside this machine, what the setting `local_url` may name. `editor_timeout`: as in `Options`.
    """

    url: str
    state_dir: Path
    provisioning_code: str | None = None
    log_level: str = "INFO"
    telemetry_interval: float = 10.0
    telemetry_buffer: int = MAX_BYTES
    allow_hosts: tuple[str, ...] = ()
    editor_timeout: float = HEAD_SECONDS


async def run(options: AgentOptions, make_driver: Callable[[], Driver], stop: asyncio.Event) -> None:
    """Run until `stop`; raises AgentError."""
    with _lock(options.state_dir):
        rest = Rest(options.url)
        try:
            identity = await until(stop, _identity(options, rest))
            if identity:
                await _serve(options, rest, identity, make_driver(), stop)
        finally:
            await rest.close()


async def _serve(options: AgentOptions, rest: Rest, identity: Credentials, driver: Driver, stop: asyncio.Event) -> None:
    settings = Settings(options.state_dir / "settings.json")
    device = Device(
        identity,
        driver,
        rest,
        options=Options(telemetry_interval=options.telemetry_interval, editor_timeout=options.editor_timeout),
        settings=settings,
        backlog=DiskBacklog(options.state_dir / "telemetry", options.telemetry_buffer),
        answers=Answers(options.state_dir / "answers.jsonl"),
        refused=lambda _: _provision_again(options, rest),
        address=lambda failures: _address(options, settings, failures),
        allow_hosts=options.allow_hosts,
    )
    settings.listen(lambda: _settings_changed(options, settings, device))
    _set_log_level(options, settings)
    own = AgentLog(device.telemetry.journal)
    logging.getLogger("agent").addHandler(own)
    try:
        await driver.open()
        device.start()
        log.info("device %s serves %s", identity.device_id, options.url)
        await stop.wait()
        await device.stop()
        await driver.close()
    finally:
        logging.getLogger("agent").removeHandler(own)


def _address(options: AgentOptions, settings: Settings, failures: int) -> str:
    """The address that the cloud has set, but each fourth try the one given at the start: a typing error over there
    must not cut this device off for good."""
    return settings.get("server_url") or options.url if failures % 4 != 3 else options.url


def _settings_changed(options: AgentOptions, settings: Settings, device: Device) -> None:
    _set_log_level(options, settings)
    if _address(options, settings, 0) != device.rest.base_url:
        # A second later, so that the answer to the command that changed it still goes the old way.
        asyncio.get_running_loop().call_later(1.0, lambda: asyncio.ensure_future(device.reconnect()))


def _set_log_level(options: AgentOptions, settings: Settings) -> None:
    logging.getLogger("agent").setLevel(str(settings.get("log_level") or options.log_level).upper())


async def _identity(options: AgentOptions, rest: Rest) -> Credentials:
    path = options.state_dir / "credentials.json"
    try:
        stored = credentials.load(path)
    except ValueError as error:
        log.error("%s", error)
        stored = None
    if stored and stored.belong_to(options.url, options.provisioning_code):
        return stored
    if not options.provisioning_code:
        raise AgentError(f"no credentials in {path}: a provisioning code is needed (--provisioning-code)")
    return await _provision(options, rest, FOR_EVER)


async def _provision(options: AgentOptions, rest: Rest, retry: Retry) -> Credentials:
    code = options.provisioning_code or ""

    async def provision() -> Credentials:
        given = await rest.provision(code, hardware.hardware_info(), hardware.network_info())
        expires_at, code_hash = given.get("expires_at"), credentials.hash_code(code)
        return Credentials(given["device_id"], given["api_key"], options.url, expires_at, code_hash)

    rng = random.Random()
    try:
        made = await retrying(provision, retry, rng, "provisioning")
    except RestError as error:
        raise AgentError(f"provisioning failed: {error}") from error
    except KeyError as error:
        raise AgentError(f"provisioning was answered without {error}") from error
    credentials.save(options.state_dir / "credentials.json", made)
    log.info("provisioned as device %s", made.device_id)
    return made


async def _provision_again(options: AgentOptions, rest: Rest) -> Credentials | None:
    """The cloud refuses the stored key: the same code gives the same hardware a fresh one, while it is good."""
    if not options.provisioning_code:
        return None
    try:
        return await _provision(options, rest, Retry(tries=2))
    except AgentError as error:
        log.error("%s", error)
        return None


async def until(stop: asyncio.Event, call: Coroutine[Any, Any, Result]) -> Result | None:
    """The result of `call`; None, and `call` cancelled, when `stop` comes first."""
    task, stopped = asyncio.ensure_future(call), asyncio.ensure_future(stop.wait())
    await asyncio.wait([task, stopped], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return None


def _lock(state_dir: Path) -> IO[str]:
    """Two agents on one folder would push each other off the tunnel for ever."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = (state_dir / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise AgentError(f"another agent runs with {state_dir}") from error
    return file
