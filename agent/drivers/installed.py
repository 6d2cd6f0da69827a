"""A driver that keeps its flows itself: the atomic exchange of one flow for another, whatever runs them."""

import logging
from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Any

from agent.content import parts_of
from agent.drivers.base import Deployment, Driver, JsonObject
from agent.protocol import FLOW_NOT_FOUND, INTERNAL_ERROR, START_FAILED, CommandError, now

flow_log = logging.getLogger("agent.flow")
"""What is said here is told to the cloud as the flow's own, by `_tell`, and not once more as the agent's."""


@dataclass
class Installed:
    """One flow on this device."""

    flow_id: str
    version: int | None
    content_hash: str
    flow: JsonObject
    running: bool
    installed_at: str = field(default_factory=now)
    error: str | None = None
    restarts: int = 0
    fingerprint: str | None = None
    """The hash of the definition as it was installed, kept on disk so that a later change by another hand shows."""
    found: str | None = None
    """The hash of the definition that is there instead; None: what was installed is."""
    errors_before: int = 0
    """What the flow's counter of errors stood at when this was installed."""

    @classmethod
    def of(cls, order: Deployment) -> "Installed":
        """What an order asks for."""
        return cls(order.flow_id, order.version, order.content_hash, order.flow, order.start)

    def matches(self, order: Deployment) -> bool:
        """Whether the order is already carried out."""
        same = self.content_hash == order.content_hash and self.found is None
        return same and (not order.start or (self.running and not self.error))

    @property
    def status(self) -> str:
        """`running`, `stopped` or `error`."""
        return "error" if self.error else "running" if self.running else "stopped"

    def summary(self) -> JsonObject:
        """As `list_flows` tells it."""
        return {
            "id": self.flow_id,
            "name": str(self.flow.get("name") or self.flow_id),
            "status": self.status,
            "version": self.version,
            "content_hash": self.content_hash,
            "node_count": len(definition_of(self.flow).get("nodes") or ()),
            "installed_at": self.installed_at,
            "error": self.error,
        }


def definition_of(flow: JsonObject) -> JsonObject:
    """The definition in a flow, which may be the flow itself or stand under `definition`."""
    inner = flow.get("definition")
    return inner if isinstance(inner, dict) else flow


class InstalledFlows(Driver):
    """Flows by id, over five hooks that a subclass fills."""

    def __init__(self) -> None:
        super().__init__()
        self._flows: dict[str, Installed] = {}

    @abstractmethod
    def _check(self, flow: Installed) -> Any:
        """Raise CommandError when the flow could never run here; touches nothing."""

    @abstractmethod
    async def _launch(self, flow: Installed) -> None:
        """Run it; whatever it raises means that it does not run."""

    @abstractmethod
    async def _halt(self, flow: Installed) -> None:
        """Stop it, if it runs."""

    async def _relaunch(self, flow: Installed) -> None:
        """Run the old flow again after a failed exchange."""
        await self._launch(flow)

    async def _save(self, flow: Installed) -> None:
        """Make the flow survive a restart: this is the moment that commits an exchange."""

    async def _forget(self, flow_id: str) -> None:
        """Make its removal survive a restart."""

    async def list_flows(self) -> list[JsonObject]:
        return [flow.summary() for flow in self._flows.values()]

    async def get_flow(self, flow_id: str) -> JsonObject:
        flow = self._find(flow_id)
        return {**flow.summary(), "definition": parts_of(definition_of(flow.flow))}

    async def running(self) -> dict[str, JsonObject]:
        return {
            flow_id: {
                "hash": flow.found or flow.content_hash,
                "version": flow.version,
                "status": flow.status,
                "errors": max(0, self._errors(flow_id) - flow.errors_before),
                "restarts": flow.restarts,
            }
            for flow_id, flow in self._flows.items()
        }

    def _errors(self, flow_id: str) -> int:
        """How often a flow of this id has failed since the agent was started."""
        return 0

    async def deploy(self, order: Deployment) -> str:
        old = self._flows.get(order.flow_id)
        if old and old.matches(order):
            if (old.version, old.flow.get("name")) != (order.version, order.flow.get("name")):
                old.version, old.flow = order.version, {**old.flow, "name": order.flow.get("name")}
                await self._save(old)
            return "already_installed"
        new = Installed.of(order)
        self._check(new)
        await self._exchange(old, new)
        self._tell("info", new, "installed and running" if new.running else "installed")
        return "installed"

    async def _exchange(self, old: Installed | None, new: Installed) -> None:
        """Stop the old, start and store the new.

        Stored only once it runs: a power cut in between leaves the old one, which runs again at the next start.
        """
        try:
            if old and old.running:
                await self._halt(old)
            # Not sooner: until now the old one may have failed once more.
            new.errors_before = self._errors(new.flow_id)
            if new.running:
                await self._launch(new)
            await self._save(new)
        except Exception as error:
            self._tell("error", new, f"was not installed: {error}")
            await self._bring_back(old, new)
            raise CommandError(START_FAILED, f"flow {new.flow_id} was not installed: {error}") from error
        self._flows[new.flow_id] = new

    async def _bring_back(self, old: Installed | None, new: Installed) -> None:
        await self._halt(new)
        if old is None or not old.running:
            return
        try:
            await self._relaunch(old)
        except Exception as error:
            old.error = f"could not be started again: {error}"
            flow_log.exception("flow %s %s", old.flow_id, old.error)
            self._tell("error", old, old.error)

    async def remove(self, flow_id: str) -> bool:
        flow = self._flows.get(flow_id)
        if flow is None:
            return False
        await self._halt(flow)
        await self._forget(flow_id)
        del self._flows[flow_id]
        self._tell("info", flow, "removed")
        return True

    async def start(self, flow_id: str) -> str:
        flow = self._find(flow_id)
        if flow.running and not flow.error:
            return "already_running"
        try:
            await self._launch(flow)
        except Exception as error:
            self._tell("error", flow, f"did not start: {error}")
            raise CommandError(START_FAILED, f"flow {flow_id} did not start: {error}") from error
        await self._set_running(flow, True)
        self._tell("info", flow, "started")
        return "started"

    async def stop(self, flow_id: str) -> str:
        flow = self._find(flow_id)
        await self._halt(flow)
        was_running = flow.running
        await self._set_running(flow, False)
        if was_running:
            self._tell("info", flow, "stopped")
        return "stopped"

    async def _set_running(self, flow: Installed, running: bool) -> None:
        flow.running, flow.error = running, None
        try:
            await self._save(flow)
        except OSError as error:
            raise CommandError(INTERNAL_ERROR, f"flow {flow.flow_id} cannot be stored: {error}") from error

    def _tell(self, level: str, flow: Installed, what: str) -> None:
        """Let whoever listens know what became of a flow."""
        summary = flow.summary()
        version = "" if flow.version is None else f" v{flow.version}"
        fields = {"flow_id": flow.flow_id, "version": flow.version}
        self._hear(level, f"flow {summary['name']}{version}: {what}", fields)

    def _find(self, flow_id: str) -> Installed:
        if flow_id not in self._flows:
            raise CommandError(FLOW_NOT_FOUND, f"flow not found: {flow_id}")
        return self._flows[flow_id]
