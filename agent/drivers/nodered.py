"""Node-RED as a runtime: a cloud flow is one of its tabs, or (`config.nodered.mode: "full"`) its whole deployment.

What a person made there is listed, read, started and stopped, and never changed otherwise.
"""

import logging

from agent import __version__
from agent.content import PARTS
from agent.drivers import nodered_format as form
from agent.drivers.base import SILENT, Deployment, Driver, JsonObject
from agent.drivers.choice import RuntimeOptions
from agent.drivers.installed import definition_of
from agent.drivers.nodered_api import NodeRedApi
from agent.drivers.nodered_ear import Ear
from agent.drivers.nodered_events import NodeRedEvents
from agent.drivers.nodered_flows import NodeRedFlows
from agent.drivers.nodered_records import Record, Records
from agent.drivers.nodered_view import Seen
from agent.protocol import (
    INVALID_FLOW,
    RUNTIME_UNAVAILABLE,
    START_FAILED,
    UNKNOWN_ACTION,
    UNSUPPORTED_NODE_TYPE,
    CommandError,
)
from agent.runtime.definition import FlowError

log = logging.getLogger("agent.driver")

URL = "http://127.0.0.1:1880"


class NodeRedDriver(Driver):
    """One Node-RED. `settle`: seconds within which an error of its nodes makes a deployment fail."""

    def __init__(self, runtime: RuntimeOptions, settle: float = 1.5) -> None:
        super().__init__()
        self.editor_url = runtime.url or URL
        self._api = NodeRedApi(self.editor_url, runtime.token)
        # Bound late: whoever listens may come after the flows.
        self._ear = Ear(lambda *said: self._hear(*said), lambda: self._events.drops)
        self._events = NodeRedEvents(self.editor_url, runtime.token, self._ear.heard, self._ear.stopped)
        records = Records(runtime.state_dir / "nodered")
        self._told: dict[str, int | None] | None = None
        """The versions of what ran when Node-RED last answered; None: it never did."""
        self._flows = NodeRedFlows(self._api, self._events, self._ear, records, settle)

    async def open(self) -> None:
        """Listen to Node-RED; its flows it starts itself."""
        self._events.open()
        if not await self._events.ready(2.0):
            log.warning("Node-RED at %s is not there yet: %s", self.editor_url, self._events.missing)

    async def close(self) -> None:
        await self._events.close()
        await self._api.close()

    # --- what is there ---

    async def list_flows(self) -> list[JsonObject]:
        view, halted = await self._flows.look(), await self._flows.halted()
        return [self._summary(seen, halted) for seen in view.flows.values()]

    async def get_flow(self, flow_id: str) -> JsonObject:
        seen = await self._flows.find(flow_id)
        return {**self._summary(seen, await self._flows.halted()), "definition": seen.definition}

    def _summary(self, seen: Seen, halted: str | None) -> JsonObject:
        errors, restarts = self._ear.counts(seen.flow_id)
        error = f"Node-RED runs nothing, {halted}" if seen.running and halted else None
        return {
            "id": seen.flow_id,
            "name": seen.name,
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
        """Of the cloud's flows; a person's own tabs are that person's affair.

        A Node-RED that does not answer makes every flow an error whose content is not known.
        """
        try:
            flows = [flow for flow in await self.list_flows() if flow["managed"]]
        except CommandError as error:
            if error.code != RUNTIME_UNAVAILABLE:
                raise
            return {flow_id: self._silent(flow_id, version) for flow_id, version in self._versions().items()}
        self._told = {flow["id"]: flow["version"] for flow in flows}
        told = ("version", "status", "errors", "restarts")
        return {flow["id"]: {"hash": flow["content_hash"], **{key: flow[key] for key in told}} for flow in flows}

    def _versions(self) -> dict[str, int | None]:
        return self._flows.remembered() if self._told is None else self._told

    def _silent(self, flow_id: str, version: int | None) -> JsonObject:
        errors, restarts = self._ear.counts(flow_id)
        return {"hash": None, "version": version, "status": "error", "errors": errors, "restarts": restarts}

    async def node_types(self) -> list[JsonObject]:
        """Those of the enabled node sets, of structure (tabs, groups, subflows), and the subflows that are there."""
        sets = await self._api.node_sets()
        found = [
            {"type": kind, "module": one.get("module"), "version": one.get("version")}
            for one in sets
            if one.get("enabled") and not one.get("err")
            for kind in one.get("types") or ()
        ]
        view = await self._flows.look()
        subflows = [f"{form.SUBFLOW}{item['id']}" for item in view.objects if item.get("type") == "subflow"]
        return [*found, *({"type": kind, "module": None} for kind in [*sorted(form.STRUCTURE), *subflows])]

    async def executions(self) -> list[JsonObject]:
        """What debug nodes showed and what errors nobody caught, newest first; Node-RED keeps no other account."""
        return self._ear.newest()

    async def flow_metrics(self) -> dict[str, JsonObject]:
        return self._ear.figures()

    async def runtime_health(self) -> JsonObject:
        try:
            await self._api.state()
        except CommandError:
            return dict(SILENT)
        return await super().runtime_health()

    async def health(self) -> JsonObject:
        try:
            told, version = await super().health(), await self._api.version()
        except CommandError as error:
            runtime = {"name": "Node-RED", **SILENT}
            return {"status": "unhealthy", "error": str(error), "version": __version__, "runtime": runtime}
        events = self._events.missing or "connected"
        return {**told, "runtime": {**told["runtime"], "name": "Node-RED", "version": version, "events": events}}

    async def gpio_state(self) -> JsonObject:
        """UNKNOWN_ACTION: Node-RED does not tell which pins its nodes hold."""
        raise CommandError(UNKNOWN_ACTION, "Node-RED does not tell the state of pins")

    # --- what changes ---

    async def deploy(self, order: Deployment) -> str:
        plan, record = _plan(order), _record(order)
        view = await self._flows.look()
        seen = view.flows.get(order.flow_id)
        if seen and not seen.managed:
            raise _hands_off(order.flow_id)
        await self._check_types(plan)
        if seen and await self._is_there(seen, order):
            await self._flows.take_over(seen, record)
            return "already_installed"
        try:
            await self._flows.install(record, plan, order.start, view)
        except CommandError as error:
            self._tell("error", record, f"was not installed: {error}")
            raise CommandError(START_FAILED, f"flow {order.flow_id} was not installed: {error}") from error
        self._tell("info", record, "installed and running" if order.start else "installed")
        return "installed"

    async def _is_there(self, seen: Seen, order: Deployment) -> bool:
        """Whether the order is already carried out."""
        if seen.hash != order.content_hash or (order.start and not seen.running):
            return False
        return not order.start or await self._flows.halted() is None

    async def _check_types(self, plan: form.Plan) -> None:
        known = {kind["type"] for kind in await self.node_types()}
        missing = sorted(plan.types - known)
        if missing:
            raise CommandError(UNSUPPORTED_NODE_TYPE, f"Node-RED lacks node types: {', '.join(missing)}")

    async def remove(self, flow_id: str) -> bool:
        seen = (await self._flows.look()).flows.get(flow_id)
        if seen is None:
            self._flows.settle(None, flow_id)
            return False
        if not seen.managed:
            raise _hands_off(flow_id)
        await self._flows.remove(flow_id)
        self._say(seen, "removed")
        return True

    async def start(self, flow_id: str) -> str:
        seen = await self._flows.find(flow_id)
        if seen.running and not await self._flows.halted():
            return "already_running"
        try:
            await self._flows.switch_on(seen)
        except CommandError as error:
            raise CommandError(START_FAILED, f"flow {flow_id} did not start: {error}") from error
        self._say(seen, "started")
        return "started"

    async def stop(self, flow_id: str) -> str:
        seen = await self._flows.find(flow_id)
        if seen.running:
            await self._flows.switch_off(seen)
            self._say(seen, "stopped")
        return "stopped"

    def _say(self, seen: Seen, what: str) -> None:
        self._hear("info", f"flow {seen.name}: {what}", {"flow_id": seen.flow_id})

    def _tell(self, level: str, record: Record, what: str) -> None:
        version = "" if record.version is None else f" v{record.version}"
        fields = {"flow_id": record.flow_id, "version": record.version}
        self._hear(level, f"flow {record.name}{version}: {what}", fields)


def _hands_off(flow_id: str) -> CommandError:
    return CommandError(INVALID_FLOW, f"{flow_id} is a tab that somebody made in Node-RED: change it there")


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
