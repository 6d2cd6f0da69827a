"""Stripe, by its own library: plain functions that take and give plain dicts. Nobody else imports ``stripe``.

What has an effect takes a ``key``, the Idempotency-Key: for 24 hours a call repeated with it has no second effect and
is answered as the first one was, a failure included. Nothing is tried again here: whoever calls has stored what he
wants, and comes back.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import stripe
import structlog
from prometheus_client import Counter, Histogram

from app.errors import BillingNotConfigured
from config.settings import settings

log = structlog.get_logger(__name__)

TIMEOUT_SECONDS = 20.0
CONNECT_SECONDS = 5.0
PAGE = 100
"""Stripe gives no more at once."""
TOLERANCE_SECONDS = 300
"""How far the time of a signature may be from ours, to either side."""

CALLS = Counter("edgeflow_stripe_calls_total", "Calls to Stripe", ["call", "outcome"])
SECONDS = Histogram("edgeflow_stripe_call_seconds", "Time that Stripe took to answer", ["call"])

Object = dict[str, Any]


class StripeDown(Exception):
    """Nobody knows what became of it; the same call may be made again later.

    ``spoiled``: the failure is what Stripe has stored under the call's key and will answer for ever, so that only
    another key can do it.
    """

    def __init__(self, message: str, *, spoiled: bool = False) -> None:
        super().__init__(message)
        self.spoiled = spoiled


class StripeRefused(Exception):
    """Stripe has understood, and said no: the same call would be refused again."""

    def __init__(
        self, message: str, *, code: str | None = None, decline_code: str | None = None, param: str | None = None,
        status: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.message, self.code, self.decline_code = message, code, decline_code
        self.param, self.status = param, status


class CardDeclined(StripeRefused):
    """The bank said no, or wants to hear from the cardholder."""


class BadSignature(Exception):
    """That does not come from Stripe, or is too old; the message says why."""


# Customers


def create_customer(*, name: str, metadata: dict[str, str], key: str) -> Object:
    return _call(
        "customers.create",
        key,
        lambda v1, with_key: v1.customers.create({"name": name, "metadata": metadata}, with_key),
    )


def customer(customer_id: str) -> Object:
    """The customer; of one that was deleted only ``id`` and ``deleted: true``."""
    return _call("customers.retrieve", None, lambda v1, _: v1.customers.retrieve(customer_id))


def set_default_payment_method(customer_id: str, payment_method_id: str, *, key: str) -> Object:
    """From now on invoices are paid by it, but for subscriptions that have one of their own."""
    params = {"invoice_settings": {"default_payment_method": payment_method_id}}
    return _call("customers.update", key, lambda v1, with_key: v1.customers.update(customer_id, params, with_key))


# Payment methods


def attach_payment_method(payment_method_id: str, customer_id: str, *, key: str) -> Object:
    params = {"customer": customer_id}
    return _call(
        "payment_methods.attach",
        key,
        lambda v1, with_key: v1.payment_methods.attach(payment_method_id, params, with_key),
    )


def detach_payment_method(payment_method_id: str, *, key: str) -> Object:
    return _call(
        "payment_methods.detach", key, lambda v1, with_key: v1.payment_methods.detach(payment_method_id, {}, with_key)
    )


def payment_method(payment_method_id: str) -> Object:
    return _call("payment_methods.retrieve", None, lambda v1, _: v1.payment_methods.retrieve(payment_method_id))


def payment_methods(customer_id: str) -> list[Object]:
    """All that are attached, the newest first."""
    params = {"customer": customer_id, "limit": PAGE}
    return _all("payment_methods.list", lambda v1, page: v1.payment_methods.list({**params, **page}))


# Subscriptions

_CONFIRMATION = "latest_invoice.confirmation_secret"


def create_subscription(params: Object, *, key: str) -> Object:
    """``params`` as Stripe documents them. Answers with the newest invoice and what confirms its payment."""
    full = {**params, "expand": [_CONFIRMATION]}
    return _call("subscriptions.create", key, lambda v1, with_key: v1.subscriptions.create(full, with_key))


def update_subscription(subscription_id: str, params: Object, *, key: str) -> Object:
    full = {**params, "expand": [_CONFIRMATION]}
    return _call(
        "subscriptions.update", key, lambda v1, with_key: v1.subscriptions.update(subscription_id, full, with_key)
    )


def cancel_subscription(subscription_id: str, *, key: str) -> Object:
    """End it now."""
    return _call(
        "subscriptions.cancel", key, lambda v1, with_key: v1.subscriptions.cancel(subscription_id, {}, with_key)
    )


def subscription(subscription_id: str) -> Object:
    params = {"expand": [_CONFIRMATION]}
    return _call("subscriptions.retrieve", None, lambda v1, _: v1.subscriptions.retrieve(subscription_id, params))


def subscriptions(customer_id: str) -> list[Object]:
    """All that there are and were, the newest first, each with its newest invoice and what confirms its payment."""
    params = {"customer": customer_id, "status": "all", "limit": PAGE, "expand": [f"data.{_CONFIRMATION}"]}
    return _all("subscriptions.list", lambda v1, page: v1.subscriptions.list({**params, **page}))


# Invoices


def invoices(customer_id: str) -> list[Object]:
    """All, the newest first, each with its first lines (``lines.has_more``: there are more)."""
    params = {"customer": customer_id, "limit": PAGE}
    return _all("invoices.list", lambda v1, page: v1.invoices.list({**params, **page}))


def paid_invoices(subscription_id: str) -> list[Object]:
    """Those of a subscription that were paid, each with its payments (``payments.data``)."""
    params = {"subscription": subscription_id, "status": "paid", "limit": PAGE, "expand": ["data.payments"]}
    return _all("invoices.list_paid", lambda v1, page: v1.invoices.list({**params, **page}))


def refund(payment_intent_id: str, *, key: str) -> Object:
    """Pay back all of a payment that was one too many; refused (``charge_already_refunded``) if that is so already."""
    params = {"payment_intent": payment_intent_id, "reason": "duplicate"}
    return _call("refunds.create", key, lambda v1, with_key: v1.refunds.create(params, with_key))


def invoice_lines(invoice_id: str) -> list[Object]:
    return _all("invoices.lines", lambda v1, page: v1.invoices.line_items.list(invoice_id, {"limit": PAGE, **page}))


def invoice(invoice_id: str) -> Object:
    return _call("invoices.retrieve", None, lambda v1, _: v1.invoices.retrieve(invoice_id))


def preview_change(customer_id: str, subscription_id: str, item_id: str, price: str) -> Object:
    """The next invoice, as it would be if the subscription's item had that price from now on."""
    params = {
        "customer": customer_id,
        "subscription": subscription_id,
        "subscription_details": {
            "items": [{"id": item_id, "price": price}],
            "proration_behavior": "create_prorations",
        },
    }
    return _call("invoices.create_preview", None, lambda v1, _: v1.invoices.create_preview(params))


