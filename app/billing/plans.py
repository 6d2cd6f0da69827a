"""The plans of this installation, for whoever asks what one includes."""

from datetime import timedelta
from typing import Any

from config.plans import DEFAULT, QUOTAS, Plan, Price, Retention, plans

__all__ = ["DEFAULT", "QUOTAS", "Plan", "Price", "Retention", "by_price", "listed", "longest", "plan", "plans"]


def plan(name: str) -> Plan:
    """The plan of that id; the free one for a plan that there is no more."""
    return plans().get(name) or plans()[DEFAULT]


def listed() -> list[dict[str, Any]]:
    """The free plan and those that are sold, the smallest first, in the API's shape."""
    return [_shown(one) for one in plans().values() if one.price or one.id == DEFAULT]


def _shown(one: Plan) -> dict[str, Any]:
    price = one.price
    return {
        "id": one.id,
        "name": one.name,
        "price": price.amount if price else 0,
        "currency": price and price.currency,
        "interval": price and price.interval,
        "trial_days": one.trial_days,
        "quotas": {**one.quotas, "retention_days": one.retention.raw.days},
    }


def by_price(stripe_price: str) -> Plan | None:
    """The plan that is sold at that price of Stripe's; None for a price that is none of ours."""
    return next((one for one in plans().values() if one.price and one.price.stripe_price == stripe_price), None)


def longest(kind: str) -> timedelta:
    """The longest time that any plan keeps ``kind`` (a field of ``Retention``)."""
    return max(getattr(one.retention, kind) for one in plans().values())
