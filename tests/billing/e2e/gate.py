"""Between the platform and the local Stripe: tells what is called, and is where a worker dies."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import httpx

from tests.platform import TLS

When = Literal["before", "after"]
KEPT = ("Authorization", "Content-Type", "Idempotency-Key", "Stripe-Version", "Stripe-Account")


class Gate(ThreadingHTTPServer):
    """Passes every request on. At the armed one it calls ``kill``: before Stripe hears of it, or after Stripe has done
    it and before the caller hears of that."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, kill: Callable[[], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.target = ""
        self.calls: list[str] = []
        """``"POST /v1/customers"``, as they came; ids are written ``*``."""
        self.deaths: list[tuple[str, When]] = []
        self.keyless = False
        """Takes the Idempotency-Key off what passes: without this protection tests must fail."""
        self._kill = kill
        self._armed: tuple[str, When] | None = None
        self._lock = threading.Lock()
        self.http = httpx.Client(timeout=30, trust_env=False, limits=httpx.Limits(max_connections=50), verify=TLS)
        threading.Thread(target=self.serve_forever, name="gate", daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def arm(self, call: str, when: When) -> None:
        """The next ``call`` is somebody's last."""
        with self._lock:
            self._armed = (call, when)

    def passed(self, call: str, when: When) -> bool:
        """Whether the caller lives on after this moment."""
        with self._lock:
            if self._armed != (call, when):
                return True
            self._armed = None
            self.deaths.append((call, when))
        self._kill()
        return False

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.http.close()


class _Request(BaseHTTPRequestHandler):
    server: Gate
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def _pass_on(self) -> None:
        call = f"{self.command} {_shape(self.path)}"
        self.server.calls.append(call)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if not self.server.passed(call, "before"):
            self.close_connection = True
            return
        kept = [name for name in KEPT if not (self.server.keyless and name == "Idempotency-Key")]
        headers = {name: self.headers[name] for name in kept if name in self.headers}
        url = f"{self.server.target}{self.path}"
        try:
            answer = self.server.http.request(self.command, url, content=body, headers=headers)
        except httpx.HTTPError:  # Stripe is gone, and so is who answers for it
            self.close_connection = True
            return
        if not self.server.passed(call, "after"):
            self.close_connection = True
            return
        self.send_response(answer.status_code)
        for name in ("Content-Type", "Request-Id", "Idempotent-Replayed", "Stripe-Should-Retry", "Retry-After"):
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        # Links that Stripe gives lead back here: they are Stripe's as long as this is taken for Stripe.
        content = answer.content.replace(self.server.target.encode(), self.server.url.encode())
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = _pass_on

    def log_message(self, *_args: object) -> None:
        """Calls are in ``calls``."""


def _shape(path: str) -> str:
    parts = path.partition("?")[0].split("/")
    return "/".join("*" if "_" in part and part.split("_")[0] in PREFIXES else part for part in parts)


PREFIXES = {"cus", "sub", "pm", "in", "si", "pi", "seti", "cs", "evt", "price", "mtr", "card", "bps"}