# Pages of Stripe


def create_checkout_session(params: Object, *, key: str) -> Object:
    return _call("checkout.create", key, lambda v1, with_key: v1.checkout.sessions.create(params, with_key))


def open_checkout_sessions(customer_id: str) -> list[Object]:
    """Those pages of a customer that can still be completed."""
    params = {"customer": customer_id, "status": "open", "limit": PAGE}
    return _all("checkout.list", lambda v1, page: v1.checkout.sessions.list({**params, **page}))


def expire_checkout_session(session_id: str, *, key: str) -> Object:
    """Close a page; one that is not open any more is refused."""
    return _call("checkout.expire", key, lambda v1, with_key: v1.checkout.sessions.expire(session_id, {}, with_key))


def create_portal_session(customer_id: str, return_url: str, *, key: str) -> Object:
    params = {"customer": customer_id, "return_url": return_url}
    return _call("portal.create", key, lambda v1, with_key: v1.billing_portal.sessions.create(params, with_key))


# Usage, prices, events


def create_meter_event(*, name: str, identifier: str, customer_id: str, value: int, timestamp: int, key: str) -> Object:
    """``identifier`` makes a repeat harmless for 24 hours, not longer; ``timestamp``: seconds, at most 35 days old."""
    params = {
        "event_name": name,
        "identifier": identifier,
        "timestamp": timestamp,
        "payload": {"stripe_customer_id": customer_id, "value": str(value)},
    }
    return _call("meter_events.create", key, lambda v1, with_key: v1.billing.meter_events.create(params, with_key))


def meters() -> list[Object]:
    """All that there are, also those that take no events any more."""
    return _all("meters.list", lambda v1, page: v1.billing.meters.list({"limit": PAGE, **page}))


def meter_total(meter_id: str, customer_id: str, start: int, end: int) -> float:
    """What a meter has of a customer from ``start`` to before ``end`` (seconds, whole minutes).

    Events of the last minutes may not be in it yet.
    """
    span = {"customer": customer_id, "start_time": start, "end_time": end, "limit": PAGE}
    found = _all(
        "meters.summaries", lambda v1, page: v1.billing.meters.event_summaries.list(meter_id, {**span, **page})
    )
    return sum(float(one["aggregated_value"]) for one in found)


