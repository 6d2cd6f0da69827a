"""What ran: each message that a flow starts with, until nothing of it is under way any more."""

import uuid
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from agent.protocol import now


@dataclass
class Execution:
    """One run through a flow; `pending` counts its messages still on their way."""

    flow_id: str
    trigger: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    started_at: str = field(default_factory=now)
    finished_at: str | None = None
    messages: int = 0
    error: str | None = None
    pending: int = 0

    def begin(self) -> None:
        """One more message is under way."""
        self.pending += 1
        self.messages += 1

    def end(self) -> None:
        """One message has been dealt with."""
        self.pending -= 1
        if self.pending <= 0 and self.finished_at is None:
            self.finished_at = now()

    def as_dict(self) -> dict[str, Any]:
        """As `get_executions` tells it."""
        status = "running" if self.finished_at is None else "failed" if self.error else "succeeded"
        return {
            "id": self.id,
            "flow_id": self.flow_id,
            "trigger": self.trigger,
            "status": status,
            "started_at": self.started_at,
            "finished_at": self.finished_at,
            "messages": self.messages,
            "error": self.error,
        }


class History:
    """The newest executions of a device, bounded."""

    def __init__(self, limit: int = 200) -> None:
        self._executions: deque[Execution] = deque(maxlen=limit)

    def start(self, flow_id: str, trigger: str) -> Execution:
        """A new execution, kept until newer ones push it out."""
        execution = Execution(flow_id, trigger)
        self._executions.append(execution)
        return execution

    def newest(self, limit: int = 50) -> list[dict[str, Any]]:
        """Newest first."""
        return [execution.as_dict() for execution in list(self._executions)[: -limit - 1 : -1]]
