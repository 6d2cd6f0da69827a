"""What becomes of the flows in Node-RED, gathered from the debug messages and errors that it tells."""

import asyncio
import uuid
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from agent.drivers.base import JsonObject
from agent.drivers.nodered_events import ERROR_LEVEL, text_of
from agent.drivers.nodered_format import Plan
from agent.drivers.nodered_view import View
from agent.protocol import now
from agent.runtime.watch import FlowWatch, Hear

HISTORY = 200


@dataclass
class Trial:
    """A deployment that has yet to prove itself: `ids` are its objects; `begun` once the old ones are no more.

    `written`: ids as the author wrote them.
    """

    flow_id: str
    ids: set[str]
    written: dict[str, str] = field(default_factory=dict)
    begun: bool = False
    failed: asyncio.Event = field(default_factory=asyncio.Event)
    error: str = ""

    def threw(self, text: str) -> None:
        """One of its nodes threw an error; what an old one of the same id says before its end is not the new one's."""
        if self.begun and not self.failed.is_set():
            self.error = text
            self.failed.set()


@dataclass
class Tally:
    """What became of a flow since it was installed, or since the agent started."""

    watch: FlowWatch
    drops: int
    errors: int = 0


class Ear:
    """Hears Node-RED's debug messages and errors, for the flows that are known."""

    def __init__(self, hear: Hear, drops: Callable[[], int]) -> None:
        """`drops`: how often Node-RED has ended since the agent began."""
        self.hear, self._drops = hear, drops
        self.trial: Trial | None = None
        self._tallies: dict[str, Tally] = {}
        self._homes: dict[str, str] = {}
        self._written: dict[str, str] = {}
        self._history: deque[JsonObject] = deque(maxlen=HISTORY)

    def know(self, view: View) -> None:
        """These flows are there, and no others."""
        seen = view.flows.values()
        self._homes = {item["id"]: flow.flow_id for flow in seen for item in flow.objects}
        self._written = {known: node for flow in seen if flow.plan for known, node in flow.plan.names.inward.items()}
        self._tallies = {flow_id: self._tally(flow_id) for flow_id in view.flows}

    def installed(self, plan: Plan) -> None:
        """A flow was exchanged: count anew."""
        self._homes.update(dict.fromkeys(plan.by_id, plan.flow_id))
        self._written.update(plan.names.inward)
        self._begin(plan.flow_id)

    def _begin(self, flow_id: str) -> None:
        self._tallies[flow_id] = Tally(FlowWatch(flow_id, self.hear), self._drops())

    def forget(self, flow_id: str) -> None:
        """A flow is no more."""
        self._tallies.pop(flow_id, None)

    def counts(self, flow_id: str) -> tuple[int, int]:
        """Errors that nobody caught, and restarts of Node-RED, since the flow was installed."""
        tally = self._tally(flow_id)
        return tally.errors, self._drops() - tally.drops

    def figures(self) -> dict[str, JsonObject]:
        """Per flow since the last call: `{"debug_messages", "errors"}`."""
        taken = {flow_id: tally.watch.take() for flow_id, tally in self._tallies.items()}
        return {
            flow_id: {"debug_messages": counts["executions"], "errors": counts["errors"]}
            for flow_id, counts in taken.items()
        }

    def newest(self, limit: int = 50) -> list[JsonObject]:
        """What was heard last, as executions, newest first."""
        return list(self._history)[: -limit - 1 : -1]

    def stopped(self) -> None:
        """A deployment has ended the old nodes."""
        if self.trial:
            self.trial.begun = True

    def heard(self, data: JsonObject) -> None:
        """A debug message, or an error or warning that nobody caught.

        `path` leads from the tab over instances of subflows; `id` is then of a node that exists in the instance only.
        """
        node, home = str(data.get("id", "")), str(data.get("path") or data.get("z") or "").split("/")[0]
        trial = self.trial if self.trial and {node, home} & self.trial.ids else None
        flow_id = trial.flow_id if trial else self._homes.get(node) or self._homes.get(home)
        written = trial.written if trial else self._written
        text, called = text_of(data), str(data.get("name") or written.get(node) or data.get("type") or node)
        if trial and data.get("level") == ERROR_LEVEL:
            trial.threw(f"node {called}: {text}")
        if flow_id is not None:
            self._count(flow_id, data.get("level"), called, text, tried=trial is not None)

    def _count(self, flow_id: str, level: int | None, called: str, text: str, tried: bool) -> None:
        tally = self._tally(flow_id)
        if level == ERROR_LEVEL:
            tally.errors += not tried  # it fails the deployment, and is none of what runs afterwards
            tally.watch.failed(called, RuntimeError(text))
        elif level is not None:
            tally.watch.say("warning", f"node {called}: {text}", node=called)
            return
        else:
            tally.watch.executed()
            tally.watch.shown(called, text)
        self._remember(flow_id, called, text if level else None)

    def _tally(self, flow_id: str) -> Tally:
        if flow_id not in self._tallies:
            self._begin(flow_id)
        return self._tallies[flow_id]

    def _remember(self, flow_id: str, trigger: str, error: str | None) -> None:
        at = now()
        self._history.append(
            {
                "id": str(uuid.uuid4()),
                "flow_id": flow_id,
                "trigger": trigger,
                "status": "failed" if error else "succeeded",
                "started_at": at,
                "finished_at": at,
                "messages": 1,
                "error": error,
            }
        )
