"""Every operation of the OpenAPI document, with its path, query and body filled with somebody's ids."""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any
from uuid import uuid4

from tests.guards.population import Population

# Where in a path, a query or a body an id stands, and whose it then is. Other ids name what no tenant has yet.
FIELDS = {
    "organization_id": "org_id",
    "device_id": "device_id",
    "device_ids": "device_id",
    "flow_id": "flow_id",
    "deployment_id": "deployment_id",
    "alert_id": "rule_id",
    "notification_id": "notification_id",
    "invoice_id": "invoice_id",
    "method_id": "payment_method_id",
    "user_id": "user_id",
    "key_id": "key_id",
    "invitation_id": "invitation_id",
}
OWN, FOREIGN, RANDOM = "own", "foreign", "random"

# Bodies that have an effect, where the document's example is refused for some other reason.
BODIES = {
    ("put", "/api/v1/devices/{device_id}/shadow"): {"desired": {"crawled": 1}},
    ("put", "/api/v1/auth/profile"): {"name": "Crawler"},
    ("post", "/api/v1/deployments"): {"flow_id": "", "target": {"device_ids": [""]}},
}


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    body: Any
    query: tuple[str, ...]
    protected: bool

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"

    @property
    def places(self) -> list[str]:
        """The fields of this operation that hold an id of ``FIELDS``."""
        found = re.findall(r"{(\w+)}", self.path)
        found += [name for name in _keys(self.body) if name in FIELDS]
        found += [name for name in self.query if name in FIELDS]
        return [name for name in dict.fromkeys(found) if name in FIELDS]


@dataclass(frozen=True)
class Request:
    """One request; ``ids`` are those that it names."""

    method: str
    url: str
    body: Any
    ids: frozenset[str]


def operations(document: Any) -> list[Operation]:
    """Reading first, deleting last, so that what is there is met before it goes."""
    order = ["get", "put", "post", "delete"]
    found = [
        Operation(method, path, _body(method, path, operation), _query(operation), bool(operation["security"]))
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
        if method in order
    ]
    # An organization's own and its people go last of all: after them their keys open nothing any more.
    return sorted(found, key=lambda op: (order.index(op.method), "devices/{" in op.path, "members" in op.path))


def _body(method: str, path: str, operation: Any) -> Any:
    contents = operation.get("requestBody", {}).get("content", {})
    return BODIES.get((method, path), contents.get("application/json", {}).get("example"))


def _query(operation: Any) -> tuple[str, ...]:
    return tuple(parameter["name"] for parameter in operation.get("parameters", []) if parameter.get("in") == "query")


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


def choices(operation: Operation) -> list[dict[str, str]]:
    """Every way to name at least one foreign id: ``[{"organization_id": "own", "user_id": "foreign"}, …]``."""
    places = operation.places
    ways = [dict(zip(places, kinds, strict=True)) for kinds in product((OWN, FOREIGN), repeat=len(places))]
    return [way for way in ways if FOREIGN in way.values()]


def request(operation: Operation, way: dict[str, str], mine: Population, theirs: Population) -> Request:
    """The operation with its ids filled in; a place that ``way`` does not name holds a random id."""
    ids: dict[str, str] = {}

    def fill(name: str) -> str:
        kind = way.get(name, RANDOM)
        owner = {OWN: mine, FOREIGN: theirs}.get(kind)
        return ids.setdefault(name, str(getattr(owner, FIELDS[name]) if owner else uuid4()))

    url = re.sub(r"{(\w+)}", lambda found: "1" if found[1] == "number" else fill(found[1]), operation.path)
    query = "&".join(f"{name}={fill(name)}" for name in operation.query if name in FIELDS)
    body = _filled(copy.deepcopy(operation.body), fill)
    return Request(operation.method, f"{url}?{query}" if query else url, body, frozenset(ids.values()))


def _filled(value: Any, fill: Callable[[str], str]) -> Any:
    if isinstance(value, dict):
        return {
            key: (([fill(key)] if isinstance(inner, list) else fill(key)) if key in FIELDS else _filled(inner, fill))
            for key, inner in value.items()
        }
    return [_filled(inner, fill) for inner in value] if isinstance(value, list) else value
