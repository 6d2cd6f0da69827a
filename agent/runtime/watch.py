"""What a flow does and says: counted, and told to the agent's log and to whoever listens, at a bearable rate."""

import logging
import time
from collections.abc import Callable
from typing import Any

log = logging.getLogger("agent.flow")

LINES_A_SECOND = 50
Hear = Callable[[str, str, dict[str, Any]], None]
"""Called with level, message, fields."""


def nobody(level: str, message: str, fields: dict[str, Any]) -> None:
    """A listener that does not care."""


class FlowWatch:
    """One flow's counters and voice; it outlives the engines that run the flow one after the other.

    A debug node may print a thousand lines a second: beyond `limit` they are counted, and the number is told once the
    second is over.
    """

    def __init__(self, flow_id: str, hear: Hear = nobody, limit: int = LINES_A_SECOND) -> None:
        self.flow_id, self._hear, self._limit = flow_id, hear, limit
        self.errors = 0
        self._executions = self._errors = 0
        self._second = self._said = self._left_out = 0

    def executed(self) -> None:
        """An execution has begun."""
        self._executions += 1

    def failed(self, node: str, error: Exception) -> None:
        """A node could not deal with a message."""
        self.errors += 1
        self._errors += 1
        self.say("warning", f"node {node}: {error}", node=node)

    def shown(self, node: str, text: str) -> None:
        """A debug node shows a value."""
        self.say("info", f"{node}: {text}", node=node)

    def say(self, level: str, text: str, **fields: Any) -> None:
        """One line, or one more that is left out."""
        self._turn()
        if self._said < self._limit:
            self._said += 1
            self._tell(level, text, fields)
        else:
            self._left_out += 1

    def take(self) -> dict[str, int]:
        """`{"executions", "errors"}` since the last call."""
        self._turn()
        counts = {"executions": self._executions, "errors": self._errors}
        self._executions = self._errors = 0
        return counts

    def _turn(self) -> None:
        """Begin a new second, if it is one."""
        second = int(time.monotonic())
        if second == self._second:
            return
        self._second, self._said = second, 0
        if self._left_out:
            left_out, self._left_out = self._left_out, 0
            text = f"{left_out} more lines were left out: at most {self._limit} a second are kept"
            self._tell("warning", text, {"left_out": left_out})

    def _tell(self, level: str, text: str, fields: dict[str, Any]) -> None:
        log.log(logging.WARNING if level in ("warning", "error") else logging.INFO, "flow %s · %s", self.flow_id, text)
        self._hear(level, text, {"flow_id": self.flow_id, **fields})
