"""A stand-in for the cloud, for the agent's own tests: REST and tunnel on one real port, every frame recorded."""

import asyncio
import contextlib
import json
import uuid
from dataclasses import dataclass, field
from typing import Any

from websockets.frames import Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from agent.protocol import now

Json = dict[str, Any]


class Link:
    """One device's socket, seen from the cloud."""

    def __init__(self, protocol: ServerProtocol, writer: asyncio.StreamWriter) -> None:
        self._protocol, self._writer = protocol, writer
        self.frames: list[Json] = []
        self.new = asyncio.Condition()
        self.device_id = ""

    @property
    def close_code(self) -> int | None:
        return self._protocol.close_rcvd.code if self._protocol.close_rcvd else None

    def send(self, frame: Json | str) -> None:
        text = frame if isinstance(frame, str) else json.dumps(frame)
        self._protocol.send_text(text.encode())
        self.flush()

    def close(self, code: int = 1000, reason: str = "") -> None:
        self._protocol.send_close(code, reason)
        self.flush()

    def cut(self) -> None:
        self._writer.transport.abort()

    def flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._writer.write(data)
            else:
                with contextlib.suppress(OSError):  # the peer may have gone first
                    self._writer.write_eof()

    async def take(self, text: str) -> Json:
        frame: Json = json.loads(text)
        async with self.new:
            self.frames.append(frame)
            self.new.notify_all()
        return frame

    async def answer(self, command_id: str, count: int = 1, seconds: float = 5) -> Json:
        """The answer to a command, once it has come `count` times."""

        def answers() -> list[Json]:
            return [f for f in self.frames if f["type"] == "response" and f["id"] == command_id]

        async with asyncio.timeout(seconds), self.new:
            await self.new.wait_for(lambda: len(answers()) >= count)
        return answers()[-1]

    async def ask(self, action: str, payload: Json | None = None, command_id: str | None = None) -> Json:
        """Send a command and wait for its answer."""
        command_id = command_id or str(uuid.uuid4())
        self.command(action, payload, command_id)
        return await self.answer(command_id)

    def command(self, action: str, payload: Any, command_id: str) -> None:
        self.send({"type": "command", "id": command_id, "action": action, "payload": payload or {}, "timestamp": now()})


def merged(target: Any, patch: Json) -> Json:
    """A JSON merge patch, as the platform applies it."""
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value) if isinstance(value, dict) else value
    return result


