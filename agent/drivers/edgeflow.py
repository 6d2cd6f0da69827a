"""The EdgeFlow runtime, over its local REST API, as the agent drives it.

Flows that the cloud deployed are told by the cloud's ids; those that were made at the runtime by the runtime's.
"""

import asyncio
import logging

from agent.content import parts_of
from agent.drivers import edgeflow_figures as figures
from agent.drivers.base import SILENT, Deployment, Driver, JsonObject
from agent.drivers.choice import RuntimeOptions
from agent.drivers.edgeflow_api import EdgeFlowApi, Refusal, Unavailable
from agent.drivers.edgeflow_flow import fingerprint, to_runtime
from agent.drivers.edgeflow_flows import EdgeFlowFlows
from agent.drivers.edgeflow_kept import Kept, KeptFlows, definition_in
from agent.drivers.edgeflow_tally import Tally
from agent.drivers.installed import definition_of
from agent.protocol import INVALID_FLOW, START_FAILED, UNSUPPORTED_NODE_TYPE, CommandError
from agent.rest import is_local
from agent.runtime.definition import FlowError

log = logging.getLogger("agent.driver")

URL = "http://127.0.0.1:8080"
SECONDS = 8.0
"""For one answer of the runtime, which is on the same machine."""


class EdgeFlowDriver(Driver):
    """One runtime. Besides the cloud's errors each call may raise CommandError RUNTIME_UNAVAILABLE."""

    def __init__(self, runtime: RuntimeOptions, seconds: float = SECONDS) -> None:
        super().__init__()
        self.editor_url = runtime.url or URL
        self._api = EdgeFlowApi(self.editor_url, runtime.token, seconds)
        self._flows = EdgeFlowFlows(self._api, KeptFlows(runtime.state_dir / "edgeflow"), self._tell)
        self._tally = Tally()
        self._turn = asyncio.Lock()
        """Changing calls come one at a time, but a look at what runs may start flows again."""

    async def open(self) -> None:
        """Start what should run; a runtime that is not there yet is met again when what runs is looked at."""
        self._flows.read()
        try:
            async with self._turn:
                await self._flows.mend(await self._flows.look())
            await self.flow_metrics()
        except CommandError as error:
            log.warning("%s", error)

    async def close(self) -> None:
        await self._api.close()

    # Reading

    async def list_flows(self) -> list[JsonObject]:
        flows = await self._flows.look()
        return [one.summary() for one in [*self._flows.kept.values(), *self._flows.strangers(flows)]]

    async def get_flow(self, flow_id: str) -> JsonObject:
        flows = await self._flows.look()
        found = self._flows.find(flow_id, flows)
        if found.readable and found.found is None:
            return {**found.summary(), "definition": parts_of(definition_of(found.flow))}
        try:
            definition = definition_in(flows[found.runtime_id], found.flow)
        except FlowError as error:
            raise CommandError(INVALID_FLOW, f"flow {flow_id} cannot be read at the runtime: {error}") from error
        return {**found.summary(), "definition": definition}

    async def node_types(self) -> list[JsonObject]:
        return figures.catalogue(await self._api.node_types())

    async def executions(self) -> list[JsonObject]:
        kept = self._flows.kept.items()
        names = {runtime_id: flow_id for flow_id, one in kept for runtime_id in (*one.leftovers, one.runtime_id)}
        return figures.history(await self._api.executions(), names)

    async def running(self) -> dict[str, JsonObject]:
        """As the base says; a runtime that does not answer makes every flow an error whose content is not known."""
        try:
            flows = await self._flows.look()
            if not self._turn.locked():
                async with self._turn:
                    await self._flows.mend(flows)
            await self._count()
        except Unavailable:
            silent = {"hash": None, "status": "error"}
            return {flow_id: {**self._told(kept), **silent} for flow_id, kept in self._flows.kept.items()}
        return {one.flow_id: self._told(one) for one in [*self._flows.kept.values(), *self._flows.strangers(flows)]}

    async def runtime_health(self) -> JsonObject:
        try:
            await self._api.flows()
        except CommandError:
            return dict(SILENT)
        return await super().runtime_health()

    async def flow_metrics(self) -> dict[str, JsonObject]:
        await self._count()
        return {flow_id: self._tally.take(kept.runtime_id) for flow_id, kept in self._flows.kept.items()}

    async def system_metrics(self) -> JsonObject:
        """The machine's figures as the runtime has them; the agent's own, if they share it and it does not answer."""
        try:
            return figures.machine(await self._api.stats())
        except CommandError:
            if not is_local(self._api.url):
                raise
            return await super().system_metrics()

    async def gpio_state(self) -> JsonObject:
        return figures.pins(await self._api.gpio())

    # Changing

    async def deploy(self, order: Deployment) -> str:
        async with self._turn:
            flows = await self._flows.look()
            await self._flows.mend(flows)
            old = self._flows.known(order.flow_id, flows)
            body = _converted(order.flow)
            if old and old.matches(order):
                await self._take_over(old, order, body)
                return "already_installed"
            await self._check_types(body)
            new = await self._flows.install(old, order, body)
        self._tell("info", new, "installed and running" if new.running else "installed")
        return "installed"

    async def remove(self, flow_id: str) -> bool:
        async with self._turn:
            found = self._flows.known(flow_id, await self._flows.look())
            if found is None:
                return False
            await self._flows.remove(found)
            self._tally.forget(found.runtime_id)
        self._tell("info", found, "removed")
        return True

    async def start(self, flow_id: str) -> str:
        async with self._turn:
            found = self._flows.find(flow_id, await self._flows.look())
            ran = found.runs
            if not ran:
                try:
                    await self._flows.launch(found)
                except Refusal as error:
                    self._tell("error", found, f"did not start: {error}")
                    raise CommandError(START_FAILED, f"flow {flow_id} did not start: {error}") from error
            await self._flows.want(found, True)
        if ran:
            return "already_running"
        self._tell("info", found, "started")
        return "started"

    async def stop(self, flow_id: str) -> str:
        async with self._turn:
            found = self._flows.find(flow_id, await self._flows.look())
            ran = found.runs
            await self._flows.halt(found)
            await self._flows.want(found, False)
        if ran:
            self._tell("info", found, "stopped")
        return "stopped"

    async def _check_types(self, body: JsonObject) -> None:
        """The runtime itself would start the flow without the nodes that it does not know."""
        known = {str(kind.get("type")) for kind in await self._api.node_types()}
        missing = sorted({str(node["type"]) for node in body["nodes"]} - known)
        if missing:
            raise CommandError(UNSUPPORTED_NODE_TYPE, f"unsupported node types: {', '.join(missing)}")

    async def _take_over(self, found: Kept, order: Deployment, body: JsonObject) -> None:
        """What was ordered is there already: have it as that."""
        before, name = (found.version, found.running, found.content_hash, found.fingerprint), found.flow.get("name")
        found.version, found.running = order.version, found.running or order.start
        found.content_hash, found.fingerprint, found.found = order.content_hash, fingerprint(body), None
        now = (found.version, found.running, found.content_hash, found.fingerprint)
        if (before, name) != (now, order.flow.get("name")):
            found.flow = order.flow
            await self._flows.keep(found)

    async def _count(self) -> None:
        """A history that cannot be read costs counts, and nothing else."""
        try:
            self._tally.count(await self._api.executions())
        except Refusal as error:
            log.warning("the runtime's executions cannot be read: %s", error)

    def _told(self, one: Kept) -> JsonObject:
        return one.told(self._tally.errors[one.runtime_id])

    def _tell(self, level: str, flow: Kept, what: str) -> None:
        """Let whoever listens know what became of a flow."""
        version = "" if flow.version is None else f" v{flow.version}"
        name = flow.flow.get("name") or flow.flow_id
        self._hear(level, f"flow {name}{version}: {what}", {"flow_id": flow.flow_id, "version": flow.version})


def _converted(flow: JsonObject) -> JsonObject:
    try:
        return to_runtime(flow)
    except FlowError as error:
        raise CommandError(INVALID_FLOW, str(error)) from error
