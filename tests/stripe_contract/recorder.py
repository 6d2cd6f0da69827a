"""A plain HTTP proxy that keeps what went through: bytes, not what a library makes of them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx

from tests.platform import TLS

HOOK = "/hook"
"""What is posted here is taken and kept, and goes no further: the address for a server's webhooks."""


@dataclass(frozen=True)
class Exchange:
    """``parameters``: of query and form alike, ``[("items[0][price]", "price_1")]``. Headers in lower case."""

    method: str
    path: str
    parameters: list[tuple[str, str]]
    headers: dict[str, str]
    sent: bytes
    status: int
    answer: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.answer)


class Recorder(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = httpx.Client(base_url=upstream, timeout=20, trust_env=False, verify=TLS)
        self.exchanges: list[Exchange] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def recording(upstream: str) -> Iterator[Recorder]:
    """A recorder before a server, at ``address``."""
    recorder = Recorder(upstream)
    Thread(target=recorder.serve_forever, daemon=True).start()
    try:
        yield recorder
    finally:
        recorder.shutdown()
        recorder.server_close()
        recorder.upstream.close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Recorder

    def _pass_on(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == HOOK:
            answer = httpx.Response(200, content=b"{}")
        else:
            kept = {name: value for name, value in self.headers.items() if name.lower() not in _HOPS}
            answer = self.server.upstream.request(self.command, self.path, content=sent, headers=kept)
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        form = sent.decode() if "form-urlencoded" in self.headers.get("Content-Type", "") else ""
        parameters = parse_qsl(url.query, keep_blank_values=True) + parse_qsl(form, keep_blank_values=True)
        self.server.exchanges.append(
            Exchange(self.command, url.path, parameters, headers, sent, answer.status_code, answer.content)
        )
        self.send_response(answer.status_code)
        for name, value in answer.headers.items():
            if name.lower() not in _HOPS:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_GET = do_POST = do_DELETE = _pass_on

    def log_message(self, *_: Any) -> None:
        """Tests are silent."""


_HOPS = ("host", "connection", "content-length", "transfer-encoding", "content-encoding", "accept-encoding")
