"""A receiver of alert webhooks that believes only what is signed: the demo's, and an example for your own.

``EDGEFLOW_WEBHOOK_SECRET=… python -m config.webhook_receiver PORT`` listens on 127.0.0.1 and prints a line for each
notification. The signature is HMAC-SHA256 over ``<timestamp>.<body>`` under the channel's secret; a timestamp of more
than five minutes ago is a recording. A notification that comes twice has the same ``X-EdgeFlow-Delivery``.
"""

import hashlib
import hmac
import json
import os
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from config.launch.program import Program

VARIABLE = "EDGEFLOW_WEBHOOK_SECRET"
TOLERANCE_SECONDS = 300
MOST_BYTES = 1024 * 1024
REMEMBERED = 1_000


def program(port: int, secret: str, cwd: Path, environment: dict[str, str]) -> Program:
    """What the supervisor runs."""
    command = [sys.executable, "-m", "config.webhook_receiver", str(port)]
    return Program(name="webhook", command=command, cwd=cwd, environment={**environment, VARIABLE: secret})


def url(port: int) -> str:
    """What a channel of this receiver has as its ``url``."""
    return f"http://127.0.0.1:{port}/edgeflow"


def genuine(secret: str, timestamp: str, signature: str, body: bytes, now: float) -> bool:
    """Whether ``body`` was signed under ``secret`` within five minutes of ``now`` (seconds since 1970)."""
    if not timestamp.isdecimal() or abs(now - int(timestamp)) > TOLERANCE_SECONDS:
        return False
    signed = hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature.encode(), f"v1={signed}".encode())


def in_words(notification: Mapping[str, Any]) -> str:
    """``firing: Device too hot: demo-003 91.4 (1)`` for a line of log; whatever is missing is left out."""
    rule = notification.get("rule") or {}
    alerts = [_alert(alert) for alert in notification.get("alerts") or ()]
    text = f"{notification.get('kind')}: {rule.get('name')}: {', '.join(alerts)} ({notification.get('count')})"
    return "".join(character if character.isprintable() else " " for character in text)


def _alert(alert: Mapping[str, Any]) -> str:
    value = alert.get("value")
    return f"{alert.get('device_name') or alert.get('subject')}{'' if value is None else f' {value:g}'}"


class Receiver(ThreadingHTTPServer):
    """Answers 204 to what is genuine, also when it comes again, and 401 to the rest."""

    daemon_threads = True

    def __init__(self, port: int, secret: str) -> None:
        super().__init__(("127.0.0.1", port), _Request)
        self.secret = secret
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def first_time(self, delivery: str) -> bool:
        """Whether this delivery has not been here yet."""
        with self._lock:
            known = delivery in self._seen
            self._seen[delivery] = None
            while len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            return not known


class _Request(BaseHTTPRequestHandler):
    server: Receiver
    timeout = 10

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MOST_BYTES:
            self._answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE if length.isdecimal() else HTTPStatus.LENGTH_REQUIRED)
            return
        body = self.rfile.read(int(length))
        timestamp, signature = (self.headers.get(f"X-EdgeFlow-{name}", "") for name in ("Timestamp", "Signature"))
        if not genuine(self.server.secret, timestamp, signature, body, time.time()):
            print("webhook refused: its signature is wrong or old", flush=True)
            self._answer(HTTPStatus.UNAUTHORIZED)
            return
        if self.server.first_time(self.headers.get("X-EdgeFlow-Delivery", "")):
            print(f"webhook, signature valid: {in_words(json.loads(body))}", flush=True)
        self._answer(HTTPStatus.NO_CONTENT)

    def _answer(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are told above, in words."""


def main() -> int:
    secret = os.environ.get(VARIABLE)
    if not secret or len(sys.argv) != 2 or not sys.argv[1].isdigit():
        print(f"usage: {VARIABLE}=… python -m config.webhook_receiver PORT", file=sys.stderr)
        return 2
    try:
        receiver = Receiver(int(sys.argv[1]), secret)
    except (OSError, OverflowError) as error:
        print(f"cannot start: {error}", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        # `shutdown` waits for the loop, which the handler has interrupted: so from another thread.
        signal.signal(number, lambda *_: threading.Thread(target=receiver.shutdown).start())
    receiver.serve_forever(poll_interval=0.2)
    return 0


if __name__ == "__main__":
    sys.exit(main())
