"""One running flow: a queue of messages, one worker that carries them from node to node."""

import asyncio
import copy
from collections import deque
from dataclasses import dataclass
from typing import Any

from agent.runtime.definition import FlowError, Graph, NodeSpec
from agent.runtime.executions import Execution, History
from agent.runtime.nodes import TYPES, Message, Node, shown
from agent.runtime.watch import FlowWatch

MAX_QUEUE = 10_000
MAX_HOPS = 1_000
BATCH = 100


@dataclass(slots=True)
class Parcel:
    """A message on its way to a node."""

    target: str
    message: Message
    execution: Execution
    hops: int


class UnsupportedNodeType(FlowError):
    """The flow needs a node type that this runtime has not."""


class FlowEngine:
    """A flow's nodes and wires at work. Building it checks everything and starts nothing; raises FlowError."""

    def __init__(self, flow_id: str, graph: Graph, history: History, watch: FlowWatch | None = None) -> None:
        missing = sorted(graph.types() - TYPES.keys())
        if missing:
            raise UnsupportedNodeType("nodes", f"unsupported node types: {', '.join(missing)}")
        self.flow_id, self._graph, self._history = flow_id, graph, history
        self.watch = watch or FlowWatch(flow_id)
        self.errors = self.dropped = 0
        self.shown: deque[str] = deque(maxlen=50)
        self._queue: deque[Parcel] = deque()
        self._ready = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._timers: dict[asyncio.TimerHandle, Parcel] = {}
        self._nodes: dict[str, Node] = {spec.id: TYPES[spec.type](spec, self) for spec in graph.nodes.values()}

    async def start(self) -> None:
        """Start every node; raises what a node raises, and then nothing is left running."""
        self._worker = asyncio.create_task(self._work(), name=f"flow {self.flow_id}")
        try:
            for node in self._nodes.values():
                await node.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop every node and forget what is under way."""
        for node in self._nodes.values():
            await node.stop()
        if self._worker:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
        waiting = list(self._timers.values())
        for timer in self._timers:
            timer.cancel()
        for parcel in [*waiting, *self._queue]:
            parcel.execution.error = parcel.execution.error or "the flow was stopped"
            parcel.execution.end()
        self._timers.clear()
        self._queue.clear()

    def inject(self, node_id: str, message: Message) -> None:
        """Start an execution with `message` leaving `node_id`."""
        self.watch.executed()
        execution = self._history.start(self.flow_id, node_id)
        execution.begin()
        try:
            self._route(node_id, [(0, message)], execution, hops=0)
        except RuntimeError as error:
            self._failed(execution, node_id, error)
        execution.end()

    def debug(self, node: NodeSpec, value: Any) -> None:
        """Show a value in the log."""
        text = shown(value)
        self.shown.append(text)
        self.watch.shown(node.name, text)

    def failed(self, node: NodeSpec, error: Exception) -> None:
        """Count and tell what a node could not do by itself."""
        self.errors += 1
        self.watch.failed(node.name, error)

    async def _work(self) -> None:
        while True:
            await self._ready.wait()
            self._ready.clear()
            done = 0
            while self._queue:
                self._deliver(self._queue.popleft())
                done += 1
                if done % BATCH == 0:
                    # A flow that feeds itself must not keep the tunnel from its heartbeat.
                    await asyncio.sleep(0)

    def _deliver(self, parcel: Parcel) -> None:
        try:
            outputs = self._nodes[parcel.target].receive(parcel.message)
            self._route(parcel.target, outputs, parcel.execution, parcel.hops + 1)
        except Exception as error:  # a node's failure is the flow's own: the agent and other flows go on
            self._failed(parcel.execution, parcel.target, error)
        parcel.execution.end()

    def _failed(self, execution: Execution, node_id: str, error: Exception) -> None:
        execution.error = str(error)
        self.failed(self._nodes[node_id].spec, error)

    def _route(self, source: str, outputs: list[tuple[int, Message]], execution: Execution, hops: int) -> None:
        wires = self._graph.wires.get(source, {})
        routes = [(target, message) for port, message in outputs for target in wires.get(port, ())]
        for index, (target, message) in enumerate(routes):
            # The last one may have the message itself; the others must not see its changes.
            own = message if index == len(routes) - 1 else copy.deepcopy(message)
            self._send(Parcel(target, own, execution, hops))

    def _send(self, parcel: Parcel) -> None:
        if parcel.hops > MAX_HOPS:
            raise RuntimeError(f"a message went through {MAX_HOPS} nodes: the wires form a circle")
        if len(self._queue) + len(self._timers) >= MAX_QUEUE:
            self.dropped += 1
            raise RuntimeError(f"more than {MAX_QUEUE} messages are waiting")
        parcel.execution.begin()
        delay = self._nodes[parcel.target].delay()
        if delay > 0:
            self._send_later(parcel, delay)
            return
        self._queue.append(parcel)
        self._ready.set()

    def _send_later(self, parcel: Parcel, delay: float) -> None:
        def arrive() -> None:
            del self._timers[timer]
            # Waiting breaks a circle's haste, so its hops start anew.
            self._queue.append(Parcel(parcel.target, parcel.message, parcel.execution, 0))
            self._ready.set()

        timer = asyncio.get_running_loop().call_later(delay, arrive)
        self._timers[timer] = parcel