@dataclass
class Cloud:
    """`async with Cloud() as cloud`; knows devices by key, codes by hardware, and one shadow per device.

    Telemetry is taken if `hello` accepts it: `stored` has each batch once, by id, as it came first; `acks` says whether
    it is acknowledged, and `arrivals` lists the ids of all that came, over whatever connection. `unfit`: a key of
    reported state that is refused.
    """

    keys: dict[str, str] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    hello: Json = field(default_factory=lambda: {"protocol": 2, "heartbeat_interval": 30, "session": 1})
    refuse: tuple[int, str] | None = None
    silent: bool = False
    rest_failures: list[int] = field(default_factory=list)
    unfit: str = ""
    shadows: dict[str, Json] = field(default_factory=dict)
    rest_calls: list[tuple[str, str, Any]] = field(default_factory=list)
    dials: int = 0
    acks: bool = True
    stored: dict[str, Json] = field(default_factory=dict)
    arrivals: list[str] = field(default_factory=list)

    async def __aenter__(self) -> "Cloud":
        self.links: dict[str, Link] = {}
        self.history: list[Link] = []
        self.connects: list[Json] = []
        self._arrived = asyncio.Condition()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        for link in self.history:
            link.cut()
        await asyncio.sleep(0)

    def add(self, device_id: str = "device-1", api_key: str = "device_key_1") -> tuple[str, str]:
        self.keys[api_key] = device_id
        return device_id, api_key

    async def link(self, device_id: str = "device-1", nth: int = 1, seconds: float = 5) -> Link:
        """The nth connection of a device, once it is there."""

        def links() -> list[Link]:
            return [link for link in self.history if link.device_id == device_id]

        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: len(links()) >= nth)
        return links()[nth - 1]

    def shadow(self, device_id: str) -> Json:
        empty = {"device_id": device_id, "version": 1, "desired": {}, "reported": {}, "delta": {}}
        empty |= {"metadata": {"desired": {}, "reported": {}}, "sync_state": "unknown", "updated_at": now()}
        return self.shadows.setdefault(device_id, empty)

    def accept_telemetry(self) -> "Cloud":
        self.hello["capabilities"] = ["dedup", "telemetry"]
        return self

    @property
    def points(self) -> list[list[Any]]:
        """Every point that is stored."""
        return [point for batch in self.stored.values() for point in batch["metrics"]]

    @property
    def lines(self) -> list[list[Any]]:
        """Every log line that is stored."""
        return [line for batch in self.stored.values() for line in batch["logs"]]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if b"upgrade: websocket" in head.lower():
                    self.dials += 1
                    await self._tunnel(head, reader, writer)
                    return
                await self._rest(head, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def _rest(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, *lines = head.decode().split("\r\n")
        headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines if line)}
        text = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = request.split(" ")
        body = json.loads(text) if text else None
        self.rest_calls.append((method, path, body))
        status, answer = self._answer(method, path, body, headers)
        data = json.dumps(answer).encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n".encode())
        writer.write(f"Content-Length: {len(data)}\r\n\r\n".encode() + data)
        await writer.drain()

    def _answer(self, method: str, path: str, body: Any, headers: dict[str, str]) -> tuple[int, Json]:
        if self.rest_failures:
            status = self.rest_failures.pop(0)
            return status, {"error": "not now", "code": "TEST", "status": status}
        if (method, path) == ("POST", "/api/v1/devices/provision"):
            return self._provision(body)
        if (method, path) == ("POST", "/api/v1/auth/login"):
            return 200, {"access_token": "token"}
        if (method, path) == ("POST", "/api/v1/devices"):
            return self._create(headers)
        device_id = path.split("/")[4]
        if self.keys.get(headers.get("x-api-key", "")) != device_id:
            return 401, {"error": "unknown key", "code": "UNAUTHORIZED", "status": 401}
        if method == "PUT" and self.unfit in body["reported"]:
            return 413, {"error": "too large", "code": "PAYLOAD_TOO_LARGE", "status": 413}
        return 200, self._put(device_id, body) if method == "PUT" else self.shadow(device_id)

    def _create(self, headers: dict[str, str]) -> tuple[int, Json]:
        if headers.get("x-api-key") != "edgeflow_test" and headers.get("authorization") != "Bearer token":
            return 401, {"error": "who are you?", "code": "UNAUTHORIZED", "status": 401}
        device_id, code = str(uuid.uuid4()), f"code-{uuid.uuid4()}"
        self.codes[code] = device_id
        return 201, {"id": device_id, "api_key": f"device_{uuid.uuid4().hex}", "provisioning_code": code}

    def _provision(self, body: Json) -> tuple[int, Json]:
        device_id = self.codes.get(body["provisioning_code"])
        if device_id is None or not body["hardware_info"]:
            return 401, {"error": "unknown code", "code": "UNAUTHORIZED", "status": 401}
        key = f"device_{uuid.uuid4().hex}"
        self.keys = {k: d for k, d in self.keys.items() if d != device_id} | {key: device_id}
        return 201, {"device_id": device_id, "api_key": key, "expires_at": None}

    def _put(self, device_id: str, body: Json) -> Json:
        shadow = self.shadow(device_id)
        shadow["reported"] = merged(shadow["reported"], body["reported"])
        shadow["delta"] = {k: v for k, v in shadow["desired"].items() if shadow["reported"].get(k) != v}
        shadow["metadata"]["reported"] = dict.fromkeys(shadow["reported"], now())
        shadow["version"] += 1
        return shadow

    async def _tunnel(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = ServerProtocol(max_size=2**23)
        protocol.receive_data(head)
        request = protocol.events_received()[0]
        assert isinstance(request, Request)
        protocol.send_response(protocol.accept(request))
        link = Link(protocol, writer)
        link.flush()
        while data := await reader.read(65536):
            protocol.receive_data(data)
            for event in protocol.events_received():
                if getattr(event, "opcode", None) is Opcode.TEXT:
                    await self._frame(link, await link.take(bytes(event.data).decode()))  # type: ignore[union-attr]
            link.flush()

    async def _frame(self, link: Link, frame: Json) -> None:
        if frame["type"] == "ping":
            link.send({"type": "pong", "timestamp": now()})
        if frame["type"] == "telemetry":
            self.arrivals.append(frame["id"])
            self.stored.setdefault(frame["id"], frame)
            if self.acks:
                link.send({"type": "ack", "id": frame["id"], "timestamp": now()})
        if frame["type"] == "connect":
            self.connects.append(frame)
        if frame["type"] != "connect" or self.silent:
            return
        if self.refuse or self.keys.get(frame["api_key"]) != frame["device_id"]:
            code, text = self.refuse or (1008, "unknown device")
            link.send({"type": "error", "error": text, "code": "REFUSED"})
            link.close(code, text)
            return
        link.device_id = frame["device_id"]
        link.send({"type": "connected", "device_id": link.device_id, "timestamp": now(), **self.hello})
        async with self._arrived:
            self.history.append(link)
            self.links[link.device_id] = link
            self._arrived.notify_all()
