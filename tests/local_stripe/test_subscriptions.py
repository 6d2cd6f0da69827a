"""Subscriptions through Stripe's library, month by month under a test clock."""

import pytest
import stripe

from tests.local_stripe.conftest import NOON, Someone

DAY = 86_400
MARCH = NOON + 28 * DAY
APRIL = MARCH + 31 * DAY


def test_a_card_pays_and_each_month_is_billed_an_hour_later(someone: Someone) -> None:
    someone.card()
    made = someone.subscribe()
    assert made.status == "active"
    assert (made["items"].data[0].current_period_start, made["items"].data[0].current_period_end) == (NOON, MARCH)
    someone.after(days=28)
    assert [invoice.status for invoice in someone.invoices()] == ["paid", "draft"]
    someone.after(hours=2)
    first, second = someone.invoices()
    assert (first.total, first.billing_reason) == (4900, "subscription_create")
    assert (second.status, second.amount_paid, second.billing_reason) == ("paid", 4900, "subscription_cycle")
    assert second.number == first.number.replace("-0001", "-0002")
    assert second.lines.data[0].period.end == APRIL
    assert someone.subscription()["items"].data[0].current_period_end == APRIL


def test_a_trial_costs_nothing_warns_and_then_charges(someone: Someone) -> None:
    someone.card()
    made = someone.subscribe(trial_period_days=14)
    assert (made.status, made.trial_end) == ("trialing", NOON + 14 * DAY)
    assert [(invoice.total, invoice.status) for invoice in someone.invoices()] == [(0, "paid")]
    someone.after(days=14, hours=2)
    assert someone.subscription().status == "active"
    assert [invoice.amount_paid for invoice in someone.invoices()] == [0, 4900]


@pytest.mark.parametrize(("missing", "status"), [("cancel", "canceled"), ("pause", "paused")])
def test_a_trial_without_a_card_ends_as_it_was_said(someone: Someone, missing: str, status: str) -> None:
    someone.subscribe(trial_period_days=3, trial_settings={"end_behavior": {"missing_payment_method": missing}})
    someone.after(days=4)
    assert someone.subscription().status == status


def test_without_a_card_the_first_invoice_waits_for_23_hours(someone: Someone) -> None:
    made = someone.subscribe(payment_behavior="default_incomplete", expand=["latest_invoice.confirmation_secret"])
    assert made.status == "incomplete"
    assert isinstance(made.latest_invoice, stripe.Invoice)
    assert made.latest_invoice.confirmation_secret.client_secret.startswith("pi_")
    someone.after(hours=22)
    assert someone.subscription().status == "incomplete"
    someone.after(hours=2)
    assert someone.subscription().status == "incomplete_expired"
    assert someone.invoices()[0].status == "void"


def test_no_card_is_refused_where_nothing_may_be_incomplete(someone: Someone) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        someone.subscribe()
    assert refused.value.code == "resource_missing"
    assert someone.api.v1.subscriptions.list({"customer": someone.id, "status": "all"}).data == []


def test_a_card_that_fails_leaves_it_incomplete_or_refuses(someone: Someone) -> None:
    someone.card("pm_card_chargeCustomerFail")
    with pytest.raises(stripe.CardError) as refused:
        someone.subscribe(payment_behavior="error_if_incomplete")
    assert (refused.value.code, refused.value.error.decline_code) == ("card_declined", "generic_decline")
    assert someone.invoices() == []
    assert someone.subscribe().status == "incomplete"
    someone.card()
    someone.api.v1.invoices.pay(someone.invoices()[0].id)
    assert someone.subscription().status == "active"


def test_renewals_that_fail_are_retried_until_it_is_canceled(someone: Someone) -> None:
    someone.card()
    someone.subscribe()
    someone.card("pm_card_chargeCustomerFail")
    someone.after(days=28, hours=2)
    assert someone.subscription().status == "past_due"
    unpaid = someone.invoices()[-1]
    assert (unpaid.status, unpaid.attempt_count, unpaid.amount_remaining) == ("open", 1, 4900)
    assert unpaid.next_payment_attempt == MARCH + 3600 + 3 * DAY
    someone.after(days=14)
    assert (someone.subscription().status, someone.invoices()[-1].attempt_count) == ("past_due", 3)
    someone.after(days=2)
    ended = someone.subscription()
    assert (ended.status, ended.cancellation_details.reason) == ("canceled", "payment_failed")


def test_unpaid_is_what_the_account_may_ask_for_instead(someone: Someone) -> None:
    someone.card()
    someone.subscribe()
    someone.card("pm_card_chargeCustomerFail")
    someone.server.tell("/settings", after_retries="unpaid")
    someone.after(days=28 + 20)
    assert someone.subscription().status == "unpaid"
    someone.card()
    someone.api.v1.invoices.pay(someone.invoices()[-1].id)
    assert someone.subscription().status == "active"


