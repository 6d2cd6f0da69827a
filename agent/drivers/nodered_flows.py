"""Node-RED's flows as the agent changes them: sent under the revision that was read, proved, or brought back.

A change is one POST of all flows: another writer's change in between makes Node-RED refuse it, and it is made anew on
what is there then. What does not start, or throws within the settling time, is exchanged for what was there before.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from agent.drivers import nodered_format as form
from agent.drivers.base import JsonObject
from agent.drivers.installed import flow_log
from agent.drivers.nodered_api import NodeRedApi, RevisionConflict
from agent.drivers.nodered_ear import Ear, Trial
from agent.drivers.nodered_events import NodeRedEvents
from agent.drivers.nodered_records import Record, Records
from agent.drivers.nodered_view import Seen, View
from agent.protocol import FLOW_NOT_FOUND, INTERNAL_ERROR, START_FAILED, CommandError

log = logging.getLogger("agent.driver")

CONFLICTS = 8
"""So often a change is made anew because somebody else deployed at the same time."""
START_SECONDS = 30.0
BACK_SECONDS = 60.0
"""So long a Node-RED that went down over a deployment is waited for, to bring back what ran before."""


class Busy(CommandError):
    """Others deploy all the time, so that nothing was sent."""

    def __init__(self) -> None:
        super().__init__(INTERNAL_ERROR, "somebody else deploys to this Node-RED all the time")


class NodeRedFlows:
    """`settle`: seconds within which an error of its nodes makes a deployment fail. Whatever changes something is
    called by one at a time."""

    def __init__(self, api: NodeRedApi, events: NodeRedEvents, ear: Ear, records: Records, settle: float) -> None:
        self._api, self._events, self._ear, self._records, self._settle = api, events, ear, records, settle
        self._view: View | None = None

    async def look(self) -> View:
        """The deployment as it is now."""
        rev, objects = await self._api.flows()
        if self._view is None or self._view.rev != rev:
            self._view = View(rev, objects, self._records)
            self._ear.know(self._view)
        assert self._view is not None
        return self._view

    async def find(self, flow_id: str) -> Seen:
        """One flow; raises CommandError FLOW_NOT_FOUND."""
        return _found(await self.look(), flow_id)

    async def halted(self) -> str | None:
        """Why nothing runs at all; None when what is switched on runs."""
        state = await self._api.state()
        told = self._events.state if self._events.connected else {}
        if told.get("error") in ("missing-types", "missing-modules", "safe-mode"):
            missing = told.get("types") or told.get("modules") or ["see its log"]
            return f"{told['error']}: {', '.join(map(_name, missing))}"
        return None if state == "start" else f"its flows are stopped ({state})"

    def remembered(self) -> dict[str, int | None]:
        """The versions of the flows that were deployed, whether or not Node-RED answers."""
        records = {flow_id: self._records.of(flow_id, None) for flow_id in self._records.ids()}
        return {flow_id: record.version for flow_id, record in records.items() if record}

    def settle(self, record: Record | None, flow_id: str) -> None:
        """Note on disk what is there of a flow; None: nothing."""
        self._records.settle(record, flow_id)
        self._view = None

    # --- changing ---

    async def install(self, record: Record, plan: form.Plan, start: bool, view: View) -> None:
        """Send a flow and see it run; else what was there in `view` is there again, and CommandError says why."""
        seen = view.flows.get(record.flow_id)
        self._records.attempt(record, seen.record if seen else None)
        sent: View | None = None
        rev = ""
        new = plan.dressed(record.version, record.content_hash, start)
        kept = await self._keeping(seen.objects if seen else [], new)
        try:
            with self._trying(record.flow_id, new, plan.names.inward) as trial:
                sent, rev = await self._send(lambda there: there.exchanged(record.flow_id, [*new, *kept], plan.full))
                await self._prove(trial, rev, start)
                if kept:
                    await self._send(lambda there: there.exchanged(record.flow_id, new, plan.full), "nodes")
        except CommandError as error:
            # What was never sent needs no way back, which might undo what others did meanwhile.
            unsent = sent is None and isinstance(error, Busy)
            if unsent or await self._bring_back(plan, sent or view, rev):
                self.settle(seen.record if seen else None, record.flow_id)
            self._view = None
            raise
        self.settle(record, record.flow_id)
        self._ear.installed(plan)

    async def take_over(self, seen: Seen, record: Record) -> None:
        """What is there is this record from now on: the same content as another version, or by another name."""
        known = seen.record
        if known and (known.version, known.name) == (record.version, record.name):
            return
        if known and known.name != record.name and not seen.full:
            await self._send(lambda there: _called(there, seen.flow_id, record.name), "nodes")
        self.settle(replace(record, installed_at=known.installed_at) if known else record, seen.flow_id)

    async def remove(self, flow_id: str) -> None:
        """Take a flow away, and nothing else."""
        await self._send(lambda there: there.exchanged(flow_id, []))
        self.settle(None, flow_id)
        self._ear.forget(flow_id)

    async def switch_on(self, seen: Seen) -> None:
        """Have it run; what does not start is off again, if it was off, and CommandError says why."""
        try:
            with self._trying(seen.flow_id, seen.objects, seen.plan.names.inward if seen.plan else {}) as trial:
                _, rev = await self._send(lambda there: _switched(there, seen.flow_id, False))
                await self._prove(trial, rev, True)
        except CommandError:
            if not seen.running:
                await self._send(lambda there: _switched(there, seen.flow_id, True))
            raise

    async def switch_off(self, seen: Seen) -> None:
        """Have it stay without running."""
        _, rev = await self._send(lambda there: _switched(there, seen.flow_id, True))
        await self._started(rev)

    @contextmanager
    def _trying(self, flow_id: str, objects: list[JsonObject], written: dict[str, str]) -> Iterator[Trial]:
        """Hold what these objects throw against the flow, and not once it is brought back."""
        trial = self._ear.trial = Trial(flow_id, {item["id"] for item in objects}, written)
        try:
            yield trial
        finally:
            self._ear.trial = None

    async def _keeping(self, old: list[JsonObject], new: list[JsonObject]) -> list[JsonObject]:
        """Nodes that go, and with them credentials that nobody else knows: switched off until the new flow runs."""
        arriving = {item["id"] for item in new}
        going = [item for item in old if item["id"] not in arriving and item["type"] not in form.STRUCTURE]
        going = [item for item in going if item.get("z") in arriving]
        known = await asyncio.gather(*(self._api.has_credentials(item["type"], item["id"]) for item in going))
        return [_asleep(item) for item, has in zip(going, known, strict=True) if has]

    async def _send(self, change: Callable[[View], list[JsonObject]], kind: str = "flows") -> tuple[View, str]:
        """Deploy what `change` makes of what is there: the view that it saw, and the new revision."""
        for attempt in range(CONFLICTS):
            self._view = None
            there = await self.look()
            self._events.expect()
            try:
                return there, await self._api.deploy(change(there), there.rev, kind)
            except RevisionConflict:
                await asyncio.sleep(0.05 * (attempt + 1))
            finally:
                self._view = None
        raise Busy

    async def _prove(self, trial: Trial, rev: str, start: bool) -> None:
        """Return once it has run for the settling time; raises CommandError with what was wrong."""
        drops = self._events.drops
        await self._started(rev)
        trial.begun = True
        halted = await self.halted() if start else None
        if halted:
            raise CommandError(START_FAILED, f"Node-RED runs nothing, {halted}")
        if start:
            await self._settled(trial)
        if self._events.drops != drops:
            raise CommandError(START_FAILED, "Node-RED went down over it")
        await self._api.state()
        if trial.failed.is_set():
            raise CommandError(START_FAILED, trial.error)

    async def _started(self, rev: str) -> None:
        try:
            async with asyncio.timeout(START_SECONDS):
                if not await self._events.deployed(rev):
                    await asyncio.sleep(1.0)
        except TimeoutError as error:
            raise CommandError(START_FAILED, f"Node-RED did not start it within {START_SECONDS:.0f} s") from error

    async def _settled(self, trial: Trial) -> None:
        try:
            async with asyncio.timeout(self._settle):
                await trial.failed.wait()
        except TimeoutError:
            return

    async def _bring_back(self, plan: form.Plan, before: View, rev: str) -> bool:
        """Put the flow back as it was in `before`: nothing else is touched, whoever changed it meanwhile; but what
        was exchanged for a whole deployment comes back as a whole. False when Node-RED does not answer any more."""
        flow_id = plan.flow_id
        old = before.flows.get(flow_id)
        objects = _with_credentials(old) if old else []

        def again(there: View) -> list[JsonObject]:
            if there.rev == rev or plan.full:
                return _merged(before.objects, objects)
            return there.exchanged(flow_id, objects)

        try:
            async with asyncio.timeout(BACK_SECONDS):
                while True:
                    try:
                        self._view = None
                        if (await self.look()).rev != before.rev:
                            _, back = await self._send(again)
                            await self._started(back)
                        return True
                    except CommandError as error:
                        log.warning("flow %s is not back yet: %s", flow_id, error)
                        await asyncio.sleep(1.0)
        except TimeoutError:
            flow_log.error("flow %s could not be brought back: Node-RED does not answer", flow_id)
            self._ear.hear("error", f"flow {flow_id} could not be brought back", {"flow_id": flow_id})
            return False


def _found(view: View, flow_id: str) -> Seen:
    if flow_id not in view.flows:
        raise CommandError(FLOW_NOT_FOUND, f"flow not found: {flow_id}")
    return view.flows[flow_id]


def _name(value: Any) -> str:
    return str(value.get("module", value)) if isinstance(value, dict) else str(value)


def _asleep(item: JsonObject) -> JsonObject:
    """A node that stays without working."""
    kept = {key: value for key, value in item.items() if key != "g"}
    return {**kept, "d": True, **({"wires": []} if "wires" in kept else {})}


def _with_credentials(old: Seen) -> list[JsonObject]:
    """The objects of a flow, with the credentials that came with it: the new one may have brought others."""
    planned = old.plan.by_id if old.plan else {}
    given = {known: item["credentials"] for known, item in planned.items() if item.get("credentials")}
    return [{**item, "credentials": given[item["id"]]} if item["id"] in given else item for item in old.objects]


def _merged(objects: list[JsonObject], own: list[JsonObject]) -> list[JsonObject]:
    replaced = {item["id"]: item for item in own}
    return [replaced.get(item["id"], item) for item in objects]


def _called(there: View, flow_id: str, name: str) -> list[JsonObject]:
    """All as it is, but the name on a flow's tab."""
    tab = _found(there, flow_id).tab
    return [{**item, "label": name} if item is tab else item for item in there.objects]


def _switched(there: View, flow_id: str, off: bool) -> list[JsonObject]:
    """All as it is, but the tabs of a flow off, or on as far as its author wants them on."""
    seen = _found(there, flow_id)
    planned = seen.plan.by_id if seen.plan and seen.full else {}
    own = {item["id"] for item in seen.objects}
    return [
        {**item, "disabled": off or bool(planned.get(item["id"], {}).get("disabled"))}
        if item.get("type") == "tab" and item["id"] in own
        else item
        for item in there.objects
    ]