def price(price_id: str) -> Object:
    return _call("prices.retrieve", None, lambda v1, _: v1.prices.retrieve(price_id))


def event_pages(since: int) -> Iterator[list[Object]]:
    """The events of the last 30 days that are not older than ``since`` (seconds), the newest first."""
    params = {"limit": PAGE, "created": {"gte": since}}
    return _pages("events.list", lambda v1, page: v1.events.list({**params, **page}))


def check_signature(body: bytes, header: str) -> None:
    """Raise BadSignature unless one of our secrets made it, less than 300 s ago or ahead."""
    secrets = [one.strip() for one in settings().stripe_webhook_secret.split(",") if one.strip()]
    if not secrets:
        raise BillingNotConfigured("this installation has no secret that Stripe's events are signed with")
    if not header.isascii():  # the library would fail to compare it
        raise BadSignature("The header is not ASCII")
    why = ""
    for secret in secrets:
        try:
            stripe.WebhookSignature.verify_header(body, header, secret, TOLERANCE_SECONDS)
            break
        except stripe.SignatureVerificationError as error:
            why = str(error.user_message)
        except UnicodeDecodeError:
            why = "The body is not UTF-8"
    else:
        raise BadSignature(why)
    if _signed_at(header) > time.time() + TOLERANCE_SECONDS:  # of which the library thinks nothing
        raise BadSignature("Timestamp outside the tolerance zone")


def _signed_at(header: str) -> int:
    return next(int(part.split("=")[1]) for part in header.split(",") if part.startswith("t="))


# How it is asked


@dataclass(frozen=True)
class _Configured:
    key: str
    base: str


@cache
def _client(configured: _Configured) -> stripe.StripeClient:
    return stripe.StripeClient(
        configured.key,
        base_addresses={"api": configured.base, "files": configured.base, "meter_events": configured.base},
        max_network_retries=0,
        http_client=stripe.RequestsClient(timeout=(CONNECT_SECONDS, TIMEOUT_SECONDS)),
    )


def _v1() -> Any:
    config = settings()
    if not config.sells:
        raise BillingNotConfigured
    return _client(_Configured(config.stripe_api_key, config.stripe_api_base.rstrip("/"))).v1


def _call(name: str, key: str | None, call: Callable[[Any, Any], Any]) -> Object:
    made: Object = _ask(name, lambda: call(_v1(), {"idempotency_key": key} if key else None)).to_dict(for_json=True)
    return made


def _all(name: str, call: Callable[[Any, Object], Any]) -> list[Object]:
    return [one for page in _pages(name, call) for one in page]


def _pages(name: str, call: Callable[[Any, Object], Any]) -> Iterator[list[Object]]:
    after: Object = {}
    while True:
        page = _ask(name, partial(call, _v1(), after))
        found = [one.to_dict(for_json=True) for one in page.data]
        yield found
        if not page.has_more or not found:
            return
        after = {"starting_after": found[-1]["id"]}


def _ask(name: str, ask: Callable[[], Any]) -> Any:
    began = time.monotonic()
    outcome, request_id = "done", None
    try:
        answer = ask()
        request_id = getattr(answer.last_response, "request_id", None)
        return answer
    except stripe.StripeError as error:
        told = _told(error)
        outcome, request_id = type(told).__name__, error.request_id
        raise told from error
    except BillingNotConfigured:
        outcome = "not configured"
        raise
    finally:
        seconds = time.monotonic() - began
        CALLS.labels(name, outcome).inc()
        SECONDS.labels(name).observe(seconds)
        log.info("stripe", call=name, outcome=outcome, stripe_request=request_id, ms=round(seconds * 1000))


def _told(error: stripe.StripeError) -> Exception:
    """What a failure of the library means for the caller."""
    status = error.http_status
    message = error.user_message or type(error).__name__
    said: Any = error.error
    replayed = str((error.headers or {}).get("idempotent-replayed", "")).lower() == "true"
    if isinstance(error, stripe.IdempotencyError) and status != 409:
        return StripeDown(message, spoiled=True)  # the same key, another question
    if status in (
        401,
        403,
    ):  # the key is wrong, or may not do this: the operator's to set right, and no answer to users
        log.error("stripe does not accept the key", error=message)
        return StripeDown("Stripe does not accept the key")
    if status is None or status >= 500 or status in (409, 429) or isinstance(error, stripe.APIConnectionError):
        return StripeDown(message, spoiled=replayed and (status or 0) >= 500)
    kind = CardDeclined if isinstance(error, stripe.CardError) or status == 402 else StripeRefused
    return kind(
        message, code=error.code, decline_code=getattr(said, "decline_code", None), param=getattr(said, "param", None),
        status=status,
    )  # fmt: skip