def test_a_past_due_subscription_is_active_when_it_is_paid(someone: Someone) -> None:
    someone.card()
    someone.subscribe()
    someone.card("pm_card_chargeCustomerFail")
    someone.after(days=28, hours=2)
    with pytest.raises(stripe.CardError):
        someone.api.v1.invoices.pay(someone.invoices()[-1].id)
    assert someone.invoices()[-1].attempt_count == 2  # an attempt that was refused has been one
    someone.card()
    someone.after(days=3)
    assert someone.subscription().status == "active"
    assert someone.api.v1.customers.retrieve(someone.id).delinquent is False


def test_cancel_at_period_end_can_be_taken_back_until_then(someone: Someone) -> None:
    someone.card()
    id = someone.subscribe().id
    change = someone.api.v1.subscriptions.update
    assert change(id, {"cancel_at_period_end": True}).cancel_at == MARCH
    back = change(id, {"cancel_at_period_end": False})
    assert (back.cancel_at, back.canceled_at, back.cancel_at_period_end) == (None, None, False)
    change(id, {"cancel_at_period_end": True})
    someone.after(days=28, hours=2)
    ended = someone.subscription()
    assert (ended.status, ended.ended_at) == ("canceled", MARCH)
    assert len(someone.invoices()) == 1
    with pytest.raises(stripe.InvalidRequestError):
        change(id, {"cancel_at_period_end": False})


def test_cancel_now(someone: Someone) -> None:
    someone.card()
    id = someone.subscribe().id
    assert someone.api.v1.subscriptions.cancel(id).status == "canceled"
    with pytest.raises(stripe.InvalidRequestError) as refused:
        someone.api.v1.subscriptions.cancel(id)
    assert refused.value.http_status == 404


def test_a_change_is_prorated_as_its_preview_says(someone: Someone) -> None:
    someone.card()
    made = someone.subscribe()
    someone.after(days=14)
    items = [{"id": made["items"].data[0].id, "price": "price_enterprise"}]
    at = NOON + 14 * DAY
    details = {"items": items, "proration_behavior": "always_invoice", "proration_date": at}
    shown = someone.api.v1.invoices.create_preview({"subscription": made.id, "subscription_details": details})
    assert [line.amount for line in shown.lines.data] == [-2450, 24950]
    assert len(someone.invoices()) == 1
    change = {"items": items, "proration_behavior": "always_invoice", "proration_date": at}
    changed = someone.api.v1.subscriptions.update(made.id, change)
    assert changed["items"].data[0].price.id == "price_enterprise"
    assert (someone.invoices()[-1].amount_paid, shown.amount_due) == (22500, 22500)
    someone.after(days=14, hours=2)
    assert someone.invoices()[-1].amount_paid == 49900


def test_prorations_wait_for_the_next_invoice_and_credit_is_kept(someone: Someone) -> None:
    someone.card()
    made = someone.subscribe("price_enterprise")
    someone.after(days=14)
    items = [{"id": made["items"].data[0].id, "price": "price_pro"}]
    shown = someone.api.v1.invoices.create_preview({"subscription": made.id, "subscription_details": {"items": items}})
    assert [line.amount for line in shown.lines.data] == [-24950, 2450, 4900]
    someone.api.v1.subscriptions.update(made.id, {"items": items})
    someone.after(days=14, hours=2)
    paid = someone.invoices()[-1]
    assert (paid.total, paid.amount_due, paid.status) == (-17600, 0, "paid")
    someone.after(days=31)
    assert someone.invoices()[-1].amount_due == 0
    assert someone.api.v1.customers.retrieve(someone.id).balance == -17600 + 4900


@pytest.mark.parametrize("behavior", ["pending_if_incomplete", "error_if_incomplete", "allow_incomplete"])
def test_a_change_that_cannot_be_paid(someone: Someone, behavior: str) -> None:
    someone.card()
    made = someone.subscribe()
    someone.card("pm_card_chargeCustomerFail")
    change = {"items": [{"id": made["items"].data[0].id, "price": "price_enterprise"}], "payment_behavior": behavior}
    change |= {"proration_behavior": "always_invoice"}
    if behavior == "error_if_incomplete":
        with pytest.raises(stripe.CardError):
            someone.api.v1.subscriptions.update(made.id, change)
        assert someone.subscription()["items"].data[0].price.id == "price_pro"
        return
    changed = someone.api.v1.subscriptions.update(made.id, change)
    held = behavior == "pending_if_incomplete"
    assert changed["items"].data[0].price.id == ("price_pro" if held else "price_enterprise")
    assert changed.status == ("active" if held else "past_due")
    assert bool(changed.pending_update) is held
    someone.card()
    someone.api.v1.invoices.pay(someone.invoices()[-1].id)
    after = someone.subscription()
    assert (after.status, after["items"].data[0].price.id) == ("active", "price_enterprise")
    assert after.pending_update is None


def test_deleting_a_customer_ends_all(someone: Someone) -> None:
    someone.card()
    someone.subscribe()
    assert someone.api.v1.customers.delete(someone.id).deleted
    assert someone.api.v1.customers.retrieve(someone.id).deleted
    assert someone.subscription().status == "canceled"
    with pytest.raises(stripe.InvalidRequestError):
        someone.subscribe()
    someone.after(days=40)
    assert len(someone.invoices()) == 1
