"""A person's own flows, and flows of the cloud."""

from typing import Any

from agent.content import content_hash
from agent.drivers.base import Deployment

TAB, SUBFLOW = "aaaaaaaaaaaaaaa1", "aaaaaaaaaaaaaaa2"
OWN: list[dict[str, Any]] = [
    {"id": TAB, "type": "tab", "label": "my own", "disabled": False, "info": "hands off\n", "env": []},
    {
        "id": SUBFLOW,
        "type": "subflow",
        "name": "say own",
        "info": "",
        "in": [{"x": 50, "y": 30, "wires": [{"id": "aaaaaaaaaaaaaaa3"}]}],
        "out": [{"x": 250, "y": 30, "wires": [{"id": "aaaaaaaaaaaaaaa3", "port": 0}]}],
        "env": [],
    },
    {
        "id": "aaaaaaaaaaaaaaa3",
        "type": "function",
        "z": SUBFLOW,
        "func": "msg.payload = 'own';\nreturn msg;",
        "outputs": 1,
        "x": 150,
        "y": 30,
        "wires": [[]],
    },
    {"id": "aaaaaaaaaaaaaaa4", "type": "tls-config", "name": "for all", "cert": "", "verifyservercert": True},
    {
        "id": "aaaaaaaaaaaaaaa5",
        "type": "group",
        "z": TAB,
        "name": "a group",
        "nodes": ["aaaaaaaaaaaaaaa6"],
        "x": 14,
        "y": 19,
        "w": 100.5,
        "h": 82,
    },
    {
        "id": "aaaaaaaaaaaaaaa6",
        "type": "http in",
        "z": TAB,
        "g": "aaaaaaaaaaaaaaa5",
        "url": "/own",
        "method": "get",
        "x": 100,
        "y": 60,
        "wires": [["aaaaaaaaaaaaaaa7"]],
    },
    {
        "id": "aaaaaaaaaaaaaaa7",
        "type": f"subflow:{SUBFLOW}",
        "z": TAB,
        "x": 250,
        "y": 60,
        "wires": [["aaaaaaaaaaaaaaa8"]],
    },
    {"id": "aaaaaaaaaaaaaaa8", "type": "http response", "z": TAB, "x": 400, "y": 60, "wires": []},
    {
        "id": "aaaaaaaaaaaaaaa9",
        "type": "comment",
        "z": TAB,
        "name": "ünïcode \u2028 and 1e21",
        "x": 1e21,
        "y": 0,
        "wires": [],
    },
]


def answering(text: str, url: str = "/flow", func: str = "", **more: Any) -> dict[str, Any]:
    """A flow that answers GET `url` with `text`; `func` runs before."""
    nodes = [
        {"id": "in", "type": "http in", "config": {"url": url, "method": "get"}},
        {
            "id": "work",
            "type": "function",
            "x": 300,
            "y": 80,
            "config": {"func": f"{func}\nmsg.payload = '{text}';\nreturn msg;", "outputs": 1, **more},
        },
        {"id": "out", "type": "http response"},
    ]
    connections = [{"source": "in", "target": "work"}, {"source": "work", "target": "out"}]
    return {"nodes": nodes, "connections": connections}


def order(definition: dict[str, Any], version: int = 1, flow_id: str = "flow-1", start: bool = True) -> Deployment:
    """As the cloud orders it."""
    flow = {"name": f"answers v{version}", "definition": definition}
    return Deployment(flow_id, version, str(content_hash(definition)), flow, start)


def beating() -> list[dict[str, Any]]:
    """A tab of a person that counts by itself, ten times a second; GET /beat tells since when: `{"born", "beats"}`."""
    home = "bbbbbbbbbbbbbbb1"
    count = "flow.set('beats', (flow.get('beats') || 0) + 1);"
    tell = "msg.payload = {born: flow.get('born'), beats: flow.get('beats') || 0};\nreturn msg;"
    born = "flow.set('born', Math.random()); flow.set('beats', 0);"
    nodes = [
        {"id": "bbbbbbbbbbbbbbb2", "type": "inject", "repeat": "0.1", "wires": [["bbbbbbbbbbbbbbb3"]]},
        {"id": "bbbbbbbbbbbbbbb3", "type": "function", "func": count, "initialize": born, "outputs": 1, "wires": [[]]},
        {"id": "bbbbbbbbbbbbbbb4", "type": "http in", "url": "/beat", "method": "get", "wires": [["bbbbbbbbbbbbbbb5"]]},
        {"id": "bbbbbbbbbbbbbbb5", "type": "function", "func": tell, "outputs": 1, "wires": [["bbbbbbbbbbbbbbb6"]]},
        {"id": "bbbbbbbbbbbbbbb6", "type": "http response", "wires": []},
    ]
    tab = {"id": home, "type": "tab", "label": "beating", "disabled": False, "info": "", "env": []}
    return [tab, *({**node, "z": home, "x": 100 * number, "y": 500} for number, node in enumerate(nodes, 1))]
