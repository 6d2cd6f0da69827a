"""The one Stripe account of this server: its objects, its time, its events."""

import copy
import random
import secrets
import string
import time
from dataclasses import dataclass, field
from typing import Any

from tools.local_stripe import errors
from tools.local_stripe.periods import due
from tools.local_stripe.store import Obj, Store

API_VERSION = "2026-10-28.endive"
_ALPHABET = string.ascii_letters + string.digits

PREFIXES = {
    "cus": "customer", "pm": "payment_method", "sub": "subscription", "in": "invoice", "pi": "payment_intent",
    "seti": "setup_intent", "ch": "charge", "prod": "product", "price": "price", "clock": "test_helpers.test_clock",
    "re": "refund", "inpay": "invoice_payment", "evt": "event", "mtr": "billing.meter", "cs": "checkout.session",
}  # fmt: skip


def new_id(prefix: str, length: int = 24) -> str:
    """``cus_Ab3…``."""
    return f"{prefix}_{''.join(secrets.choice(_ALPHABET) for _ in range(length))}"


@dataclass
class Account:
    store: Store
    base: str  # http://127.0.0.1:PORT, for the links in objects
    key: str
    webhook_url: str | None = None
    webhook_secrets: list[str] = field(default_factory=list)
    request: dict[str, Any] | None = None  # {id, idempotency_key} of the request under way, for its events

    def now(self, clock: str | None = None) -> int:
        """Seconds since 1970 by a test clock, or by the real one."""
        if clock and (found := self.store.get(clock)):
            return int(found["_now"])
        return int(time.time())

    def now_of(self, obj: Obj) -> int:
        """By the clock that an object, or else its customer, stands under."""
        return self.now(self.clock_of(obj))

    def clock_of(self, obj: Obj) -> str | None:
        if clock := obj.get("test_clock") or obj.get("_clock"):
            return str(clock)
        customer = self.store.get(obj["customer"]) if obj.get("customer") else None
        return customer.get("test_clock") if customer else None

    def get(self, kind: str, id: str, param: str = "id", status: int = 404) -> Obj:
        """Raises resource_missing. A deleted object is a missing one, except where asked for by `find`."""
        found = self.store.get(id)
        if found is None or found["object"] != kind or found.get("deleted"):
            raise errors.no_such(kind, id, param, status)
        return found

    def named(self, kind: str, id: str, param: str) -> Obj:
        """`get` for an id that came in a parameter."""
        return self.get(kind, id, param, 400)

    def save(self, obj: Obj) -> Obj:
        return self.store.put(obj, due(obj))

    def emit(self, type: str, obj: Obj, previous: dict[str, Any] | None = None) -> None:
        """Record an event of an object as it is now, and have it delivered."""
        webhooks = self.store.setting("webhooks", {})
        data: dict[str, Any] = {"object": public(obj)}
        if previous:
            data["previous_attributes"] = previous
        # Events carry real time, also those of objects under a test clock: a sweep asks for what is new.
        event = {
            "id": new_id("evt"), "object": "event", "api_version": API_VERSION, "created": int(time.time()),
            "data": data, "livemode": False, "pending_webhooks": int(bool(self.webhook_url)), "type": type,
            "request": self.request or {"id": None, "idempotency_key": None},
        }  # fmt: skip
        self.save(event)
        if not self.webhook_url:
            return
        drop = int(webhooks.get("drop", 0))
        if drop:
            self.store.set("webhooks", {**webhooks, "drop": drop - 1})
        for _ in range(0 if drop else 1 + int(webhooks.get("duplicate", 0))):
            due = time.time() + (random.uniform(0, 0.5) if webhooks.get("shuffle") else 0)
            self.store.db.execute("INSERT INTO deliveries (event, due) VALUES (?, ?)", (event["id"], due))

    def update(self, obj: Obj, type: str, **changes: Any) -> Obj:
        """Change an object, save it and tell of it, with what its changed fields were."""
        previous = {
            name: obj.get(name) for name in changes if not name.startswith("_") and obj.get(name) != changes[name]
        }
        obj.update(changes)
        self.save(obj)
        if previous:
            self.emit(type, obj, previous)
        return obj


HIDDEN = {
    "customer": ("subscriptions", "sources", "tax", "tax_ids"),
    "invoice": ("confirmation_secret", "payments"),
    "checkout.session": ("line_items",),
}


def public(obj: Obj) -> Obj:
    """An object as the world sees it: without what is the server's own, and without what only ``expand`` shows."""
    hidden = HIDDEN.get(obj.get("object", ""), ())
    shown = {name: value for name, value in obj.items() if not name.startswith("_") and name not in hidden}
    return copy.deepcopy(shown)


def listing(data: list[Obj], url: str, has_more: bool = False) -> Obj:
    return {"object": "list", "data": data, "has_more": has_more, "url": url}
