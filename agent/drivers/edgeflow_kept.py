"""What the agent keeps beside the EdgeFlow runtime: which of its flows stands for which of the cloud, and as what."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from agent.content import content_hash
from agent.drivers.base import Deployment, JsonObject
from agent.drivers.edgeflow_flow import fingerprint, from_runtime
from agent.drivers.files import FlowFiles, damaged
from agent.drivers.installed import Installed, definition_of
from agent.runtime.definition import FlowError

log = logging.getLogger("agent.driver")

RUNNING = "running"
OF_THIS_RUN = ("error", "found", "errors_before", "actual", "readable")
GONE = "is gone from the runtime"


@dataclass
class Kept(Installed):
    """One flow of the runtime. `running`: what the cloud wants; `actual`: the runtime's word for it, None: not there.

    `owed`: the agent has stopped it for an exchange that is not over, and owes it its start. `pending`: the marks of
    flows that were to replace it. `leftovers`: flows of the runtime that it has replaced and that are still to be
    deleted. `fingerprint` is of what was sent.
    """

    runtime_id: str = ""
    owed: bool = False
    pending: list[str] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    actual: str | None = None
    readable: bool = True

    @property
    def status(self) -> str:
        """`running`, `stopped` or `error`."""
        if self.error or self.actual in (None, "error"):
            return "error"
        return RUNNING if self.actual == RUNNING else "stopped"

    @property
    def runs(self) -> bool:
        """Whether the runtime says so."""
        return self.actual == RUNNING

    @property
    def hash_now(self) -> str | None:
        """Of what is there, None when it cannot be read."""
        if self.actual is None or not self.readable:
            return None
        return self.found or self.content_hash or None

    def matches(self, order: Deployment) -> bool:
        """Whether the order is already carried out, in the runtime too."""
        return self.hash_now == order.content_hash and (self.runs or not order.start)

    def summary(self) -> JsonObject:
        """As `list_flows` tells it."""
        told = {"content_hash": self.hash_now, "installed_at": self.installed_at or None}
        return {**super().summary(), **told, "runtime_id": self.runtime_id}

    def told(self, errors: int) -> JsonObject:
        """As `Driver.running` tells it."""
        told = {"hash": self.hash_now, "version": self.version, "status": self.status}
        return {**told, "errors": errors, "restarts": self.restarts}

    def see(self, flow: JsonObject | None) -> None:
        """Take note of what the runtime has of this flow."""
        self.actual = str(flow.get("status") or "stopped") if flow else None
        if flow is None:
            self.error, self.found, self.readable = GONE, None, True
            return
        self.error = None if self.error == GONE or self.runs else self.error
        if self.fingerprint is not None and fingerprint(flow) == self.fingerprint:
            self.found, self.readable = None, True
        else:
            self.found = hash_of(flow, self.flow)
            self.readable = self.found is not None


def hash_of(flow: JsonObject, deployed: JsonObject | None = None) -> str | None:
    """The content hash of a flow of the runtime, None when it makes no definition."""
    try:
        return content_hash(definition_in(flow, deployed))
    except FlowError:
        return None


def definition_in(flow: JsonObject, deployed: JsonObject | None = None) -> JsonObject:
    """The definition of a flow of the runtime; raises FlowError. The runtime does not keep a flow's `config`."""
    found = from_runtime(flow)
    config = definition_of(deployed).get("config") if deployed else None
    return found if config is None else {"config": config, **found}


def stranger(flow_id: str, flow: JsonObject) -> Kept:
    """A flow of the runtime that the agent keeps nothing of: made there, or by an agent whose folder was lost."""
    content: JsonObject = {"name": flow["name"]} if isinstance(flow.get("name"), str) and flow["name"] else {}
    with contextlib.suppress(FlowError):  # what cannot be read is listed all the same
        content |= definition_in(flow)
    running = flow.get("status") == RUNNING
    found = Kept(flow_id, None, "", content, running, installed_at="", runtime_id=str(flow["id"]))
    found.see(flow)
    return found


class KeptFlows:
    """One file per flow."""

    def __init__(self, folder: Path) -> None:
        self._files = FlowFiles(folder)

    def read(self) -> Iterator[Kept]:
        """All of them; damaged ones are left alone."""
        for name, content in self._files.read():
            try:
                yield Kept(**content)
            except TypeError as error:
                damaged(name, error)

    def write(self, kept: Kept) -> None:
        """Replace one; raises OSError."""
        content = {key: value for key, value in asdict(kept).items() if key not in OF_THIS_RUN}
        self._files.write(kept.flow_id, content)

    def delete(self, flow_id: str) -> None:
        """Forget one; raises OSError."""
        self._files.delete(flow_id)
