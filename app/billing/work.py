"""An operation under way at Stripe: what every kind of it has at hand."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text

from app import db
from app.billing import accounts, stripe_client
from app.billing.accounts import Claimed, Operation
from app.billing.models import OVER
from app.billing.stripe_client import Object, StripeDown

_NAME = text("SELECT name FROM organizations WHERE id = :org")


@dataclass(frozen=True)
class Work:
    """An operation under way. Every call to Stripe goes through it, so that none is made without the lease."""

    claimed: Claimed
    operation: Operation

    def ask(self, call: Callable[..., Any], *args: Any) -> Any:
        """Make a call that changes nothing."""
        accounts.renew(self.claimed)
        return call(*args)

    def do(self, step: str, call: Callable[..., Object], *args: Any, **options: Any) -> Object:
        """Make a call that has an effect; ``step`` is its name within the operation."""
        accounts.renew(self.claimed)
        try:
            return call(*args, key=self.operation.key(step), **options)
        except StripeDown as down:
            if down.spoiled:
                self.operation.spoiled[step] = self.operation.spoiled.get(step, 0) + 1
            raise

    def customer(self) -> str:
        """The organization's customer, made if there is none (or if Stripe's was deleted)."""
        claimed = self.claimed
        if claimed.customer_id is None or claimed.customer_deleted:
            accounts.renew(claimed)
            generation = claimed.generation + claimed.customer_deleted
            given_up = self.operation.spoiled.get("customer", 0)
            key = f"customer:{claimed.org_id}:{generation}" + (f":{self.operation.id}:{given_up}" if given_up else "")
            try:
                made = stripe_client.create_customer(
                    name=_name(claimed), metadata={"org_id": str(claimed.org_id)}, key=key
                )
            except StripeDown as down:
                if down.spoiled:
                    self.operation.spoiled["customer"] = given_up + 1
                raise
            accounts.keep_customer(claimed, made["id"])
        assert claimed.customer_id is not None
        return claimed.customer_id

    def live(self) -> list[Object]:
        """The customer's subscriptions that have not ended, the newest first."""
        found = self.ask(stripe_client.subscriptions, self.customer())
        return [one for one in found if one["status"] not in OVER]


def _name(claimed: Claimed) -> str:
    with db.transaction(claimed.org_id):
        return str(db.session.scalar(_NAME, {"org": claimed.org_id}))
