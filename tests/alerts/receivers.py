"""What webhooks and mail go to: a real HTTP server and a real mail server, each on a socket of its own."""

import asyncio
import hashlib
import hmac
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

import orjson
from aiosmtpd.controller import Controller

Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int, **headers: str) -> Answer:
    """An answer without a body."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


class Request:
    def __init__(self, path: str, headers: dict[str, str], body: bytes) -> None:
        self.path, self.headers, self.body = path, headers, body
        self.at = time.monotonic()

    @property
    def delivery(self) -> str:
        return self.headers["x-edgeflow-delivery"]

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)

    def is_signed_with(self, secret: str, now: float | None = None) -> bool:
        """As a receiver would check it, from the documentation alone."""
        timestamp = self.headers["x-edgeflow-timestamp"]
        if abs((now or time.time()) - int(timestamp)) > 300:
            return False
        expected = hmac.new(secret.encode(), timestamp.encode() + b"." + self.body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(self.headers["x-edgeflow-signature"], f"v1={expected}")


class Receiver:
    """An HTTP server that keeps what it gets; ``answers`` are given in turn, then ``always``."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.requests: list[Request] = []
        self.answers: list[Answer] = []
        self.always: Answer = status(204)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                outer.requests.append(Request(self.path, headers, body))
                (outer.answers.pop(0) if outer.answers else outer.always)(self)

            do_GET = do_POST

            def log_message(self, *_args: Any) -> None:
                return

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_args: None  # type: ignore[method-assign]  who hangs up is not news
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"

    @property
    def deliveries(self) -> list[str]:
        return [request.delivery for request in self.requests]

    def __enter__(self) -> "Receiver":
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class MailServer(Controller):
    """A mail server that keeps what it gets, as (envelope's recipients, raw message); some addresses it refuses."""

    def __init__(self, **options: Any) -> None:
        self.mails: list[tuple[list[str], bytes]] = []
        self.refused: dict[str, str] = {}
        self.logins: list[tuple[bytes, bytes]] = []
        self.at_data = "250 taken"
        self.pause = 0.0  # seconds before each address is answered
        super().__init__(self, hostname="127.0.0.1", port=0, **options)

    async def handle_RCPT(self, _server: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:
        await asyncio.sleep(self.pause)
        if address in self.refused:
            return self.refused[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.at_data.startswith("2"):
            self.mails.append((list(envelope.rcpt_tos), envelope.content))
        return self.at_data

    def _trigger_server(self) -> None:
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"
