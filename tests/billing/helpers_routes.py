"""Billing as its users have it: somebody who registered, over the API, and a worker that carries out what he asks."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from app import db
from app.billing import accounts, sync
from tests import make
from tests.billing.local import LocalStripe

PASSWORD = "correct horse battery"
GOOD, DECLINED, CONFIRMED = "pm_card_visa", "pm_card_chargeCustomerFail", "pm_card_threeDSecure2Required"


class Buyer(make.Client):
    """A person with an organization of his own, who signed up a moment ago."""

    def __init__(self, app: Any, stripe: LocalStripe | None) -> None:
        super().__init__(app, {})
        self.app, self.stripe = app, stripe
        person = {
            "email": f"{uuid4().hex}@example.com",
            "password": PASSWORD,
            "name": "Ada",
            "organization_name": "Acme",
        }
        made = self.post("/auth/register", person, expect=201)
        self.headers = {"Authorization": f"Bearer {made['access_token']}"}
        self.org_id = UUID(made["organization"]["id"])

    def subscribe(self, plan: str = "pro", card: str = GOOD, **more: Any) -> Any:
        body = {"plan": plan, "payment_method_id": card, **more}
        return self.post("/billing/subscription", body, expect=201)

    def colleague(self, role: str) -> make.Client:
        return make.client(self.app, self.org_id, role)

    def rows(self, query: str) -> list[Any]:
        with db.transaction(self.org_id) as session:
            return list(session.execute(text(query)).all())

    def fault(self, status: int, path: str, times: int = 1) -> None:
        """Stripe answers so."""
        assert self.stripe is not None
        body = {"status": status, "path": path, "times": times}
        self.stripe.http.post("/_local/faults", json=body).raise_for_status()

    def calls(self, method: str, path: str) -> list[dict[str, Any]]:
        """What of this kind came to Stripe."""
        assert self.stripe is not None
        return self.stripe.requests(method, path)


@contextmanager
def worker() -> Iterator[None]:
    """A worker that looks for what is due, in a thread."""
    over = threading.Event()

    def run() -> None:
        while not over.is_set():
            with db.transaction(system=True):
                due = accounts.due()
            for org_id in due:
                sync.work(org_id)
            time.sleep(0.02)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(30)


def until(found: Callable[[], Any], seconds: float = 10.0) -> Any:
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, "it does not come to pass"
        time.sleep(0.05)
    return value
