"""Cards: attached, refused, confirmed by their owner, removed."""

import httpx
import pytest
import stripe

from tests.local_stripe.conftest import Someone
from tests.platform import TLS


def confirm(someone: Someone, intent: str, outcome: str = "succeed") -> httpx.Response:
    """What the card's owner tells his bank."""
    return httpx.post(
        f"{someone.server.base}/_local/confirm/{intent}", json={"outcome": outcome}, trust_env=False, verify=TLS
    )


def intent_of(someone: Someone) -> str:
    listed = someone.api.v1.invoice_payments.list({"invoice": someone.invoices()[-1].id}).data
    return str(listed[0].payment.payment_intent)


def test_each_use_of_a_token_is_a_card_of_its_own(someone: Someone) -> None:
    first, second = someone.card(), someone.card("pm_card_mastercard")
    listed = someone.api.v1.payment_methods.list({"customer": someone.id, "type": "card"}).data
    assert [one.id for one in listed] == [second, first]
    assert [one.card.last4 for one in listed] == ["4444", "4242"]
    assert first != someone.card()


@pytest.mark.parametrize(
    ("token", "code", "decline"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
    ],
)
def test_declined_cards_are_not_attached(someone: Someone, token: str, code: str, decline: str | None) -> None:
    with pytest.raises(stripe.CardError) as refused:
        someone.card(token)
    assert (refused.value.code, refused.value.error.decline_code) == (code, decline)
    assert refused.value.http_status == 402
    assert someone.api.v1.payment_methods.list({"customer": someone.id}).data == []


def test_numbers_are_not_taken(someone: Someone) -> None:
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2034, "cvc": "123"}
    with pytest.raises(stripe.InvalidRequestError):
        someone.api.v1.payment_methods.create({"type": "card", "card": card})
    assert someone.api.v1.payment_methods.create({"type": "card", "card": {"token": "tok_visa"}}).customer is None


def test_a_removed_card_is_nobodys_default_and_never_comes_back(someone: Someone) -> None:
    id = someone.card()
    someone.subscribe(default_payment_method=id)
    assert someone.api.v1.payment_methods.detach(id).customer is None
    assert someone.api.v1.customers.retrieve(someone.id).invoice_settings.default_payment_method is None
    assert someone.subscription().default_payment_method is None
    with pytest.raises(stripe.InvalidRequestError):
        someone.api.v1.payment_methods.attach(id, {"customer": someone.id})


def test_a_card_of_another_is_not_his(someone: Someone) -> None:
    other = someone.api.v1.customers.create({}).id
    method = someone.api.v1.payment_methods.attach("pm_card_visa", {"customer": other}).id
    with pytest.raises(stripe.InvalidRequestError):
        someone.api.v1.payment_methods.attach(method, {"customer": someone.id})
    with pytest.raises(stripe.InvalidRequestError):
        someone.api.v1.customers.update(someone.id, {"invoice_settings": {"default_payment_method": method}})


def test_the_owner_confirms_and_it_is_active(someone: Someone) -> None:
    someone.card("pm_card_threeDSecure2Required")
    made = someone.subscribe(expand=["latest_invoice.confirmation_secret"])
    assert isinstance(made.latest_invoice, stripe.Invoice)
    intent = intent_of(someone)
    assert made.latest_invoice.confirmation_secret.client_secret.startswith(f"{intent}_secret_")
    asked = someone.api.v1.payment_intents.retrieve(intent)
    assert (made.status, asked.status) == ("incomplete", "requires_action")
    assert asked.next_action.redirect_to_url.url == f"{someone.server.base}/_local/confirm/{intent}"
    assert confirm(someone, intent).json()["status"] == "succeeded"
    assert someone.subscription().status == "active"
    assert confirm(someone, intent).status_code == 400


def test_the_owner_refuses_and_it_stays_incomplete(someone: Someone) -> None:
    someone.card("pm_card_authenticationRequired")
    someone.subscribe()
    assert confirm(someone, intent_of(someone), "fail").json()["status"] == "requires_payment_method"
    assert someone.subscription().status == "incomplete"
    with pytest.raises(stripe.CardError) as refused:
        someone.api.v1.invoices.pay(someone.invoices()[0].id)
    assert refused.value.code == "invoice_payment_intent_requires_action"
    someone.card()
    someone.api.v1.invoices.pay(someone.invoices()[0].id)
    assert someone.subscription().status == "active"


def test_a_renewal_that_wants_the_owner_is_past_due_until_he_comes(someone: Someone) -> None:
    someone.card()
    someone.subscribe()
    someone.card("pm_card_authenticationRequired")
    someone.after(days=28, hours=2)
    assert someone.subscription().status == "past_due"
    confirm(someone, intent_of(someone))
    assert (someone.subscription().status, someone.invoices()[-1].status) == ("active", "paid")


def test_a_card_that_was_set_up_is_not_asked_again(someone: Someone) -> None:
    method = someone.api.v1.payment_methods.create({"type": "card", "card": {"token": "tok_visa"}}).id
    setup = {"customer": someone.id, "payment_method": method, "confirm": True}
    assert someone.api.v1.setup_intents.create(setup).status == "succeeded"
    setup["payment_method"] = "pm_card_authenticationRequiredOnSetup"
    intent = someone.api.v1.setup_intents.create(setup)
    assert (intent.status, intent.next_action.type) == ("requires_action", "redirect_to_url")
    assert confirm(someone, intent.id).json()["status"] == "succeeded"
    method = someone.api.v1.setup_intents.retrieve(intent.id).payment_method
    assert someone.subscribe(default_payment_method=method).status == "active"


def test_payment_intents_by_themselves(someone: Someone) -> None:
    wish = {"amount": 500, "currency": "eur", "customer": someone.id, "confirm": True}
    paid = someone.api.v1.payment_intents.create({**wish, "payment_method": someone.card()})
    assert (paid.status, paid.amount_received) == ("succeeded", 500)
    with pytest.raises(stripe.CardError) as refused:
        someone.api.v1.payment_intents.create({**wish, "payment_method": someone.card("pm_card_chargeCustomerFail")})
    assert refused.value.error.payment_intent.status == "requires_payment_method"
    with pytest.raises(stripe.InvalidRequestError):
        someone.api.v1.payment_intents.create({**wish, "amount": 1})
