"""Two web processes on real sockets, and devices that speak the protocol frame by frame."""

import json
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests import make
from tests.platform import TLS, Platform


class Device:
    """A device that a test plays: it sends and receives single frames."""

    def __init__(self, url: str, device_id: UUID | str, key: str, **hello: Any) -> None:
        self.device_id = str(device_id)
        address = url.replace("http", "ws") + "/tunnel"
        self.socket = connect(address, max_size=32 * 1024 * 1024, compression=None, ping_interval=None, legacy=True)
        self.send({"type": "connect", "device_id": self.device_id, "api_key": key, "version": "1.0.0", **hello})
        self.first = self.receive()

    def send(self, frame: Any) -> None:
        self.socket.send(frame if isinstance(frame, str) else json.dumps(frame))

    def receive(self, timeout: float = 10) -> Any:
        return json.loads(self.socket.recv(timeout=timeout))

    def answer(self, data: Any = None, *, timeout: float = 10, **fields: Any) -> Any:
        """Take the next command and answer it."""
        command = self.receive(timeout)
        self.send({"type": "response", "id": command["id"], "status": "success", "data": data, **fields})
        return command

    def closed(self, timeout: float = 10) -> int | None:
        """The close code, once the cloud has closed the socket (frames before it are read over)."""
        try:
            while True:
                self.socket.recv(timeout=timeout)
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else None

    def close(self) -> None:
        self.socket.close()


V2 = {"protocol": 2, "capabilities": ["deploy_flow", "configure", "get_node_types", "dedup"]}


class Caller:
    """A REST client that can wait in the background."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx.Client(base_url=f"{url}/api/v1", headers={"X-API-Key": key}, timeout=60, verify=TLS)

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        return self.http.request(method, path, json=body, headers=headers)

    def later(self, method: str, path: str, body: Any = None) -> "Later":
        return Later(lambda: self(method, path, body))


class Later:
    """An answer that is being waited for in a thread."""

    def __init__(self, call: Any) -> None:
        self._result: Any = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Any) -> None:
        self._result = call()

    def result(self, timeout: float = 20) -> httpx.Response:
        self._thread.join(timeout)
        assert not self._thread.is_alive(), "no answer in time"
        return self._result


@pytest.fixture
def tenant(app: Any) -> UUID:
    return make.organization()


@pytest.fixture
def caller(gateways: Platform, tenant: UUID) -> Iterator[Caller]:
    """A REST client of the second web process."""
    made = Caller(gateways.url(1), make.api_key(tenant, "operator"))
    yield made
    made.http.close()  # a stopping web process would wait for it
