"""The platform's processes with somebody to pay: a local Stripe whose clock the tests move, and a gate before it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import dramatiq
import httpx
import psycopg
from dramatiq.brokers.redis import RedisBroker

from app.jobs import NAMESPACE
from tests.billing.e2e.gate import Gate
from tests.invariants.servers import Servers
from tests.platform import TLS, Platform

PLANS = Path(__file__).with_name("plans.toml")
PASSWORD = "correct horse battery"


def until(check: Callable[[], Any], timeout: float = 30, every: float = 0.1) -> Any:
    """Wait until ``check`` gives something true, and give that."""
    deadline = time.monotonic() + timeout
    while not (found := check()):
        assert time.monotonic() < deadline, f"still {found!r} after {timeout} s"
        time.sleep(every)
    return found


class StripeAccount:
    """Our account at the local Stripe, as its dashboard and its clock would have it."""

    def __init__(self, url: str, key: str) -> None:
        self.http = httpx.Client(base_url=url, auth=(key, ""), timeout=30, trust_env=False, verify=TLS)

    def get(self, path: str, **query: Any) -> Any:
        return self._content(self.http.get(f"/v1{path}", params=query))

    def post(self, path: str, **form: Any) -> Any:
        return self._content(self.http.post(f"/v1{path}", data=form))

    def control(self, path: str, **body: Any) -> Any:
        return self._content(self.http.post(f"/_local/{path}", json=body))

    def customers_of(self, org_id: str) -> list[Any]:
        listed = self.get("/customers", limit=100)["data"]
        return [one for one in listed if one["metadata"].get("org_id") == org_id]

    def clock(self) -> str:
        """A test clock that stands at the present; customers made from now on live by it."""
        made = self.post("/test_helpers/test_clocks", frozen_time=int(time.time()))["id"]
        self.control("clock", test_clock=made)
        return str(made)

    def advance(self, clock: str, to: int) -> None:
        """Move a clock; everything that falls due until then has happened when this returns."""
        self.post(f"/test_helpers/test_clocks/{clock}/advance", frozen_time=to)
        until(lambda: self.get(f"/test_helpers/test_clocks/{clock}")["status"] == "ready")

    def _content(self, answer: httpx.Response) -> Any:
        assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
        return answer.json()


class Customer:
    """A person who registered, over HTTP, with an organization of his own."""

    def __init__(self, url: str) -> None:
        self.http = httpx.Client(base_url=f"{url}/api/v1", timeout=60, trust_env=False, verify=TLS)
        names = {"name": "Ada", "organization_name": "Acme"}
        body = {"email": f"{uuid4().hex[:12]}@example.com", "password": PASSWORD, **names}
        made = self("POST", "/auth/register", body, expect=201)
        self.org_id = str(made["organization"]["id"])
        self.http.headers["Authorization"] = f"Bearer {made['access_token']}"

    def __call__(self, method: str, path: str, body: Any = None, expect: int = 200) -> Any:
        answer = self.http.request(method, path, json=body)
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def subscription(self) -> Any:
        return self("GET", "/billing/subscription")

    def becomes(self, *status: str) -> Any:
        """Wait until the subscription is in one of these states."""
        return until(lambda: (found := self.subscription())["status"] in status and found)

    def quota(self, name: str) -> Any:
        return next(one for one in self("GET", "/billing/quotas")["items"] if one["quota"] == name)

    def device(self, expect: int = 201) -> Any:
        return self("POST", "/devices", {"name": f"pump-{uuid4().hex[:8]}"}, expect=expect)


@dataclass
class Shop:
    """The platform, what stands between it and Stripe, and Stripe."""

    servers: Servers
    platform: Platform
    gate: Gate
    stripe: StripeAccount

    def __post_init__(self) -> None:
        self._broker = RedisBroker(url=self.servers.environ["REDIS_URL"], namespace=NAMESPACE)

    def customer(self) -> Customer:
        return Customer(self.platform.url())

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Of the database as it is, across tenants."""
        with psycopg.connect(self.servers.superuser_url, autocommit=True) as connection:
            done = connection.execute(query, values)
            return done.fetchall() if done.description else []

    def job(self, name: str, *args: Any) -> None:
        """Ask for a job now, as the scheduler does when it is due."""
        message: dramatiq.Message[Any] = dramatiq.Message(
            queue_name=name.split(".")[0], actor_name=name, args=args, kwargs={}, options={}
        )
        self._broker.declare_queue(message.queue_name)
        self._broker.enqueue(message)


@contextlib.contextmanager
def open_shop(folder: Path, servers: Servers, **environ: str) -> Iterator[Shop]:
    """``folder``: for logs, and the local Stripe's memory."""
    folder.mkdir(parents=True, exist_ok=True)
    gate = Gate(lambda: platform.kill("worker"))
    told = {
        **servers.environ, "EDGEFLOW_PLANS_FILE": str(PLANS), "EDGEFLOW_RATE_LIMITS": "0", **environ,
        "STRIPE_API_BASE": gate.url,
    }  # fmt: skip
    platform = Platform(folder, environ=told, stripe=True)
    gate.target = platform.stripe_url
    with contextlib.closing(gate), platform:
        stripe = StripeAccount(platform.stripe_url, platform.stripe_key)
        until(lambda: _answers(stripe))
        yield Shop(servers, platform, gate, stripe)


def _answers(stripe: StripeAccount) -> bool:
    try:
        return bool(stripe.get("/customers"))
    except httpx.TransportError:
        return False
