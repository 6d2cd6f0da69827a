"""A strict twin of the released EdgeFlow edge agent v1.0.0, for the cloud's tests.

It is as unforgiving as the Go program: one frame after `connect` or a refusal, the shadow read and written before the
read loop begins, frames with an empty or naive time dropped in silence, each command in a thread of its own without
dedup or order, a small budget of reconnects and then nothing any more. Everything that it meets is recorded.

    agent = V1Agent("http://127.0.0.1:8080", provisioning_code=code, flows=["flow-1"], time_scale=0.01)
    agent.start()
    agent.wait_connected(10)
"""

import json
import logging
import platform
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed, WebSocketException
from websockets.sync.client import ClientConnection, connect

from tests.platform import TLS

Json = dict[str, Any]
log = logging.getLogger("tests.v1_agent")

VERSION = "1.0.0"
CONNECTED_TIMEOUT = 10.0
HEARTBEAT = 30.0
BACKOFF = (5.0, 10.0, 15.0, 20.0, 25.0)
RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")


class GoStrict(Exception):
    """Something that Go's JSON decoder, or the agent, does not accept."""


def now() -> str:
    """A time as Go writes it."""
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def check_time(value: Any, where: str) -> None:
    """Go's time.Time: RFC 3339 with a zone; null leaves it zero. Raises GoStrict."""
    if value is None:
        return
    if not isinstance(value, str) or not RFC3339.fullmatch(value):
        raise GoStrict(f"{where}: {value!r} is no RFC 3339 time with a zone")
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise GoStrict(f"{where}: {error}") from error


def check_type(document: Json, key: str, kind: type, *, required: bool = False) -> None:
    """A field of a Go struct; absent and null are its zero value unless required. Raises GoStrict."""
    value = document.get(key)
    if value is None and not required:
        return
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise GoStrict(f"{key}: {value!r} is no {kind.__name__}")


def check_shadow(document: Any) -> None:
    """The shadow document as the agent's structs want it. Raises GoStrict."""
    if not isinstance(document, dict):
        raise GoStrict(f"the shadow is no object: {document!r:.100}")
    check_type(document, "device_id", str)
    check_type(document, "version", int, required=True)
    check_type(document, "delta", dict, required=True)
    check_type(document, "desired", dict)
    check_type(document, "reported", dict)
    check_type(document, "metadata", dict)
    check_type(document, "sync_state", str)
    check_time(document.get("updated_at"), "updated_at")
    for section in ("desired", "reported"):
        times = (document.get("metadata") or {}).get(section)
        if times is not None and not isinstance(times, dict):
            raise GoStrict(f"metadata.{section}: {times!r:.100} is no object")
        for path, value in (times or {}).items():
            if not isinstance(value, str):
                raise GoStrict(f"metadata.{section}.{path}: {value!r:.100} is no time: the map is flat")
            check_time(value, f"metadata.{section}.{path}")


FRAME_FIELDS = {"type": str, "id": str, "device_id": str, "action": str, "payload": dict, "status": str, "error": str}


def parse_frame(text: str | bytes) -> Json:
    """A frame as Go unmarshals it. Raises GoStrict."""
    try:
        frame = json.loads(text)
    except ValueError as error:
        raise GoStrict(f"not JSON: {error}") from error
    if not isinstance(frame, dict):
        raise GoStrict("not an object")
    for key, kind in FRAME_FIELDS.items():
        check_type(frame, key, kind)
    check_time(frame.get("timestamp"), "timestamp")
    return frame


