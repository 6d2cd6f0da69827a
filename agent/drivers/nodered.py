"""Node-RED as a runtime: a cloud flow is one of its tabs, or (`config.nodered.mode: "full"`) its whole deployment.

What a person made there is listed, read, started and stopped, and never changed otherwise. A deployment is one POST of
all flows under the revision that was read: another writer's change in between makes Node-RED refuse it, and it is
made anew. What then does not start, or throws within the settling time, is exchanged for what was there before.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from agent import __version__
from agent.content import PARTS
from agent.drivers import nodered_format as form
from agent.drivers.base import Deployment, Driver, JsonObject
from agent.drivers.choice import RuntimeOptions
from agent.drivers.installed import definition_of, flow_log
from agent.drivers.nodered_api import NodeRedApi, RevisionConflict
from agent.drivers.nodered_ear import Ear, Trial
from agent.drivers.nodered_events import NodeRedEvents
from agent.drivers.nodered_records import Record, Records
from agent.drivers.nodered_view import Seen, View
from agent.protocol import (
    FLOW_NOT_FOUND,
    INTERNAL_ERROR,
    INVALID_FLOW,
    START_FAILED,
    UNKNOWN_ACTION,
    UNSUPPORTED_NODE_TYPE,
    CommandError,
)
from agent.runtime.definition import FlowError

log = logging.getLogger("agent.driver")

URL = "http://127.0.0.1:1880"
CONFLICTS = 8
"""So often a change is made anew because somebody else deployed at the same time."""
START_SECONDS = 30.0
BACK_SECONDS = 60.0
"""So long a Node-RED that went down over a deployment is waited for, to bring back what ran before."""


class NodeRedDriver(Driver):
    """One Node-RED. `settle`: seconds within which an error of its nodes makes a deployment fail."""

    def __init__(self, runtime: RuntimeOptions, settle: float = 1.5) -> None:
        super().__init__()
        self.editor_url = runtime.url or URL
        self._api = NodeRedApi(self.editor_url, runtime.token)
        # Bound late: whoever listens may come after the flows.
        self._ear = Ear(lambda *said: self._hear(*said), lambda: self._events.drops)
        self._events = NodeRedEvents(self.editor_url, runtime.token, self._ear.heard, self._ear.stopped)
        self._records = Records(runtime.state_dir / "nodered")
        self._settle = settle
        self._view: View | None = None

    async def open(self) -> None:
        """Listen to Node-RED; its flows it starts itself."""
        self._events.open()
        if not await self._events.ready(2.0):
            log.warning("Node-RED at %s is not there yet: %s", self.editor_url, self._events.missing)

    async def close(self) -> None:
        await self._events.close()
        await self._api.close()

    # --- what is there ---

    async def _look(self) -> View:
        """The deployment as it is now."""
        rev, objects = await self._api.flows()
        if self._view is None or self._view.rev != rev:
            self._view = View(rev, objects, self._records)
            self._ear.know(self._view)
        assert self._view is not None
        return self._view

    async def _find(self, flow_id: str) -> Seen:
        seen = (await self._look()).flows.get(flow_id)
        if seen is None:
            raise CommandError(FLOW_NOT_FOUND, f"flow not found: {flow_id}")
        return seen

    async def list_flows(self) -> list[JsonObject]:
        view, halted = await self._look(), await self._halted()
        return [self._summary(seen, halted) for seen in view.flows.values()]

    async def get_flow(self, flow_id: str) -> JsonObject:
        seen = await self._find(flow_id)
        return {**self._summary(seen, await self._halted()), "definition": seen.definition}

    async def _halted(self) -> str | None:
        """Why nothing runs at all; None when what is switched on runs."""
        state = await self._api.state()
        told = self._events.state if self._events.connected else {}
        if told.get("error") in ("missing-types", "missing-modules", "safe-mode"):
            return (
                f"{told['error']}: {', '.join(map(_name, told.get('types') or told.get('modules') or ['see its log']))}"
            )
        return None if state == "start" else f"its flows are stopped ({state})"

    def _summary(self, seen: Seen, halted: str | None) -> JsonObject:
        errors, restarts = self._ear.counts(seen.flow_id)
        error = f"Node-RED runs nothing, {halted}" if seen.running and halted else None
        return {
            "id": seen.flow_id,
            "name": str(seen.tab.get("label") or seen.flow_id),
            "status": "error" if error else "running" if seen.running else "stopped",
            "version": seen.version,
            "content_hash": seen.hash,
            "node_count": sum(item["type"] not in form.STRUCTURE for item in seen.objects),
            "installed_at": seen.record.installed_at if seen.record else None,
            "error": error,
            "managed": seen.managed,
            "drift": seen.drifted,
            "errors": errors,
            "restarts": restarts,
        }

    async def running(self) -> dict[str, JsonObject]:
        """Of the cloud's flows; a person's own tabs are that person's affair."""
        told = ("version", "status", "errors", "restarts")
        return {
            flow["id"]: {"hash": flow["content_hash"], **{key: flow[key] for key in told}}
            for flow in await self.list_flows()
            if flow["managed"]
        }

    async def node_types(self) -> list[JsonObject]:
        """Those of the enabled node sets, of structure (tabs, groups, subflows), and the subflows that are there."""
        sets = await self._api.node_sets()
        found = [
            {"type": kind, "module": one.get("module"), "version": one.get("version")}
            for one in sets
            if one.get("enabled") and not one.get("err")
            for kind in one.get("types") or ()
        ]
        view = await self._look()
        subflows = [f"{form.SUBFLOW}{item['id']}" for item in view.objects if item.get("type") == "subflow"]
        return [*found, *({"type": kind, "module": None} for kind in [*sorted(form.STRUCTURE), *subflows])]

    async def executions(self) -> list[JsonObject]:
        """What debug nodes showed and what errors nobody caught, newest first; Node-RED keeps no other account."""
        return self._ear.newest()

    async def flow_metrics(self) -> dict[str, JsonObject]:
        return self._ear.figures()

    async def health(self) -> JsonObject:
        try:
            told, version = await super().health(), await self._api.version()
        except CommandError as error:
            runtime = {"name": "Node-RED", **await self.runtime_health()}
            return {"status": "unhealthy", "error": str(error), "version": __version__, "runtime": runtime}
        events = self._events.missing or "connected"
        return {**told, "runtime": {**told["runtime"], "name": "Node-RED", "version": version, "events": events}}

    async def gpio_state(self) -> JsonObject:
        """UNKNOWN_ACTION: Node-RED does not tell which pins its nodes hold."""
        raise CommandError(UNKNOWN_ACTION, "Node-RED does not tell the state of pins")

    # --- what changes ---

    async def deploy(self, order: Deployment) -> str:
        plan = _plan(order)
        view = await self._look()
        seen = view.flows.get(order.flow_id)
        if seen and not seen.managed:
            raise CommandError(INVALID_FLOW, f"{order.flow_id} is a tab that somebody made in Node-RED")
        await self._check_types(plan, view)
        record = _record(order)
        if seen and await self._is_there(seen, order):
            if seen.record is None or seen.record.version != order.version:
                kept = replace(seen.record, version=order.version) if seen.record else record
                self._records.settle(kept, order.flow_id)
                self._view = None
            return "already_installed"
        self._records.attempt(record, seen.record if seen else None)
        await self._install(order, plan, view)
        self._records.settle(record, order.flow_id)
        self._view = None
        self._ear.installed(plan)
        self._tell("info", record, "installed and running" if order.start else "installed")
        return "installed"

    async def _is_there(self, seen: Seen, order: Deployment) -> bool:
        """Whether the order is already carried out."""
        if seen.hash != order.content_hash or (order.start and not seen.running):
            return False
        return not order.start or await self._halted() is None

    async def _check_types(self, plan: form.Plan, view: View) -> None:
        known = {kind["type"] for kind in await self.node_types()}
        missing = sorted(plan.types - known)
        if missing:
            raise CommandError(UNSUPPORTED_NODE_TYPE, f"Node-RED lacks node types: {', '.join(missing)}")

    async def _install(self, order: Deployment, plan: form.Plan, view: View) -> None:
        """Send it and see it run; else what was there before is there again, and START_FAILED is raised."""
        new = plan.dressed(order.version, order.content_hash, order.start)
        seen = view.flows.get(order.flow_id)
        kept = await self._keeping(seen.objects if seen else [], new)
        trial = self._ear.trial = Trial(order.flow_id, {item["id"] for item in new}, plan.names.inward)
        sent: View | None = None
        rev = ""
        try:
            sent, rev = await self._send(lambda there: there.exchanged(order.flow_id, [*new, *kept], plan.full))
            await self._prove(trial, rev, order.start)
            if kept:
                await self._send(lambda there: there.exchanged(order.flow_id, new, plan.full), "nodes")
        except CommandError as error:
            self._ear.trial = None
            if await self._bring_back(plan, sent or view, rev):
                self._records.settle(seen.record if seen else None, order.flow_id)
            self._view = None
            self._tell("error", _record(order), f"was not installed: {error}")
            raise CommandError(START_FAILED, f"flow {order.flow_id} was not installed: {error}") from error
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
            there = await self._look()
            self._events.expect()
            try:
                return there, await self._api.deploy(change(there), there.rev, kind)
            except RevisionConflict:
                await asyncio.sleep(0.05 * (attempt + 1))
            finally:
                self._view = None
        raise CommandError(INTERNAL_ERROR, "somebody else deploys to this Node-RED all the time")

    async def _prove(self, trial: Trial, rev: str, start: bool) -> None:
        """Return once it has run for the settling time; raises CommandError with what was wrong."""
        drops = self._events.drops
        await self._started(rev)
        trial.begun = True
        halted = await self._halted() if start else None
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
                        if (await self._look()).rev != before.rev:
                            _, back = await self._send(again)
                            await self._started(back)
                        return True
                    except CommandError as error:
                        log.warning("flow %s is not back yet: %s", flow_id, error)
                        await asyncio.sleep(1.0)
        except TimeoutError:
            flow_log.error("flow %s could not be brought back: Node-RED does not answer", flow_id)
            self._hear("error", f"flow {flow_id} could not be brought back", {"flow_id": flow_id})
            return False

    async def remove(self, flow_id: str) -> bool:
        seen = (await self._look()).flows.get(flow_id)
        if seen is None:
            self._records.settle(None, flow_id)
            return False
        if not seen.managed:
            raise CommandError(INVALID_FLOW, f"{flow_id} is a tab that somebody made in Node-RED")
        await self._send(lambda there: there.exchanged(flow_id, []))
        self._records.settle(None, flow_id)
        self._view = None
        self._ear.forget(flow_id)
        self._hear("info", f"flow {seen.tab.get('label') or flow_id}: removed", {"flow_id": flow_id})
        return True

    async def start(self, flow_id: str) -> str:
        seen = await self._find(flow_id)
        if seen.running and not await self._halted():
            return "already_running"
        trial = self._ear.trial = Trial(
            flow_id, {item["id"] for item in seen.objects}, seen.plan.names.inward if seen.plan else {}
        )
        try:
            _, rev = await self._send(lambda there: _switched(there, flow_id, False))
            await self._prove(trial, rev, True)
        except CommandError as error:
            self._ear.trial = None
            if not seen.running:
                await self._send(lambda there: _switched(there, flow_id, True))
            raise CommandError(START_FAILED, f"flow {flow_id} did not start: {error}") from error
        finally:
            self._ear.trial = None
        self._hear("info", f"flow {seen.tab.get('label') or flow_id}: started", {"flow_id": flow_id})
        return "started"

    async def stop(self, flow_id: str) -> str:
        seen = await self._find(flow_id)
        if seen.running:
            _, rev = await self._send(lambda there: _switched(there, flow_id, True))
            await self._started(rev)
            self._hear("info", f"flow {seen.tab.get('label') or flow_id}: stopped", {"flow_id": flow_id})
        return "stopped"

    def _tell(self, level: str, record: Record, what: str) -> None:
        version = "" if record.version is None else f" v{record.version}"
        fields = {"flow_id": record.flow_id, "version": record.version}
        self._hear(level, f"flow {record.name}{version}: {what}", fields)


