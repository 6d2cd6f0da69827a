"""Stripe's endpoints, one module for each kind of object. Importing this package declares them all."""

from tools.local_stripe.resources import (
    catalog,
    customers,
    events,
    intents,
    invoices,
    meters,
    payment_methods,
    refunds,
    sessions,
    subscriptions,
)

__all__ = [
    "catalog",
    "customers",
    "events",
    "intents",
    "invoices",
    "meters",
    "payment_methods",
    "refunds",
    "sessions",
    "subscriptions",
]
