"""Node-RED's deployment as the driver sees it: which tabs are whose flows, and what each of them is now."""

from dataclasses import dataclass
from functools import cached_property

from agent.content import content_hash
from agent.drivers.nodered_format import (
    FLOW_ID,
    HASH,
    MODE,
    VERSION,
    JsonObject,
    Plan,
    belonging,
    marks,
    splice,
    subflows_of,
)
from agent.drivers.nodered_names import tab_id
from agent.drivers.nodered_reading import definition_from, names_of
from agent.drivers.nodered_records import Record, Records
from agent.drivers.nodered_same import same


@dataclass
class Seen:
    """One flow: of the cloud (`managed`) or a person's own tab, whose id is then the flow's."""

    flow_id: str
    tab: JsonObject
    objects: list[JsonObject]
    managed: bool
    full: bool = False
    record: Record | None = None
    plan: Plan | None = None

    @property
    def name(self) -> str:
        """What its tab is called."""
        return str(self.tab.get("label") or self.flow_id)

    @cached_property
    def running(self) -> bool:
        """Whether it is switched on."""
        return any(not item.get("disabled") for item in self.objects if item["type"] == "tab")

    @property
    def version(self) -> int | None:
        """The deployed version."""
        if self.record:
            return self.record.version
        told = marks(self.tab).get(VERSION, "") if self.managed else ""
        return int(told) if told.isdecimal() else None

    @cached_property
    def untouched(self) -> bool:
        """Whether it is what was deployed."""
        return self.plan is not None and same(self.plan, self.objects, ignore_disabled=not self.running)

    @cached_property
    def definition(self) -> JsonObject:
        """As the cloud has it: what was deployed, or what it has become."""
        if self.untouched and self.record:
            return self.record.definition
        names = self.plan.names if self.plan else names_of(self.tab, self.flow_id)
        return definition_from(self.objects, names, self.plan)

    @cached_property
    def hash(self) -> str | None:
        """The content hash of what is there."""
        return self.record.content_hash if self.untouched and self.record else content_hash(self.definition)

    @property
    def drifted(self) -> bool:
        """Whether somebody changed what was deployed."""
        deployed = self.record.content_hash if self.record else marks(self.tab).get(HASH)
        return self.managed and self.hash != deployed


class View:
    """One revision of the deployment: `flows` by id."""

    def __init__(self, rev: str, objects: list[JsonObject], records: Records) -> None:
        self.rev, self.objects = rev, objects
        self.flows: dict[str, Seen] = {}
        tabs = {item["id"]: item for item in objects if item.get("type") == "tab"}
        owners = _owners(tabs, records)
        for tab in tabs.values():
            if tab["id"] in owners:
                self._add_managed(tab, *owners[tab["id"]], records)
        self._widen_whole()
        taken = {item["id"] for seen in self.flows.values() for item in seen.objects}
        for known, tab in tabs.items():
            if known not in taken:
                self.flows[known] = Seen(known, tab, belonging(objects, {known}), managed=False)

    def _add_managed(self, tab: JsonObject, flow_id: str, full: bool, records: Records) -> None:
        record = records.of(flow_id, marks(tab).get(HASH))
        plan = records.plan_of(record) if record else None
        planned = {item["id"] for item in plan.objects if item["type"] == "subflow"} if plan and not full else set()
        objects = belonging(self.objects, {tab["id"], *subflows_of(tab), *planned})
        self.flows[flow_id] = Seen(flow_id, tab, objects, True, full, record, plan)

    def _widen_whole(self) -> None:
        """A whole deployment has all that no other flow of the cloud has."""
        whole = [seen for seen in self.flows.values() if seen.full]
        others = {item["id"] for seen in self.flows.values() if not seen.full for item in seen.objects}
        for seen in whole:
            seen.objects = [item for item in self.objects if item["id"] not in others]

    def exchanged(self, flow_id: str, new: list[JsonObject], full: bool = False) -> list[JsonObject]:
        """The deployment with `new` as that flow; a whole deployment spares only the other flows of the cloud."""
        seen = self.flows.get(flow_id)
        old = list(seen.objects) if seen else []
        if full:
            spared = {
                item["id"]
                for other in self.flows.values()
                if other.managed and not other.full and other.flow_id != flow_id
                for item in other.objects
            }
            old = [item for item in self.objects if item["id"] not in spared]
        return splice(self.objects, old, new)


def _owners(tabs: dict[str, JsonObject], records: Records) -> dict[str, tuple[str, bool]]:
    """Tab id → flow id and whether it is a whole deployment: by mark, else (somebody took it off) by what was sent.

    A copy of a tab that was made in the editor bears the mark too, but not the id that goes with it.
    """
    owners = {tab_id(flow_id): (flow_id, False) for flow_id in records.ids() if tab_id(flow_id) in tabs}
    whole = [known for known, tab in tabs.items() if marks(tab).get(MODE) == "full" and marks(tab).get(FLOW_ID)]
    for known, tab in tabs.items():
        flow_id = marks(tab).get(FLOW_ID)
        if flow_id and known == tab_id(flow_id):
            owners[known] = (flow_id, False)
        elif flow_id and known in whole[:1]:
            owners[known] = (flow_id, True)
    return owners
