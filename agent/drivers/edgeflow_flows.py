"""The EdgeFlow runtime's flows as the agent keeps them: made, exchanged, started again, swept.

A deployment makes a new flow beside the old one, so that the old stays whole until the new one runs: stop the old,
start the new, commit by one file, delete the old. Whatever fails before the commit, or cuts the power, leaves the old
one, which is started again. The runtime chooses its flows' ids, so the agent keeps which stands for which.
"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable

from agent.drivers.base import Deployment, JsonObject
from agent.drivers.edgeflow_api import EdgeFlowApi, Refusal, Unavailable
from agent.drivers.edgeflow_flow import description_of, fingerprint, owner_of
from agent.drivers.edgeflow_kept import RUNNING, Kept, KeptFlows, stranger
from agent.protocol import FLOW_NOT_FOUND, INTERNAL_ERROR, START_FAILED, CommandError

log = logging.getLogger("agent.driver")

Flows = dict[str, JsonObject]
"""The runtime's flows by its own ids."""
Tell = Callable[[str, Kept, str], None]
"""Called with level, flow and what became of it."""


class EdgeFlowFlows:
    """`kept` by the cloud's ids. Whatever changes something is called by one at a time."""

    def __init__(self, api: EdgeFlowApi, files: KeptFlows, tell: Tell) -> None:
        self._api, self._files, self._tell = api, files, tell
        self.kept: dict[str, Kept] = {}
        self._making: set[str] = set()
        """Marks of flows that are not kept yet."""

    def read(self) -> None:
        """Take up what is on disk."""
        self.kept = {kept.flow_id: kept for kept in self._files.read()}

    async def look(self) -> Flows:
        """The runtime's flows, and note what of them is kept."""
        flows = await self._api.flows()
        for kept in self.kept.values():
            kept.see(flows.get(kept.runtime_id))
        return flows

    def strangers(self, flows: Flows) -> list[Kept]:
        """Flows that were made at the runtime, or by an agent whose folder was lost, which tell the cloud's ids."""
        known = {runtime_id for kept in self.kept.values() for runtime_id in (kept.runtime_id, *kept.leftovers)}
        known |= {runtime_id for runtime_id, flow in flows.items() if flow.get("description") in self._making}
        found = {}
        for runtime_id, flow in flows.items():
            if runtime_id not in known:
                owner = owner_of(flow)
                flow_id = runtime_id if owner is None or owner in self.kept or owner in found else owner
                found[flow_id] = stranger(flow_id, flow)
        return list(found.values())

    def known(self, flow_id: str, flows: Flows) -> Kept | None:
        """A flow by the cloud's id, or the runtime's."""
        return self.kept.get(flow_id) or next((one for one in self.strangers(flows) if one.flow_id == flow_id), None)

    def find(self, flow_id: str, flows: Flows) -> Kept:
        """A flow that the runtime has; raises CommandError FLOW_NOT_FOUND."""
        found = self.known(flow_id, flows)
        if found is None or found.actual is None:
            gone = "" if found is None else ": it is gone from the runtime"
            raise CommandError(FLOW_NOT_FOUND, f"flow not found: {flow_id}{gone}")
        return found

    # The exchange

    async def install(self, old: Kept | None, order: Deployment, body: JsonObject) -> Kept:
        """The order's flow in place of the old one, or the old one as it was and a CommandError."""
        mark = description_of(order.flow_id, uuid.uuid4().hex)
        self._making.add(mark)
        try:
            new = await self._make(old, order, body, mark)
            await self._exchange(old, new)
        finally:
            self._making.discard(mark)
        await self._sweep(new)
        return new

    async def _make(self, old: Kept | None, order: Deployment, body: JsonObject, mark: str) -> Kept:
        """A flow in the runtime with the order's content, verified, not started."""
        name = str(order.flow.get("name") or order.flow_id)[:200]
        new = Kept(order.flow_id, order.version, order.content_hash, order.flow, order.start)
        new.fingerprint = fingerprint(body)
        try:
            if old:
                old.pending.append(mark)
                await self._save_kept(old)
            new.runtime_id = await self._create(name, mark)
            await self._fill(new, {"name": name, "description": mark, **body})
        except CommandError as error:
            await self._discard(old, new, mark)
            code = error.code if isinstance(error, Unavailable) else START_FAILED
            raise CommandError(code, f"flow {order.flow_id} was not installed: {error}") from error
        return new

    async def _create(self, name: str, mark: str) -> str:
        try:
            return await self._api.create(name, mark)
        except Unavailable as error:
            if not error.reached:
                raise
        # The answer was lost; the mark tells whether the flow is there.
        for runtime_id, flow in (await self._api.flows()).items():
            if flow.get("description") == mark:
                return runtime_id
        return await self._api.create(name, mark)

    async def _fill(self, new: Kept, body: JsonObject) -> None:
        """Store the content and read it back: the runtime answers 200 also when it has stored only a part."""
        for _ in range(2):
            await self._api.update(new.runtime_id, body)
            # A flow once created stays in the runtime's memory, empty, until it is stopped.
            await self._api.stop(new.runtime_id)
            new.see(await self._api.flow(new.runtime_id))
            if new.actual is not None and new.found is None and new.readable:
                return
        raise CommandError(START_FAILED, "the runtime did not store the flow as it was sent")

    async def _exchange(self, old: Kept | None, new: Kept) -> None:
        stopped = old if old and old.runs else None
        mark = old.pending[-1] if old and old.pending else ""
        try:
            if stopped:
                await self._owe(stopped)
                await self.halt(stopped)
            if new.running:
                await self.launch(new)
            new.leftovers = [old.runtime_id, *old.leftovers] if old else []
            await self.save(new)
        except Exception as error:
            self._tell("error", new, f"was not installed: {error}")
            await self._discard(old, new, mark)
            if stopped:
                await self._resume(stopped)
            raise CommandError(START_FAILED, f"flow {new.flow_id} was not installed: {error}") from error
        self.kept[new.flow_id] = new

    async def _owe(self, old: Kept) -> None:
        """Note on disk that it has to run again, before it is stopped."""
        old.owed = old.running = True
        await self._save_kept(old)

    async def _resume(self, old: Kept) -> None:
        try:
            await self.launch(old)
        except CommandError as error:
            # Still owed: it is tried again as soon as the runtime answers.
            old.error = f"could not be started again: {error}"
            log.error("flow %s %s", old.flow_id, old.error)
            self._tell("error", old, old.error)
            return
        old.error = None
        await self._settle(old)

    async def _discard(self, old: Kept | None, new: Kept, mark: str) -> None:
        """Take back a flow that is not to be; if the runtime does not answer, `mend` does it another time."""
        try:
            if new.runtime_id:
                await self._delete(new.runtime_id)
            if old and mark in old.pending:
                old.pending.remove(mark)
                await self._save_kept(old)
        except CommandError as error:
            log.warning("flow %s: a part of its exchange is not deleted yet: %s", new.flow_id, error)

    async def _delete(self, runtime_id: str) -> None:
        with contextlib.suppress(Refusal):  # of stopping: deleting stops too, and whether it is gone is looked at
            await self._api.stop(runtime_id)
        await self._api.delete(runtime_id)

    # One flow

    async def launch(self, flow: Kept) -> None:
        """Start it and see that it runs; raises Unavailable, or Refusal when it does not."""
        said = "the runtime says that it was started, and that it does not run"
        try:
            await self._api.start(flow.runtime_id)
        except Unavailable as error:
            if not error.reached:
                raise
            said = str(error)
        except Refusal as error:
            # Among others that it runs already, which is told by text alone: the flow itself says it better.
            said = str(error)
        if not await self._runs(flow):
            raise Refusal(500, said)

    async def halt(self, flow: Kept) -> None:
        """Stop it and see that it does not run any more; raises CommandError."""
        refused: Refusal | None = None
        try:
            await self._api.stop(flow.runtime_id)
        except Refusal as error:
            refused = error
        if await self._runs(flow):
            raise refused or CommandError(INTERNAL_ERROR, f"flow {flow.flow_id} does not stop")

    async def remove(self, flow: Kept) -> None:
        """Stop and forget it, here and there; raises CommandError."""
        for runtime_id in [flow.runtime_id, *flow.leftovers]:
            await self._delete(runtime_id)
            if await self._api.flow(runtime_id):
                raise CommandError(INTERNAL_ERROR, f"the runtime did not delete flow {flow.flow_id}")
        await self._on_disk(lambda: self._files.delete(flow.flow_id))
        self.kept.pop(flow.flow_id, None)

    async def want(self, flow: Kept, running: bool) -> None:
        """Note what the cloud wants of it from now on."""
        flow.owed, flow.error = False, None
        if flow.running != running:
            flow.running = running
            await self._save_kept(flow)

    async def keep(self, flow: Kept) -> None:
        """Have it from now on."""
        await self.save(flow)
        self.kept[flow.flow_id] = flow

    async def _runs(self, flow: Kept) -> bool:
        flow.see(await self._api.flow(flow.runtime_id))
        return flow.runs

    # Keeping the runtime as it should be

    async def mend(self, flows: Flows) -> None:
        """Start what should run and does not because the runtime or the agent was restarted; delete remains."""
        for kept in list(self.kept.values()):
            await self._sweep(kept)
            await self._clear(kept, flows)
        down = [kept for kept in self.kept.values() if kept.running and kept.actual not in (None, RUNNING)]
        if not down:
            return
        started = await self._started()
        for kept in down:
            # Whoever stops a flow at the runtime leaves its execution in the history; a restart leaves nothing.
            if kept.owed or (started is not None and kept.runtime_id not in started):
                await self._start_again(kept)

    async def _started(self) -> set[str] | None:
        try:
            return {str(execution.get("flow_id")) for execution in await self._api.executions()}
        except Refusal as error:
            log.warning("the runtime's executions cannot be read: %s", error)
            return None

    async def _start_again(self, kept: Kept) -> None:
        kept.restarts += not kept.owed
        try:
            await self.launch(kept)
            kept.error = None
            self._tell("warning", kept, "was started again")
        except Refusal as error:
            kept.error = f"could not be started again: {error}"
            self._tell("error", kept, kept.error)
        # One try only: what the runtime refuses once it would refuse every 15 s.
        await self._settle(kept)

    async def _settle(self, kept: Kept) -> None:
        """Nothing is owed any more."""
        kept.owed = False
        with contextlib.suppress(CommandError):  # at worst it is started once more at the agent's next start
            await self._save_kept(kept)

    async def _clear(self, kept: Kept, flows: Flows) -> None:
        """Delete flows that were to replace it, of exchanges that broke off."""
        if not kept.pending:
            return
        for runtime_id, flow in flows.items():
            if flow.get("description") in kept.pending and runtime_id != kept.runtime_id:
                await self._delete(runtime_id)
        kept.pending.clear()
        await self.save(kept)

    async def _sweep(self, kept: Kept) -> None:
        """Delete what it has replaced; what stays is deleted another time."""
        if not kept.leftovers:
            return
        try:
            for runtime_id in list(kept.leftovers):
                await self._delete(runtime_id)
                kept.leftovers.remove(runtime_id)
            await self.save(kept)
        except CommandError as error:
            log.warning("flow %s: what it replaced is not deleted yet: %s", kept.flow_id, error)

    # On disk

    async def save(self, kept: Kept) -> None:
        """Make it outlive the agent; raises CommandError."""
        await self._on_disk(lambda: self._files.write(kept))

    async def _save_kept(self, flow: Kept) -> None:
        """Of a stranger nothing is kept."""
        if flow.flow_id in self.kept:
            await self.save(flow)

    async def _on_disk(self, work: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(work)
        except OSError as error:
            raise CommandError(INTERNAL_ERROR, f"the agent's folder cannot be written: {error}") from error
