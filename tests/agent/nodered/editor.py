"""What Node-RED's editor posts at *Deploy*: every object as its model has it, touched or not.

As `importNodes` and `convertNode` of Node-RED 4.1's `nodes.js` make it; what each type declares is from its own HTML
file. That the editor in a browser does the same shows `tests/browser/test_editor.py`.
"""

import copy
from typing import Any

Json = dict[str, Any]

DECLARED = {
    "tab": "label disabled info env",
    "group": "name style nodes env",
    "junction": "",
    "inject": "name props repeat crontab once onceDelay topic payload payloadType",
    "function": "name func outputs timeout noerr initialize finalize libs",
    "debug": "name active tosidebar console tostatus complete targetType statusVal statusType",
    "catch": "name scope uncaught",
    "http in": "name url method upload skipBodyParsing swaggerDoc",
    "http response": "name statusCode headers",
    "http request": "name method ret paytoqs url tls persist proxy insecureHTTPParser authType senderr headers",
    "comment": "name info",
    "mqtt-broker": "name broker port tls clientid autoConnect usetls protocolVersion keepalive cleansession",
    "tls-config": "name cert key ca certname keyname caname servername verifyservercert alpnprotocol",
    "link out": "name mode links",
    "link in": "name links",
}
"""Properties by type, as far as the tests use them; subflows have a name and variables."""
CONFIG = {"mqtt-broker", "tls-config"}
OUTPUTS = {"debug": 0, "http response": 0, "http request": 1, "comment": 0, "link out": 0}


def posted(flows: list[Json]) -> list[Json]:
    """All objects, once a person has looked at every tab."""
    return [_converted(copy.deepcopy(item), flows) for item in flows]


def _converted(item: Json, flows: list[Json]) -> Json:
    kind = item["type"]
    if kind == "subflow":
        kept = ("id", "type", "name", "info", "category", "in", "out", "env", "meta", "color", "icon", "status")
        return {key: item[key] for key in kept if key in item}
    declared = DECLARED.get(kind, "name env").split()
    made = {key: item[key] for key in ("id", "type", "z", *declared) if key in item and (key, item[key]) != ("z", "")}
    if kind == "tab":
        return made
    made |= {key: item[key] for key in ("d", "g", "info") if item.get(key)}
    if kind == "group":
        return _drawn(made)
    _repaired(made, flows)
    if kind not in CONFIG:
        _flowing(made, item, declared)
    return made


def _drawn(group: Json) -> Json:
    """As large as its nodes are in that person's browser, with that browser's fonts."""
    if not group.get("env"):
        group.pop("env", None)
    return {**group, "x": 214, "y": 59, "w": 402, "h": 82}


def _repaired(made: Json, flows: list[Json]) -> None:
    for group in flows:
        if group["type"] == "group" and made["id"] in group["nodes"]:
            made["g"] = group["id"]


def _flowing(made: Json, item: Json, declared: list[str]) -> None:
    made["x"], made["y"] = float(item.get("x") or 0), float(item.get("y") or 0)
    outputs = int(item["outputs"]) if "outputs" in declared and "outputs" in item else OUTPUTS.get(item["type"], 1)
    if "outputs" in declared:
        made["outputs"] = outputs
    wires = [*(item.get("wires") or ()), *([] for _ in range(outputs))]
    made["wires"] = [list(ends) for ends in wires[:outputs]]
    for key in ("inputLabels", "outputLabels"):
        if any(str(label).strip() for label in item.get(key) or ()):
            made[key] = item[key]
