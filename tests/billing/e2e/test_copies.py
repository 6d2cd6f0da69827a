"""Many copies of one event at once, over HTTP."""

import hashlib
import hmac
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.billing.e2e import kills
from tests.billing.e2e.shop import Shop
from tests.platform import TLS

pytestmark = [pytest.mark.xdist_group("billing"), pytest.mark.slow]

COPIES = 50


def test_fifty_copies_at_once_are_one_event(shop: Shop) -> None:
    ada = shop.customer()
    kills.ACTS["subscribe"](ada)
    shop.platform.rest()  # the worker would look, and the account's count of reasons to look is what is counted here
    shop.stripe.control("webhooks", hold=True)
    (customer,) = shop.stripe.customers_of(ada.org_id)
    shop.stripe.post(f"/customers/{customer['id']}", name="Acme and Sons")
    told = next(one for one in shop.stripe.get("/events", limit=20)["data"] if one["type"] == "customer.updated")
    assert told["data"]["object"]["id"] == customer["id"]
    before = wanted(shop, ada.org_id)
    try:
        with ThreadPoolExecutor(COPIES) as pool:
            answers = list(pool.map(lambda _: deliver(shop, told), range(COPIES)))
        assert answers == [200] * COPIES
        assert wanted(shop, ada.org_id) == before + 1
        assert shop.rows("SELECT count(*) FROM stripe_events WHERE id = %(id)s", id=told["id"]) == [(1,)]
    finally:
        shop.stripe.control("webhooks", hold=False)
        shop.platform.resume()


def wanted(shop: Shop, org_id: str) -> int:
    ((number,),) = shop.rows("SELECT wanted FROM billing_accounts WHERE org_id = %(o)s", o=org_id)
    return int(number)


def deliver(shop: Shop, event: dict[str, Any]) -> int:
    """As Stripe sends it, signed; the status of the answer."""
    body, at = json.dumps(event).encode(), int(time.time())
    secret = shop.platform.environ["STRIPE_WEBHOOK_SECRET"].encode()
    signature = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "Stripe-Signature": f"t={at},v1={signature}"}
    url = f"{shop.platform.url()}/api/v1/billing/webhooks/stripe"
    return httpx.post(url, content=body, headers=headers, timeout=30, verify=TLS).status_code
