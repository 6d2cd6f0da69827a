"""The local Stripe as a process of its own, and a receiver of what it sends."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import stripe

from tests.platform import TLS, free_port

ROOT = Path(__file__).parent.parent.parent
KEY = "sk_test_local_stripe"
SECRETS = ("whsec_first", "whsec_second")
PLANS = """
[free]
name = "Free"
[pro]
name = "Pro"
trial_days = 14
price = { amount = 4900, currency = "eur", interval = "month", stripe_price = "price_pro" }
[enterprise]
name = "Enterprise"
price = { amount = 49900, currency = "eur", interval = "month", stripe_price = "price_enterprise" }
"""


class LocalStripe:
    """``python -m tools.local_stripe`` on a free port with a file in ``folder``."""

    def __init__(self, folder: Path, *options: str) -> None:
        plans = folder / "plans.toml"
        plans.write_text(PLANS)
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self._command = [
            sys.executable, "-m", "tools.local_stripe", "--port", str(self.port), "--key", KEY,
            "--data", str(folder / "stripe.sqlite"), "--plans", str(plans), "--meter", "device_hours", *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.local = httpx.Client(base_url=f"{self.base}/_local", timeout=30, trust_env=False, verify=TLS)
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        until(self._up)

    def _up(self) -> bool:
        try:
            return self.local.get("/health").is_success
        except httpx.TransportError:
            return False

    def stop(self, how: int = signal.SIGTERM) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(10)

    def client(self, key: str = KEY) -> stripe.StripeClient:
        """Stripe's own library, which never tries again by itself here."""
        return stripe.StripeClient(key, base_addresses={"api": self.base}, max_network_retries=0)

    def tell(self, path: str, /, **body: Any) -> Any:
        answer = self.local.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def advance(self, clock: str, to: int) -> None:
        self.tell("/clock", test_clock=clock, advance_to=to)


class Receiver(ThreadingHTTPServer):
    """Keeps what is delivered: ``(signature, body)``. ``refuse``: that many are answered 500 first."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Delivery)
        self.deliveries: list[tuple[str, bytes]] = []
        self.refuse = 0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/webhook"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def events(self, about: str | None = None) -> list[dict[str, Any]]:
        """Delivered events, in the order of arrival; ``about``: of one object or of one customer."""
        found = [json.loads(body) for _, body in list(self.deliveries)]
        named = [(event, event["data"]["object"]) for event in found]
        return [event for event, obj in named if about in (None, obj.get("id"), obj.get("customer"))]


class _Delivery(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(length := int(self.headers["Content-Length"]))
        if len(body) < length:
            return  # its sender was killed
        if refused := self.server.refuse > 0:
            self.server.refuse -= 1
        else:
            self.server.deliveries.append((self.headers["Stripe-Signature"], body))
        self.send_response(500 if refused else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def until(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Wait for something true. Raises AssertionError."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {seconds} s")
