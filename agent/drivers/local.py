"""The agent's own runtime as a driver: flows in memory, each in a file that is replaced atomically."""

import asyncio
import logging
from dataclasses import asdict
from pathlib import Path

from agent.content import content_hash
from agent.drivers.base import JsonObject
from agent.drivers.files import FlowFiles, damaged
from agent.drivers.installed import Installed, InstalledFlows, definition_of, flow_log
from agent.protocol import INVALID_FLOW, UNSUPPORTED_NODE_TYPE, CommandError
from agent.runtime import nodes
from agent.runtime.definition import FlowError, parse
from agent.runtime.engine import FlowEngine, UnsupportedNodeType
from agent.runtime.executions import History
from agent.runtime.watch import FlowWatch

log = logging.getLogger("agent.driver")

OF_THIS_RUN = ("error", "found", "errors_before")
"""What of a flow is not kept on disk."""


class LocalDriver(InstalledFlows):
    """Flows run in this process; `folder` holds one file per flow and outlives it."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._files = FlowFiles(folder)
        self._history = History()
        self._engines: dict[str, FlowEngine] = {}
        self._watches: dict[str, FlowWatch] = {}

    async def open(self) -> None:
        """Read all flows and start those that ran; one that fails keeps no other from running."""
        for name, kept in self._files.read():
            flow = _flow_of(name, kept)
            if flow:
                self._flows[flow.flow_id] = flow
        for flow in self._flows.values():
            if flow.running:
                await self._restart(flow)

    async def close(self) -> None:
        for engine in self._engines.values():
            await engine.stop()
        self._engines.clear()

    async def node_types(self) -> list[JsonObject]:
        return nodes.catalogue()

    async def executions(self) -> list[JsonObject]:
        return self._history.newest()

    async def flow_metrics(self) -> dict[str, JsonObject]:
        return {flow_id: watch.take() for flow_id, watch in self._watches.items()}

    def _errors(self, flow_id: str) -> int:
        watch = self._watches.get(flow_id)
        return watch.errors if watch else 0

    def debug_lines(self, flow_id: str) -> list[str]:
        """What the flow's debug nodes showed last."""
        return list(self._engines[flow_id].shown) if flow_id in self._engines else []

    async def _restart(self, flow: Installed) -> None:
        flow.restarts += 1
        try:
            await self._launch(flow)
        except Exception as error:
            flow.error = str(error)
            flow_log.error("flow %s did not start: %s", flow.flow_id, error)
            self._tell("error", flow, f"did not start: {error}")
        try:
            await self._save(flow)
        except OSError as error:
            log.error("flow %s: its restarts cannot be stored: %s", flow.flow_id, error)

    def _check(self, flow: Installed) -> FlowEngine:
        try:
            graph = parse(definition_of(flow.flow))
            return FlowEngine(flow.flow_id, graph, self._history, self._watch(flow.flow_id))
        except UnsupportedNodeType as error:
            raise CommandError(UNSUPPORTED_NODE_TYPE, str(error)) from error
        except FlowError as error:
            raise CommandError(INVALID_FLOW, str(error)) from error

    def _watch(self, flow_id: str) -> FlowWatch:
        # Bound late: whoever listens may come after the flow.
        return self._watches.get(flow_id) or FlowWatch(flow_id, lambda *said: self._hear(*said))

    async def _launch(self, flow: Installed) -> None:
        engine = self._check(flow)
        self._watches[flow.flow_id] = engine.watch
        await engine.start()
        self._engines[flow.flow_id] = engine
        log.info("flow %s (%s) is running", flow.flow_id, flow.summary()["name"])

    async def _halt(self, flow: Installed) -> None:
        engine = self._engines.pop(flow.flow_id, None)
        if engine:
            await engine.stop()

    async def _save(self, flow: Installed) -> None:
        if flow.fingerprint is None:
            flow.fingerprint = content_hash(definition_of(flow.flow))
        kept = {key: value for key, value in asdict(flow).items() if key not in OF_THIS_RUN}
        await asyncio.to_thread(self._files.write, flow.flow_id, kept)

    async def _forget(self, flow_id: str) -> None:
        await asyncio.to_thread(self._files.delete, flow_id)
        self._watches.pop(flow_id, None)


def _flow_of(name: str, kept: JsonObject) -> Installed | None:
    try:
        flow = Installed(**kept)
    except TypeError as error:
        damaged(name, error)
        return None
    now = content_hash(definition_of(flow.flow))
    if flow.fingerprint is not None and now != flow.fingerprint:
        log.warning("%s was changed by another hand", name)
        flow.found = now
    return flow
