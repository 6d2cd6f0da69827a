"""A stand-in for the EdgeFlow runtime, written from its documented routes: a real HTTP server that keeps flows.

As the runtime does: it chooses ids; stores nodes and connections as they come and tells nodes by id; runs what it has
in memory, where a flow once created stays, empty, until it is stopped or (`forgets`) changed; skips nodes of types
that it does not know; answers 500 for nearly every failure; forgets what runs, and its executions, when it restarts.
A node whose config says `fail` does not start; one that says `errors` makes that many errors once it has started.
"""

import asyncio
import copy
import json
import uuid
from typing import Any

Json = dict[str, Any]
Answer = tuple[int, Json]
TYPES = ("inject", "debug", "function")


class Runtime:
    """`async with Runtime() as runtime`. Each of `faults` befalls one request: `(what, method, end of the path)`.

    `lose`: carried out, and cut off before the answer; `cut`: cut off before anything; `half`: a PUT that stores no
    connections; `hang`: no answer; a number: answered with that status. `calls` lists all requests.
    """

    def __init__(self, forgets: bool = True, token: str | None = None) -> None:
        self.forgets, self.token = forgets, token
        self.stored: dict[str, Json] = {}
        self.memory: dict[str, Json] = {}
        self.executions: list[Json] = []
        self.faults: list[tuple[str | int, str, str]] = []
        self.calls: list[str] = []
        self._port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "Runtime":
        await self.up()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.down()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def up(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """What runs, and the history, is in memory only."""
        if self._server:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        self.memory.clear()
        self.executions.clear()
        await asyncio.sleep(0.01)

    async def restart(self) -> None:
        await self.down()
        await self.up()

    # What a test looks at

    def running(self) -> list[Json]:
        """The contents that really run."""
        return [flow for flow in self.memory.values() if flow["status"] == "running"]

    def markers(self) -> list[Any]:
        """What the first nodes of running flows say."""
        return [next(iter(flow["nodes"].values()))["config"].get("marker") for flow in self.running()]

    def count(self, call: str) -> int:
        return sum(one.startswith(call) for one in self.calls)

    def edit(self, runtime_id: str, **changes: Any) -> None:
        """Save a flow in the runtime's own editor."""
        self._put(runtime_id, changes)

    # The routes

    def _answer(self, method: str, path: str, body: Json) -> Answer:
        parts = path.removeprefix("/api/v1/").split("/")
        if parts[0] == "flows":
            return self._flows(method, parts[1:], body)
        found = {
            "node-types": {"node_types": [self._kind(name) for name in TYPES], "count": len(TYPES), "categories": []},
            "executions": {"executions": self.executions[::-1], "count": len(self.executions)},
            "resources/stats": STATS,
            "gpio/state": GPIO,
        }.get("/".join(parts))
        return (200, found) if found and method == "GET" else (404, {"error": f"Cannot {method} {path}"})

    def _flows(self, method: str, rest: list[str], body: Json) -> Answer:
        match method, rest:
            case "GET", []:
                flows = [self._told(runtime_id) for runtime_id in self.stored]
                return 200, {"flows": flows, "count": len(flows)}
            case "POST", []:
                return self._create(body)
            case "GET", [runtime_id]:
                known = runtime_id in self.stored
                return (200, self._told(runtime_id)) if known else (404, {"error": "Flow not found"})
            case "PUT", [runtime_id]:
                return self._put(runtime_id, body)
            case "DELETE", [runtime_id]:
                self.memory.pop(runtime_id, None)
                self.stored.pop(runtime_id, None)
                return 200, {"message": "Flow deleted successfully", "id": runtime_id}
            case "POST", [runtime_id, "start"]:
                return self._start(runtime_id)
            case "POST", [runtime_id, "stop"]:
                return self._stop(runtime_id)
        return 404, {"error": "Cannot"}

    def _create(self, body: Json) -> Answer:
        if not body.get("name"):
            return 400, {"error": "Flow name is required"}
        flow = {"id": str(uuid.uuid4()), "name": body["name"], "description": body.get("description", "")}
        self.stored[flow["id"]] = {**flow, "status": "idle", "nodes": [], "connections": []}
        self.memory[flow["id"]] = {"status": "idle", "nodes": {}, "connections": []}
        return 201, {**flow, "status": "idle", "nodes": {}, "connections": [], "config": {}}

    def _put(self, runtime_id: str, body: Json) -> Answer:
        flow = self.stored.get(runtime_id)
        if flow is None:
            return 404, {"error": "Flow not found"}
        flow.update({key: body[key] for key in ("name", "description", "connections") if key in body})
        nodes = body.get("nodes")
        if nodes is not None:
            flow["nodes"] = nodes if isinstance(nodes, list) else [{**node, "id": key} for key, node in nodes.items()]
        if self.forgets and self.memory.get(runtime_id, {}).get("status") != "running":
            self.memory.pop(runtime_id, None)
        return 200, self._told(runtime_id)

    def _start(self, runtime_id: str) -> Answer:
        flow = self.memory.get(runtime_id) or self._loaded(runtime_id)
        if flow is None:
            return 500, {"error": f"flow not found: {runtime_id}"}
        execution = {"id": f"exec-{len(self.calls)}", "flow_id": runtime_id, "status": "running"}
        execution |= {"start_time": "2026-01-20T10:00:00Z", "completed_nodes": 0, "error_nodes": 0}
        self.executions = [*self.executions, execution][-100:]
        if flow["status"] == "running":
            execution["status"] = "failed"
            return 500, {"error": f"failed to start flow: flow {runtime_id} is already running"}
        for node in flow["nodes"].values():
            if (node.get("config") or {}).get("fail"):
                execution |= {"status": "failed", "error": "boom", "end_time": "2026-01-20T10:00:01Z"}
                return 500, {"error": f"failed to start flow: failed to start node {node['id']}: boom"}
            execution["error_nodes"] += (node.get("config") or {}).get("errors", 0)
        flow["status"] = self.stored[runtime_id]["status"] = "running"
        execution["completed_nodes"] = len(flow["nodes"])
        self.memory[runtime_id] = flow
        return 200, {"message": "Flow started successfully", "id": runtime_id}

    def _stop(self, runtime_id: str) -> Answer:
        if runtime_id in self.stored:
            self.stored[runtime_id]["status"] = "stopped"
        if self.memory.pop(runtime_id, None):
            for execution in self.executions:
                if (execution["flow_id"], execution["status"]) == (runtime_id, "running"):
                    execution |= {"status": "completed", "end_time": "2026-01-20T10:00:02Z"}
        return 200, {"message": "Flow stopped successfully", "id": runtime_id}

    def _loaded(self, runtime_id: str) -> Json | None:
        flow = copy.deepcopy(self.stored.get(runtime_id))
        if flow is None:
            return None
        nodes = {node["id"]: node for node in flow["nodes"] if node.get("type") in TYPES}
        ends = [(one.get("source"), one.get("target")) for one in flow["connections"]]
        joined = [pair for pair in ends if pair[0] in nodes and pair[1] in nodes]
        return {"status": "idle", "nodes": nodes, "connections": joined}

    def _told(self, runtime_id: str) -> Json:
        flow = self.stored[runtime_id]
        runs = self.memory.get(runtime_id, {}).get("status") == "running"
        status = "running" if runs else "stopped" if flow["status"] == "running" else flow["status"]
        return {**flow, "status": status, "nodes": {node["id"]: node for node in flow["nodes"]}, "config": {}}

    def _kind(self, name: str) -> Json:
        return {"type": name, "name": name.title(), "category": "function", "description": "", "properties": []}

    # The wire

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {key.lower(): value.strip() for key, _, value in (line.partition(":") for line in lines if line)}
        text = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ")
        self.calls.append(f"{method} {path.removeprefix('/api/v1')}")
        fault = self._fault(method, path)
        if fault == "cut":
            writer.transport.abort()
            return False
        if isinstance(fault, int):
            status, answer = fault, {"error": f"made to answer {fault}"}
        elif self.token not in (
            None,
            headers.get("x-api-key"),
            headers.get("authorization", "").removeprefix("Bearer "),
        ):
            status, answer = 401, {"error": "Authentication required"}
        else:
            body = json.loads(text) if text else {}
            if fault == "half":
                body.pop("connections", None)
            status, answer = self._answer(method, path, body)
        if fault == "lose":
            writer.transport.abort()
            return False
        if fault == "hang":
            await asyncio.sleep(60)
        data = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        writer.write(head.encode() + data)
        await writer.drain()
        return True

    def _fault(self, method: str, path: str) -> str | int | None:
        for number, (what, of_method, end) in enumerate(self.faults):
            if method == of_method and path.endswith(end):
                del self.faults[number]
                return what
        return None


STATS: Json = {
    "timestamp": "2026-01-20T10:00:00Z",
    "cpu": {"usage_percent": 12.5, "cores": 4},
    "memory": {"total_bytes": 1000, "used_bytes": 600, "free_bytes": 400, "usage_percent": 60.0},
    "disk": {"total_bytes": 5000, "used_bytes": 1000, "free_bytes": 4000, "usage_percent": 20.0},
    "goroutines": 50,
    "system": {
        "hostname": "pi",
        "os": "linux",
        "arch": "arm64",
        "board_model": "Raspberry Pi 5",
        "uptime": 86400,
        "temperature": 48.2,
        "load_avg": {"1min": 0.5, "5min": 0.4, "15min": 0.3},
        "swap": {"total_bytes": 200, "used_bytes": 50},
        "network": {"rx_bytes": 7, "tx_bytes": 8},
    },
}
GPIO: Json = {
    "pins": {
        "17": {"bcm_pin": 17, "value": True, "mode": "output", "edge_count": 3, "last_change": "2026-01-20T10:00:00Z"},
        "4": {"bcm_pin": 4, "value": False, "mode": "input", "edge_count": 0, "last_change": "2026-01-20T10:00:00Z"},
    },
    "board_name": "Raspberry Pi 5",
    "gpio_chip": "gpiochip0",
    "available": True,
    "timestamp": "2026-01-20T10:00:00Z",
}
