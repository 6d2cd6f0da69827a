"""Events, as they are listed and as they are delivered."""

import pytest
import stripe

from tests.local_stripe.conftest import Someone
from tests.local_stripe.process import SECRETS, LocalStripe, Receiver, until


def test_deliveries_are_signed_under_both_secrets(someone: Someone, receiver: Receiver) -> None:
    until(lambda: receiver.events(someone.id))
    signature, body = receiver.deliveries[-1]
    for secret in SECRETS:
        assert stripe.Webhook.construct_event(body, signature, secret).object == "event"
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body + b" ", signature, SECRETS[0])
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(body, signature, "whsec_other")


def test_a_subscription_tells_its_story_in_order(someone: Someone, receiver: Receiver) -> None:
    someone.card()
    someone.subscribe()
    told = ["customer.created", "customer.subscription.created", "invoice.created", "invoice.finalized", "invoice.paid"]
    listed = someone.api.v1.events.list({"limit": 100, "types": told}).data
    mine = [event.type for event in reversed(listed) if someone.id in str(event.data.object)]
    assert mine == told
    told.append("customer.subscription.updated")  # in which places is no promise: several deliveries are under way
    until(lambda: {event["type"] for event in receiver.events(someone.id)} >= set(told))
    updated = [event for event in receiver.events(someone.id) if event["type"] == "customer.subscription.updated"]
    assert updated[-1]["data"]["object"]["status"] == "active"
    assert updated[-1]["data"]["previous_attributes"] == {"status": "incomplete"}


def test_what_was_refused_comes_again(someone: Someone, receiver: Receiver) -> None:
    until(lambda: receiver.events(someone.id))
    receiver.refuse = 2
    id = someone.api.v1.customers.create({"email": "again@example.com"}).id
    until(lambda: receiver.events(id))
    (event,) = receiver.events(id)
    assert receiver.refuse == 0
    until(lambda: someone.api.v1.events.retrieve(event["id"]).pending_webhooks == 0)


def test_duplicates_and_disorder(server: LocalStripe, api: stripe.StripeClient, receiver: Receiver) -> None:
    until(lambda: server.local.get("/webhooks").json()["pending"] == 0)
    server.tell("/webhooks", hold=True, duplicate=2, shuffle=True)
    id = api.v1.customers.create({}).id
    for number in range(12):
        api.v1.customers.update(id, {"name": f"name {number}"})
    assert receiver.events(id) == []
    assert server.tell("/webhooks/release")["released"] == 39
    until(lambda: len(receiver.events(id)) == 39)
    ids = [event["id"] for event in receiver.events(id)]
    assert (len(set(ids)), {ids.count(one) for one in ids}) == (13, {3})
    in_order = [event.id for event in reversed(api.v1.events.list({"limit": 100}).data) if event.id in ids]
    # Several are under way at once, so neighbours change places anyway: this is more than that.
    assert max(abs(ids.index(one) - 3 * place) for place, one in enumerate(in_order)) > 15


def test_what_was_dropped_is_only_listed(server: LocalStripe, api: stripe.StripeClient, receiver: Receiver) -> None:
    server.tell("/webhooks", drop=1)
    lost, told = api.v1.customers.create({}).id, api.v1.customers.create({}).id
    until(lambda: receiver.events(told))
    assert receiver.events(lost) == []
    until(lambda: server.local.get("/webhooks").json()["pending"] == 0)
    missed = api.v1.events.list({"delivery_success": False, "type": "customer.created"}).data
    assert [event.data.object["id"] for event in missed] == [lost]
