"""What was deployed to Node-RED, kept beside it: the definitions as the cloud wrote them."""

import hashlib
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agent import storage
from agent.drivers.nodered_format import Plan, plan
from agent.protocol import now
from agent.runtime.definition import FlowError

log = logging.getLogger("agent.driver")


@dataclass(frozen=True)
class Record:
    """One deployed flow."""

    flow_id: str
    version: int | None
    content_hash: str
    name: str
    definition: dict[str, Any]
    installed_at: str = field(default_factory=now)

    def plan(self) -> Plan | None:
        """As Node-RED has it; None when an older agent accepted what this one does not."""
        try:
            return plan(self.flow_id, self.name, self.definition)
        except FlowError as error:
            log.error("flow %s as it was deployed is not understood: %s", self.flow_id, error)
            return None


class Records:
    """Per flow the deployed one and the one that is being tried, a file each.

    Which of them Node-RED has, after the agent was cut off in between, the mark on the flow's tab tells.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kept: dict[str, dict[str, Record | None]] = {}
        self._plans: dict[tuple[str, str], Plan | None] = {}
        for path in sorted(folder.glob("*.json")):
            self._load(path)

    def ids(self) -> list[str]:
        """The flows that are known."""
        return list(self._kept)

    def of(self, flow_id: str, content_hash: str | None) -> Record | None:
        """What was deployed, by the hash that Node-RED's tab shows."""
        kept = self._kept.get(flow_id, {})
        tried = kept.get("next")
        return tried if tried and tried.content_hash == content_hash else kept.get("current")

    def plan_of(self, record: Record) -> Plan | None:
        """Its plan, made once."""
        key = (record.flow_id, record.content_hash)
        if key not in self._plans:
            self._plans[key] = record.plan()
        return self._plans[key]

    def attempt(self, record: Record, current: Record | None) -> None:
        """Note what is about to be sent, beside what is there."""
        self._write(record.flow_id, {"current": current, "next": record})

    def settle(self, record: Record | None, flow_id: str) -> None:
        """Note what is there; None: nothing."""
        if record:
            self._write(flow_id, {"current": record, "next": None})
            return
        self._plans = {key: found for key, found in self._plans.items() if key[0] != flow_id}
        if self._kept.pop(flow_id, None):
            self._path(flow_id).unlink(missing_ok=True)
            storage.sync_folder(self._folder)

    def _write(self, flow_id: str, pair: dict[str, Record | None]) -> None:
        kept = {name: asdict(record) if record else None for name, record in pair.items()}
        storage.write_json(self._path(flow_id), kept)
        self._kept[flow_id] = pair
        hashes = {record.content_hash for record in pair.values() if record}
        self._plans = {key: plan for key, plan in self._plans.items() if key[0] != flow_id or key[1] in hashes}

    def _load(self, path: Path) -> None:
        try:
            kept = storage.read_json(path)
            pair = {name: Record(**kept[name]) if kept[name] else None for name in ("current", "next")}
            known = next(record.flow_id for record in pair.values() if record)
        except (ValueError, TypeError, KeyError, StopIteration) as error:
            log.error("%s does not hold a flow and is left alone: %s", path.name, error)
            return
        self._kept[known] = pair

    def _path(self, flow_id: str) -> Path:
        return self._folder / f"{hashlib.sha256(flow_id.encode()).hexdigest()[:40]}.json"
