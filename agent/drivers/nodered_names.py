"""The ids of a cloud flow's nodes, as the cloud has them and as Node-RED does: pure.

A node of a tab gets an id of its own in Node-RED, so that two flows may use the same ids: 16 hex digits are exchanged
for 16 others by a mask of the flow (and back, without a table), every other id for a digest.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from agent.runtime.definition import FlowError, Graph

HEX_ID = re.compile(r"[0-9a-f]{16}")
REFERENCES = {
    "group": ("nodes",),
    "subflow": ("in", "out", "status"),
    "link in": ("links",),
    "link out": ("links",),
    "link call": ("links",),
    "catch": ("scope",),
    "complete": ("scope",),
    "status": ("scope",),
}
"""Properties that hold ids of nodes, in whatever depth, by type; `g` and `z` do in each."""
PLAIN = frozenset({"name", "label", "info", "topic", "payload", "property", "func", "template", "rule", "env", "path"})
"""Properties that are never references to config nodes, should a config node be called like their value."""


def digest(text: str) -> str:
    """16 hex digits, as Node-RED's own ids are."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def tab_id(flow_id: str) -> str:
    """The id of the tab that holds a cloud flow."""
    return digest(f"edgeflow tab {flow_id}")


@dataclass(frozen=True)
class Names:
    """The ids of one flow's nodes: `outward` as Node-RED has them, `inward` as the cloud has them."""

    outward: dict[str, str]
    inward: dict[str, str]
    mask: int = 0
    settings: frozenset[str] = frozenset()
    """Ids of config nodes, as the cloud has them."""

    @classmethod
    def of(cls, flow_id: str, graph: Graph, settings: Iterable[str] = ()) -> "Names":
        """Raises FlowError should two ids become one."""
        mask = int(digest(f"edgeflow nodes {flow_id}"), 16)
        outward = {node: _exchanged(flow_id, mask, node) for node in graph.nodes}
        inward = {known: node for node, known in outward.items()}
        if len(inward) != len(outward):
            raise FlowError("nodes", "two ids become the same one in Node-RED")
        return cls(outward, inward, mask, frozenset(settings))

    @classmethod
    def kept(cls, ids: Iterable[str]) -> "Names":
        """Ids that are the same on both sides."""
        same = {known: known for known in ids}
        return cls(same, same)

    def learn(self, ids: Iterable[str]) -> "Names":
        """The same with nodes that were made in Node-RED."""
        inward, taken = dict(self.inward), set(self.outward)
        for known in sorted(set(ids) - inward.keys()):
            node = f"{int(known, 16) ^ self.mask:016x}" if HEX_ID.fullmatch(known) else known
            inward[known] = digest(f"edgeflow found {known}") if node in taken else node
            taken.add(inward[known])
        return Names({node: known for known, node in inward.items()}, inward, self.mask, self.settings)

    def mapped(self, kind: str, key: str, value: Any, back: bool = False) -> Any:
        """A property of a node of type `kind`, with the ids in it exchanged."""
        table = self.inward if back else self.outward
        if key in ("g", "z") or (key in REFERENCES.get(kind, ()) and not isinstance(value, str)):
            return _replaced(value, table)
        if isinstance(value, str) and key not in PLAIN and self._is_setting(value, back):
            return table[value]
        return _replaced(value, {one: other for one, other in table.items() if self._is_hex(one, other)})

    def _is_setting(self, value: str, back: bool) -> bool:
        return (self.inward.get(value) if back else value) in self.settings

    @staticmethod
    def _is_hex(one: str, other: str) -> bool:
        return bool(HEX_ID.fullmatch(one) and HEX_ID.fullmatch(other))


def _exchanged(flow_id: str, mask: int, node: str) -> str:
    return f"{int(node, 16) ^ mask:016x}" if HEX_ID.fullmatch(node) else digest(f"edgeflow node {flow_id}\0{node}")


def _replaced(value: Any, table: dict[str, str]) -> Any:
    if isinstance(value, str):
        return table.get(value, value)
    if isinstance(value, list):
        return [_replaced(item, table) for item in value]
    if isinstance(value, dict):
        return {key: _replaced(item, table) for key, item in value.items()}
    return value