@dataclass
class V1Agent:
    """One device. `time_scale` shrinks the waits between reconnects, `heartbeat` is in seconds; with `metrics_error`
    every `get_system_metrics` fails with that text.

    `received`: every frame taken; `dropped`: every frame thrown away, with the reason; `starts`: the id of each flow
    at each time it was really started; `failures`: what made it turn its back on a connection; `dials`: tries at all.
    """

    base_url: str
    device_id: str | None = None
    api_key: str | None = None
    provisioning_code: str | None = None
    hardware: Json = field(default_factory=lambda: {"serial": uuid.uuid4().hex, "arch": "arm64", "os": "linux"})
    flows: list[str] = field(default_factory=list)
    time_scale: float = 1.0
    heartbeat: float = HEARTBEAT
    start_seconds: float = 0.02
    metrics_error: str = ""

    def __post_init__(self) -> None:
        self.received: list[Json] = []
        self.dropped: list[tuple[str, str]] = []
        self.starts: list[str] = []
        self.failures: list[str] = []
        self.shadows: list[Json] = []
        self.executions: list[Json] = []
        self.dials = self.connections = self._asked = 0
        self.gave_up = False
        self._status = dict.fromkeys(self.flows, "stopped")
        self._answers: dict[str, Json] = {}
        self._answered = threading.Condition()
        self._connected, self._stopping = threading.Event(), threading.Event()
        self._socket: ClientConnection | None = None
        self._thread: threading.Thread | None = None
        self._started = time.monotonic()
        self._http = httpx.Client(
            base_url=f"{self.base_url.rstrip('/')}/api/v1", timeout=30, trust_env=False, verify=TLS
        )

    # What a test does with it

    def start(self) -> None:
        """Provision if there is a code and no key, then run in a thread; raises GoStrict when provisioning fails."""
        if self.api_key is None:
            self.provision()
        self._thread = threading.Thread(target=self._run, name=f"v1 agent {self.device_id}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it as a signal would."""
        self._stopping.set()
        if self._socket:
            self._socket.close()
        if self._thread:
            self._thread.join(10)
        self._http.close()

    def wait_connected(self, timeout: float = 10) -> None:
        """Return once connected and its read loop begins; raises AssertionError with what went wrong."""
        deadline = time.monotonic() + timeout
        while not self._connected.wait(0.02):
            if self.gave_up or time.monotonic() > deadline:
                raise AssertionError(f"the v1 agent is not connected: {self.failures or 'no answer'}")

    @property
    def connected(self) -> bool:
        """Whether its read loop runs."""
        return self._connected.is_set()

    def commands(self) -> list[Json]:
        """The commands that it has taken."""
        return [frame for frame in self.received if frame.get("type") == "command"]

    def drop(self) -> None:
        """Lose the link without a closing handshake, as when the network goes."""
        if self._socket:
            self._socket.socket.shutdown(socket.SHUT_RDWR)

    def ask(self, action: str, payload: Json | None = None, timeout: float = 30) -> Json:
        """Send the cloud a command, as v1 can; its `response`. Raises TimeoutError."""
        command_id = str(uuid.uuid4())
        self._send({"type": "command", "id": command_id, "action": action, "payload": payload or {}})
        with self._answered:
            if not self._answered.wait_for(lambda: command_id in self._answers, timeout):
                raise TimeoutError(f"no response to {action}")
            return self._answers.pop(command_id)

    def provision(self) -> None:
        """Exchange the code for an identity; raises GoStrict."""
        network = {"hostname": socket.gethostname(), "ip_address": "127.0.0.1"}
        body = {"provisioning_code": self.provisioning_code, "hardware_info": self.hardware, "network_info": network}
        response = self._http.post("/devices/provision", json=body)
        if response.status_code != 201:
            raise GoStrict(f"provisioning was answered {response.status_code}: {response.text[:200]}")
        given = response.json()
        for key in ("device_id", "api_key"):
            check_type(given, key, str, required=True)
        check_time(given.get("expires_at"), "expires_at")
        self.device_id, self.api_key = given["device_id"], given["api_key"]

    # The connection

    def _run(self) -> None:
        """The first dial has one try; after a drop there are five, then it gives up until a person restarts it."""
        if self._serve_one():
            while not self._stopping.is_set() and self._reconnect():
                pass
        self.gave_up = not self._stopping.is_set()

    def _reconnect(self) -> bool:
        for wait in BACKOFF:
            if self._stopping.wait(wait * self.time_scale):
                return False
            if self._serve_one():
                return True
        return False

    def _serve_one(self) -> bool:
        """One try at a connection, served until it ends; False when it did not come about."""
        self.dials += 1
        try:
            with self._dial() as link:
                self._introduce(link)
                self._socket = link
                self.connections += 1
                self._sync_shadow()
                threading.Thread(target=self._beat, daemon=True).start()
                self._connected.set()
                self._read(link)
            return True
        except (OSError, WebSocketException, GoStrict, httpx.HTTPError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            log.info("v1 agent %s: %s", self.device_id, self.failures[-1])
            return False
        finally:
            self._connected.clear()
            self._socket = None

    def _dial(self) -> ClientConnection:
        host = re.sub(r"^http", "ws", self.base_url.rstrip("/"))
        return connect(f"{host}/tunnel", compression=None, ping_interval=None, proxy=None, max_size=None)

    def _introduce(self, link: ClientConnection) -> None:
        """`connect`, then exactly one frame; whatever is not `connected` is a refusal."""
        hello = {"type": "connect", "device_id": self.device_id, "api_key": self.api_key, "version": VERSION}
        link.send(json.dumps({**hello, "timestamp": now()}))
        try:
            text = link.recv(timeout=CONNECTED_TIMEOUT)
        except TimeoutError as error:
            raise GoStrict("no frame within 10 s") from error
        frame = parse_frame(text)
        self.received.append(frame)
        if frame.get("type") != "connected":
            raise GoStrict(f"connection refused: {frame.get('error') or frame.get('type')}")

    def _sync_shadow(self) -> None:
        """GET and PUT, both 200, both documents readable, before the read loop begins."""
        self._shadow("GET")
        self._shadow("PUT", {"reported": {"online": True, "agent_version": VERSION, "last_updated": now()}})

    def _shadow(self, method: str, body: Json | None = None) -> Json:
        path, headers = f"/devices/{self.device_id}/shadow", {"X-API-Key": self.api_key or ""}
        response = self._http.request(method, path, json=body, headers=headers)
        if response.status_code != 200:
            raise GoStrict(f"{method} shadow was answered {response.status_code}: {response.text[:200]}")
        try:
            document = response.json()
        except ValueError as error:
            raise GoStrict(f"{method} shadow: {error}") from error
        check_shadow(document)
        self.shadows.append(document)
        return document

    def _beat(self) -> None:
        """Ends only if it wakes without a connection: after a quick reconnect the old loop lives on, as in v1."""
        while not self._stopping.wait(self.heartbeat) and self._socket is not None:
            self._send({"type": "ping"})

    def _read(self, link: ClientConnection) -> None:
        while True:
            try:
                text = link.recv()
            except ConnectionClosed:
                return
            try:
                frame = parse_frame(text)
            except GoStrict as error:
                self.dropped.append((text if isinstance(text, str) else repr(text), str(error)))
                continue
            self.received.append(frame)
            self._take(frame)

    def _take(self, frame: Json) -> None:
        if frame.get("type") == "command":
            threading.Thread(target=self._answer, args=(frame,), daemon=True).start()
        elif frame.get("type") == "response":
            with self._answered:
                self._answers[frame.get("id", "")] = frame
                self._answered.notify_all()

    def _send(self, frame: Json) -> None:
        link = self._socket
        if link is None:
            log.info("v1 agent %s: nothing to send over", self.device_id)
            return
        try:
            link.send(json.dumps({**frame, "timestamp": now()}))
        except ConnectionClosed as error:
            log.info("v1 agent %s: not sent: %s", self.device_id, error)

    # Commands

    def _answer(self, frame: Json) -> None:
        answer: Json = {"type": "response", "id": frame.get("id", "")}
        try:
            data = self._execute(frame.get("action", ""), frame.get("payload") or {})
            self._send({**answer, "status": "success", "data": data})
        except (GoStrict, httpx.HTTPError) as error:
            self._send({**answer, "status": "error", "error": str(error)})

    def _execute(self, action: str, payload: Json) -> Any:
        actions: dict[str, Callable[[Json], Any]] = {
            "health_check": self._health,
            "list_flows": self._list_flows,
            "get_flow": _not_implemented("get flow"),
            "start_flow": self._start_flow,
            "stop_flow": self._stop_flow,
            "create_flow": _not_implemented("create flow"),
            "update_flow": _not_implemented("update flow"),
            "delete_flow": _not_implemented("delete flow"),
            "get_shadow": lambda _: self._shadow("GET"),
            "update_desired": lambda _: {"delta": self._shadow("GET")["delta"]},
            "get_system_metrics": self._metrics,
            "get_executions": lambda _: {"executions": list(self.executions)},
            "get_gpio_state": lambda _: {"pins": {"17": {"mode": "in", "value": 0}}},
        }
        if action not in actions:
            raise GoStrict(f"unknown command action: {action}")
        return actions[action](payload)

    def _health(self, _: Json) -> Json:
        return {"status": "healthy", "version": VERSION, "uptime": int(time.monotonic() - self._started)}

    def _list_flows(self, _: Json) -> Json:
        return {"flows": [{"id": flow, "name": flow, "status": status} for flow, status in self._status.items()]}

    def _start_flow(self, payload: Json) -> Json:
        """Looks, takes its time, then starts: two at once both start."""
        flow_id = self._flow(payload)
        if self._status[flow_id] == "running":
            raise GoStrict(f"flow {flow_id} is already running")
        time.sleep(self.start_seconds)
        self.starts.append(flow_id)
        self.executions.append({"id": str(uuid.uuid4()), "flow_id": flow_id, "status": "running", "started_at": now()})
        self._status[flow_id] = "running"
        return {"flow_id": flow_id, "status": "started"}

    def _stop_flow(self, payload: Json) -> Json:
        flow_id = self._flow(payload)
        if self._status[flow_id] != "running":
            raise GoStrict(f"flow {flow_id} is not running")
        self._status[flow_id] = "stopped"
        return {"flow_id": flow_id, "status": "stopped"}

    def _flow(self, payload: Json) -> str:
        flow_id = payload.get("flow_id")
        if not isinstance(flow_id, str) or not flow_id:
            raise GoStrict("flow_id is required")
        if flow_id not in self._status:
            raise GoStrict(f"flow not found: {flow_id}")
        return flow_id

    def _metrics(self, _: Json) -> Json:
        """Nested, with names among the numbers; the processor's share and the load are what moves."""
        if self.metrics_error:
            raise GoStrict(self.metrics_error)
        self._asked += 1
        busy = 10.0 + self._asked % 7
        memory = {"total_bytes": 10**9, "used_bytes": 4 * 10**8, "free_bytes": 6 * 10**8, "available_bytes": 6 * 10**8}
        return {
            "hostname": socket.gethostname(),
            "os": "linux",
            "arch": platform.machine(),
            "board_model": "Twin",
            "uptime": int(time.monotonic() - self._started),
            "temperature": 48.5,
            "cpu": {"usage_percent": busy},
            "memory": {**memory, "percent": 40.0},
            "swap": {"total_bytes": 0, "used_bytes": 0, "free_bytes": 0, "percent": 0.0},
            "load_avg": {"1min": busy / 25, "5min": 0.4, "15min": 0.3},
            "network": {"rx_bytes": 1000 * self._asked, "tx_bytes": 2000 * self._asked},
        }


def _not_implemented(what: str) -> Callable[[Json], Any]:
    def refuse(_: Json) -> Any:
        raise GoStrict(f"{what} not yet implemented")

    return refuse
