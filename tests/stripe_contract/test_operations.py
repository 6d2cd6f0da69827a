"""Every kind of operation, performed by the worker's own code: what it asks of Stripe, Stripe knows."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from app.billing import performers
from config.settings import settings
from tests import make
from tests.billing.local import LocalStripe, Organization
from tests.platform import TLS
from tests.stripe_contract.openapi import OpenAPI
from tests.stripe_contract.recorder import Exchange, recording
from tests.stripe_contract.stripe_mock import AUTHORIZED

pytestmark = pytest.mark.xdist_group("stripe_contract")
PAGES = {"success_url": "https://a.example/paid", "cancel_url": "https://a.example/left"}


class Owner(Organization):
    """Remembers the kinds of operation that were run."""

    def __init__(self, org_id: UUID, stripe: LocalStripe, kinds: set[str]) -> None:
        super().__init__(org_id, stripe)
        self.kinds = kinds

    def submit(self, kind: str, **payload: Any) -> UUID:
        self.kinds.add(kind)
        return super().submit(kind, **payload)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory, openapi: OpenAPI) -> Iterator[tuple[set[str], list[Exchange]]]:
    """(kinds of operation, all that they asked)."""
    server = LocalStripe(tmp_path_factory.mktemp("stripe"))
    kinds: set[str] = set()
    try:
        with recording(server.base) as recorder, pytest.MonkeyPatch.context() as patch:
            for name, value in {**server.environ, "STRIPE_API_BASE": recorder.address}.items():
                patch.setenv(name, value)
            settings.cache_clear()
            buy_change_and_leave(Owner(make.organization(), server, kinds))
            try_and_confirm(Owner(make.organization(), server, kinds))
            yield kinds, list(recorder.exchanges)
    finally:
        settings.cache_clear()
        server.stop()


def buy_change_and_leave(owner: Owner) -> None:
    owner.run("subscription.create", plan="pro", payment_method_id="pm_card_visa", trial=False)
    owner.run("subscription.change", plan="enterprise")
    owner.run("subscription.cancel", at="period_end")
    owner.run("subscription.resume")
    added = owner.run("payment_method.add", payment_method_id="pm_card_mastercard", default=False)["stripe_id"]
    owner.run("payment_method.default", stripe_id=added)
    owner.run("payment_method.remove", stripe_id=added)
    owner.run("portal.create", return_url="https://a.example/")
    report_again_after_a_day(owner)
    owner.run("subscription.cancel", at="now")
    for _ in range(2):  # the second closes the first
        page = owner.run("checkout.create", plan="pro", **PAGES)["url"]
    buy_twice(owner, page)


def buy_twice(owner: Owner, page: str) -> None:
    """On a page, and beside it: the second is taken back."""
    httpx.post(page, data={"card": "pm_card_visa"}, trust_env=False, verify=TLS)
    owner.stripe.v1.subscriptions.create(
        {
            "customer": str(owner.account.customer_id), "items": [{"price": "price_edgeflow_pro_month"}],
            "metadata": {"org_id": str(owner.id)},
        }
    )  # fmt: skip
    owner.want()
    owner.work()
    owner.kinds |= {
        row.kind for row in owner.rows("SELECT kind FROM billing_operations WHERE kind = 'checkout.settle'")
    }


def report_again_after_a_day(owner: Owner) -> None:
    """The first answer was lost, so the meters are asked what they have."""
    hour = store_hour(owner)
    owner.stripe.fault(0, "/v1/billing/meter_events", after_effect=True)
    operation_id = owner.submit("meter.report", hour=hour)
    owner.work()
    owner.execute("UPDATE billing_operations SET created_at = now() - interval '25 hours' WHERE state = 'queued'")
    owner.due_now()
    owner.work()
    owner.wait(operation_id)


def store_hour(owner: Owner) -> str:
    """An hour's usage of everything that there is a meter for."""
    stored = owner.row(
        "INSERT INTO usage_hours (org_id, hour, device_seconds, commands, deployments, points) "
        "VALUES (:org, date_trunc('hour', now()) - interval '3 hours', 7200, 3, 1, 1000) RETURNING hour",
        org=owner.id,
    )
    return str(stored.hour.isoformat())


def try_and_confirm(owner: Owner) -> None:
    owner.run("subscription.create", plan="pro", trial=True)
    owner.run("subscription.cancel", at="now")
    wants_holder = "pm_card_authenticationRequired"
    owner.run("subscription.create", plan="pro", payment_method_id=wants_holder, trial=False)
    # Both may have been made within a second: which is the newer one, does not show.
    assert {row.status for row in owner.rows("SELECT status FROM subscriptions")} == {"canceled", "incomplete"}


def test_every_kind_of_operation_is_run(asked: tuple[set[str], list[Exchange]]) -> None:
    assert asked[0] == set(performers.KINDS)


def test_the_local_server_answers_them_as_stripe_would(
    asked: tuple[set[str], list[Exchange]], openapi: OpenAPI
) -> None:
    for one in asked[1]:
        assert openapi.faults_of_answer(one.method, one.path, one.status, one.body) == []


def test_stripe_knows_what_operations_ask(
    asked: tuple[set[str], list[Exchange]], openapi: OpenAPI, stripe_mock: str
) -> None:
    assert len(asked[1]) > 50
    for one in asked[1]:
        assert openapi.faults_of_request(one.method, one.path, one.parameters) == []
        form = one.method == "POST"
        headers = {**AUTHORIZED, "Content-Type": one.headers["content-type"]} if form else AUTHORIZED
        body: Any = {"content": one.sent} if form else {"params": dict(one.parameters)}
        taken = httpx.request(one.method, stripe_mock + one.path, headers=headers, trust_env=False, **body, verify=TLS)
        assert taken.status_code == 200, (one, taken.text)
