"""A local Stripe for tests of billing, and what its dashboard would do there; workers' jobs, done here and now."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import stripe
from sqlalchemy import text

from app import db
from app.billing import accounts, events, operations, sync
from tests.platform import ROOT, TLS, free_port

KEY = "sk_test_of_the_tests"
VISA = {"plan": "pro", "payment_method_id": "pm_card_visa", "trial": False}
"""To ``subscription.create``: paid at once by a card that pays."""
SECRETS = ("whsec_of_the_tests", "whsec_of_the_future")


class LocalStripe:
    """``python -m tools.local_stripe`` on a free port, with its data in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.base = f"http://127.0.0.1:{(port := free_port())}"
        self.environ = {
            "STRIPE_API_KEY": KEY, "STRIPE_API_BASE": self.base, "STRIPE_WEBHOOK_SECRET": ",".join(SECRETS),
        }  # fmt: skip
        meters = [f"--meter=edgeflow_{name}" for name in ("device_seconds", "commands", "deployments", "points")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tools.local_stripe", "--port", str(port), "--data", str(folder / "stripe.sqlite"),
             "--key", KEY, "--plans", "config/plans.toml", *meters],
            cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        self.http = httpx.Client(base_url=self.base, timeout=30, trust_env=False, verify=TLS)
        self.v1 = stripe.StripeClient(KEY, base_addresses={"api": self.base}, max_network_retries=0).v1
        self._wait()

    def _wait(self) -> None:
        until = time.monotonic() + 20
        while True:
            try:
                return self.http.get("/_local/health").raise_for_status() and None
            except httpx.HTTPError:
                assert time.monotonic() < until, "the local Stripe does not start"
                time.sleep(0.05)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(10)

    def control(self, method: str, url: str, /, **body: Any) -> Any:
        answer = self.http.request(method, f"/_local{url}", json=body or None).raise_for_status()
        return answer.json() if answer.content else None

    def fault(self, status: int | None, path: str = "/v1/", times: int = 1, **options: Any) -> None:
        """``status`` 0 cuts the connection."""
        self.control("POST", "/faults", status=status, path=path, times=times, **options)

    def quiet(self) -> None:
        """Without faults and with no request in its memory."""
        self.control("DELETE", "/faults")
        self.control("DELETE", "/requests")

    def requests(self, method: str | None = None, path: str = "/v1/") -> list[dict[str, Any]]:
        found = self.control("GET", "/requests")
        return [one for one in found if one["path"].startswith(path) and method in (None, one["method"])]

    def events(self, customer: str) -> list[dict[str, Any]]:
        """The events about a customer, the oldest first, as they are delivered."""
        told = [one.to_dict(for_json=True) for one in self.v1.events.list({"limit": 100}).auto_paging_iter()]
        return [one for one in reversed(told) if events.understood(one).customer_id == customer]


def sign(body: bytes, secret: str = SECRETS[0], at: float | None = None) -> str:
    """The ``Stripe-Signature`` of a delivery."""
    return stripe.WebhookSignature.generate_signature_header(body.decode(), secret, int(at or time.time()))


def deliver(event: dict[str, Any], secret: str = SECRETS[0]) -> bool:
    """Have an event taken as from the webhook."""
    body = json.dumps(event).encode()
    with db.transaction():
        return events.take(body, sign(body, secret))


class Organization:
    """An organization, with what its owner and the workers do for it."""

    def __init__(self, org_id: UUID, stripe: LocalStripe) -> None:
        self.id, self.stripe = org_id, stripe

    def submit(self, kind: str, **payload: Any) -> UUID:
        with db.transaction(self.id):
            return operations.submit(self.id, kind, payload, "test")

    def work(self) -> None:
        """What ``billing.work`` does, until nothing is due."""
        while sync.work(self.id):
            pass

    def wait(self, operation_id: UUID, seconds: float = 0.2) -> dict[str, Any]:
        with db.transaction(self.id):
            return operations.wait(self.id, operation_id, seconds)

    def run(self, kind: str, **payload: Any) -> dict[str, Any]:
        """Submit, perform, and have the result; raises what the owner would be told."""
        operation_id = self.submit(kind, **payload)
        self.work()
        return self.wait(operation_id)

    def want(self) -> None:
        """As an event does."""
        with db.transaction(self.id):
            accounts.want(self.id)

    def due_now(self) -> None:
        """Time passes: leases end, pauses too."""
        self.execute("UPDATE billing_accounts SET lease_until = NULL, next_attempt_at = now() - interval '1 s'")

    def execute(self, statement: str, **values: Any) -> None:
        with db.transaction(self.id) as session:
            session.execute(text(statement), values)

    def rows(self, query: str, **values: Any) -> list[Any]:
        with db.transaction(self.id) as session:
            return list(session.execute(text(query), values).all())

    def row(self, query: str, **values: Any) -> Any:
        (found,) = self.rows(query, **values)
        return found

    @property
    def account(self) -> Any:
        return self.row("SELECT * FROM billing_accounts")

    @property
    def plan(self) -> str:
        return str(self.row("SELECT plan FROM organizations").plan)

    @property
    def subscription(self) -> Any:
        """The newest."""
        return self.rows("SELECT * FROM subscriptions ORDER BY created_at DESC, stripe_id LIMIT 1")[0]

    def state(self) -> dict[str, Any]:
        """All that Stripe's word decides, without our own ids and times."""
        ours = "'{id,org_id,updated_at,client_secret}'::text[]"
        tables = {
            table: [row.j for row in self.rows(f"SELECT to_jsonb(t) - {ours} AS j FROM {table} t ORDER BY stripe_id")]
            for table in ("subscriptions", "payment_methods", "invoices")
        }
        return {**tables, "plan": self.plan}
