"""What the shadow's reported state says of flows and node types: what really runs, told when it has changed.

`node_types`: sorted names; absent where any type goes, or where the list would be too long to be told whole.
`flows`: `{flow_id: {"hash", "version", "status", "errors", "restarts"}}` as `Driver.running` gives them; a value that
is None is absent, since a merge patch cannot say it.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Any

from agent.drivers.base import Driver, JsonObject
from agent.protocol import CommandError, encode

log = logging.getLogger("agent.report")

MAX_FLOWS = 200
MAX_FLOW_BYTES = 24 * 1024
MAX_FLOW_KEYS = 900
MAX_TYPES = 500
MAX_TYPE_BYTES = 6 * 1024
"""The cloud takes 32 KiB and 1,024 keys of reported state, which is not ours alone."""
PATIENCE = 20.0
"""Seconds for a runtime to say what runs: a report must not hold up that the device is online."""

KEYS = ("node_types", "flows")


class Reports:
    """`known` is what the cloud has; `patch()` is what is to be merged into it."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._known: JsonObject = {}
        self._refused: JsonObject | None = None

    def known(self, reported: Any) -> None:
        """Take note of the reported state that the cloud answers with."""
        if isinstance(reported, dict):
            self._known = {key: reported[key] for key in KEYS if key in reported}

    def refused(self, patch: JsonObject) -> None:
        """The cloud does not take it: the same is not offered again."""
        self._refused = patch

    async def patch(self) -> JsonObject:
        """The difference between what is and what the cloud has, {} when there is none. Raises nothing."""
        try:
            async with asyncio.timeout(PATIENCE):
                present = await self._present()
        except (CommandError, TimeoutError) as error:
            log.info("what runs cannot be reported: %s", error or "the runtime does not answer in time")
            return {}
        except Exception:  # a driver's mistake must not keep the device from telling that it is online
            log.exception("what runs cannot be reported")
            return {}
        patch = difference(self._known, present)
        return {} if patch == self._refused else patch

    async def _present(self) -> JsonObject:
        flows = {flow_id: _told(flow) for flow_id, flow in (await self._driver.running()).items()}
        return {**await self._types(), "flows": within(flows)}

    async def _types(self) -> JsonObject:
        try:
            names = await self._driver.reported_types()
        except CommandError as error:
            log.info("the node types cannot be reported: %s", error)
            return {key: value for key, value in self._known.items() if key == "node_types"}
        return {} if names is None else within_types(names)


class Rounds:
    """When to look at what runs: within `interval()` seconds after a change, and each interval if the driver wants it.

    The moment is random, so that a fleet's reports do not follow a rollout all at once. No task, at most one timer: ten
    thousand idle devices cost nothing.
    """

    def __init__(
        self, look: Callable[[], None], interval: Callable[[], float], driver: Driver, rng: random.Random
    ) -> None:
        self._look, self._interval, self._driver, self._rng = look, interval, driver, rng
        self._timer: asyncio.TimerHandle | None = None
        self._connected = False

    def begin(self) -> None:
        """A connection is there, and the report of its beginning under way."""
        self._connected = True
        if self._driver.polled:
            self.changed()

    def changed(self) -> None:
        """A command may have changed what runs."""
        if self._connected and self._timer is None:
            self._arm(self._rng.uniform(0, self._interval()))

    def end(self) -> None:
        """The connection is gone: the next one begins with a report."""
        self._connected = False
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _arm(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._turn)

    def _turn(self) -> None:
        self._timer = None
        self._look()
        if self._driver.polled:
            self._arm(self._interval())


def difference(before: JsonObject, after: JsonObject) -> JsonObject:
    """The merge patch (RFC 7396) that makes `after` of `before`."""
    patch: JsonObject = {key: None for key in before if key not in after}
    for key, value in after.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            inner = difference(old, value)
            if inner:
                patch[key] = inner
        elif key not in before or type(old) is not type(value) or old != value:
            patch[key] = value
    return patch


def within(flows: dict[str, JsonObject]) -> dict[str, JsonObject]:
    """As many as the bounds allow, those that the cloud has deployed first, then by id."""
    kept: dict[str, JsonObject] = {}
    room, keys = MAX_FLOW_BYTES, MAX_FLOW_KEYS
    for flow_id in sorted(flows, key=lambda flow_id: ("version" not in flows[flow_id], flow_id))[:MAX_FLOWS]:
        room -= len(encode({flow_id: flows[flow_id]}).encode())
        keys -= 1 + len(flows[flow_id])
        if room < 0 or keys < 0:
            break
        kept[flow_id] = flows[flow_id]
    return kept


def within_types(names: list[str]) -> JsonObject:
    """`{"node_types": [...]}`, or nothing when it is too long: half a list would deny types that are there."""
    unique = sorted(set(names))
    if len(unique) > MAX_TYPES or len(encode({"": unique}).encode()) > MAX_TYPE_BYTES:
        return {}
    return {"node_types": unique}


def _told(flow: JsonObject) -> JsonObject:
    return {key: value for key, value in flow.items() if value is not None}