def _plan(order: Deployment) -> form.Plan:
    try:
        return form.plan(order.flow_id, _name_of(order), _definition(order))
    except FlowError as error:
        raise CommandError(INVALID_FLOW, str(error)) from error


def _record(order: Deployment) -> Record:
    return Record(order.flow_id, order.version, order.content_hash, _name_of(order), _definition(order))


def _definition(order: Deployment) -> JsonObject:
    """Without what may stand beside it, as the flow's name."""
    found = definition_of(order.flow)
    return {key: found[key] for key in PARTS if key in found}


def _name_of(order: Deployment) -> str:
    return str(order.flow.get("name") or order.flow_id)


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


def _switched(there: View, flow_id: str, off: bool) -> list[JsonObject]:
    """All as it is, but the tabs of a flow off, or on as far as its author wants them on."""
    seen = there.flows.get(flow_id)
    if seen is None:
        raise CommandError(FLOW_NOT_FOUND, f"flow not found: {flow_id}")
    planned = seen.plan.by_id if seen.plan and seen.full else {}
    own = {item["id"] for item in seen.objects}
    return [
        {**item, "disabled": off or bool(planned.get(item["id"], {}).get("disabled"))}
        if item.get("type") == "tab" and item["id"] in own
        else item
        for item in there.objects
    ]
