"""Errors and node executions per flow, counted from the runtime's history of executions."""

from collections import Counter, defaultdict

from agent.drivers.base import JsonObject


class Tally:
    """Sums over a history that the runtime cuts at a hundred starts and loses when it restarts: both add nothing."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.nodes: Counter[str] = Counter()
        self.starts: Counter[str] = Counter()
        self._seen: dict[str, tuple[int, int]] = {}
        self._told: defaultdict[str, tuple[int, int, int]] = defaultdict(lambda: (0, 0, 0))

    def count(self, executions: list[JsonObject]) -> None:
        """Add what the history has more than the last time, by the runtime's ids of the flows."""
        present = {}
        for execution in executions:
            flow_id, number = str(execution.get("flow_id")), str(execution.get("id"))
            failed = execution.get("status") == "failed"
            errors = _whole(execution.get("error_nodes")) + failed
            nodes = _whole(execution.get("completed_nodes")) + _whole(execution.get("error_nodes"))
            before = self._seen.get(number)
            self.starts[flow_id] += before is None
            old_errors, old_nodes = before or (0, 0)
            self.errors[flow_id] += max(0, errors - old_errors)
            self.nodes[flow_id] += max(0, nodes - old_nodes)
            present[number] = (errors, nodes)
        self._seen = present

    def take(self, flow_id: str) -> JsonObject:
        """`{"executions", "node_executions", "errors"}` of a flow since the last call."""
        now = self.starts[flow_id], self.nodes[flow_id], self.errors[flow_id]
        before, self._told[flow_id] = self._told[flow_id], now
        names = ("executions", "node_executions", "errors")
        return {name: new - old for name, new, old in zip(names, now, before, strict=True)}

    def forget(self, flow_id: str) -> None:
        """The flow is gone."""
        for counter in (self.errors, self.nodes, self.starts, self._told):
            counter.pop(flow_id, None)


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
