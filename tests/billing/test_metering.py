"""Settled hours are told to Stripe's meters once, whatever happens on the way; the local Stripe adds them up."""

import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app import db
from app.billing import metering
from app.clock import now
from tests.billing.histories import BEGIN, note
from tests.billing.local import LocalStripe, Organization

USED = {"device_seconds": 5400, "commands": 7, "deployments": 0, "points": 123_456}
TOLD = {"edgeflow_device_seconds": 5400, "edgeflow_commands": 7, "edgeflow_points": 123_456}


def hours_ago(number: int) -> datetime:
    return now().replace(minute=0, second=0, microsecond=0) - timedelta(hours=number)


@pytest.fixture
def customer(owner: Organization) -> Organization:
    """An organization that has been Stripe's customer for two days."""
    owner.run("portal.create", return_url="https://example.com/")
    owner.execute("UPDATE billing_accounts SET created_at = now() - interval '2 days'")
    owner.stripe.quiet()
    return owner


def use(owner: Organization, hour: datetime, **used: int) -> None:
    owner.execute(
        "INSERT INTO usage_hours (org_id, hour, device_seconds, commands, deployments, points) "
        "VALUES (:org, :hour, :device_seconds, :commands, :deployments, :points)",
        org=owner.id, hour=hour, **{**USED, **used},
    )  # fmt: skip


def submit() -> int:
    with db.transaction(system=True):
        return metering.submit()


def asked(owner: Organization) -> list[Any]:
    return owner.rows("SELECT * FROM billing_operations WHERE kind = 'meter.report' ORDER BY sequence")


def reported(owner: Organization) -> list[bool]:
    return [row.reported_at is not None for row in owner.rows("SELECT reported_at FROM usage_hours ORDER BY hour")]


def told(owner: Organization) -> dict[str, int]:
    """What Stripe's meters say of the last two days."""
    v1, found = owner.stripe.v1, dict[str, int]()
    span = {"start_time": int(hours_ago(48).timestamp()), "end_time": int(hours_ago(0).timestamp())}
    for meter in v1.billing.meters.list({"limit": 100}):
        asked_for = {"customer": owner.account.customer_id, **span}
        for one in v1.billing.meters.event_summaries.list(meter.id, asked_for):
            found[meter.event_name] = int(one.aggregated_value)
    return found


def test_a_settled_hour_is_told_once_and_what_was_not_used_is_not(customer: Organization) -> None:
    use(customer, hours_ago(4))
    for _ in range(2):
        submit()
        customer.work()
    assert told(customer) == TOLD
    (operation,) = asked(customer)
    assert (operation.state, reported(customer)) == ("done", [True])
    sent = customer.stripe.requests("POST", "/v1/billing/meter_events")
    assert len({one["idempotency_key"] for one in sent}) == len(sent) == 3


def test_the_hourly_job_adds_up_and_tells(customer: Organization) -> None:
    from workers import billing

    note(customer.id, 0, "command")
    with db.transaction(system=True) as session:  # as if no hour had been added up yet
        session.execute(text("DELETE FROM usage_hours"))
    billing.aggregate.fn()
    customer.work()
    assert [row.hour for row in customer.rows("SELECT hour FROM usage_hours WHERE reported_at IS NOT NULL")] == [BEGIN]
    assert told(customer) == {"edgeflow_commands": 1}


@pytest.mark.parametrize("status", [0, 500, 429])
def test_an_answer_that_is_lost_doubles_nothing(customer: Organization, status: int) -> None:
    use(customer, hours_ago(4))
    submit()
    customer.stripe.fault(status, "/v1/billing/meter_events", times=2, after_effect=status != 429)
    for _ in range(6):
        customer.due_now()
        customer.work()
    assert told(customer) == TOLD
    assert reported(customer) == [True]


def test_an_hour_that_was_told_before_by_another_operation_doubles_nothing(customer: Organization) -> None:
    """Its identifier is what Stripe knows it by."""
    use(customer, hours_ago(4))
    submit()
    customer.work()
    customer.execute("DELETE FROM billing_operations WHERE kind = 'meter.report'")
    customer.execute("UPDATE usage_hours SET reported_at = NULL")
    submit()
    customer.work()
    assert told(customer) == TOLD
    assert ([one.state for one in asked(customer)], reported(customer)) == (["done"], [True])


def a_day_passes(owner: Organization) -> None:
    """Stripe forgets keys and identifiers; what is in the outbox grows old."""
    owner.stripe.control("DELETE", "/memory")
    owner.execute("UPDATE billing_operations SET created_at = created_at - interval '25 hours' WHERE state = 'queued'")
    owner.due_now()


@pytest.mark.parametrize("after_effect", [True, False])
def test_an_outcome_that_is_unknown_for_a_day_is_asked_for_before_a_repeat(
    customer: Organization, after_effect: bool
) -> None:
    """Of three events the second one's answer was lost, or the event itself."""
    use(customer, hours_ago(4))
    submit()
    customer.stripe.fault(0, "/v1/billing/meter_events", after_effect=True)
    customer.work()
    customer.due_now()
    customer.stripe.fault(0, "/v1/billing/meter_events", times=2, after_effect=after_effect)
    customer.work()
    a_day_passes(customer)
    customer.stripe.quiet()
    customer.work()
    assert told(customer) == TOLD
    assert ([one.state for one in asked(customer)], reported(customer)) == (["done"], [True])
    assert len(customer.stripe.requests("POST", "/v1/billing/meter_events")) == 2


def test_without_asking_first_the_same_would_be_billed_twice(
    customer: Organization, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "_known", lambda *_: set())
    use(customer, hours_ago(4))
    submit()
    customer.stripe.fault(0, "/v1/billing/meter_events", after_effect=True)
    customer.work()
    a_day_passes(customer)
    customer.work()
    assert told(customer) == {**TOLD, "edgeflow_device_seconds": 2 * 5400}


def test_what_the_meter_has_from_elsewhere_is_not_added_to(customer: Organization) -> None:
    """Another amount than ours: nobody knows what it is, so rather too little is billed."""
    use(customer, hours_ago(4))
    submit()
    customer.stripe.fault(0, "/v1/billing/meter_events")
    customer.work()
    customer.stripe.v1.billing.meter_events.create(
        {
            "event_name": "edgeflow_commands", "timestamp": int(hours_ago(4).timestamp()),
            "payload": {"stripe_customer_id": customer.account.customer_id, "value": "2"},
        }
    )  # fmt: skip
    a_day_passes(customer)
    customer.work()
    assert told(customer) == {**TOLD, "edgeflow_commands": 2}


def test_a_report_that_waited_for_a_day_untried_asks_nothing(customer: Organization) -> None:
    use(customer, hours_ago(4))
    submit()
    a_day_passes(customer)
    customer.work()
    assert customer.stripe.requests("GET", "/v1/billing/meters") == []
    assert told(customer) == TOLD


@pytest.fixture
def without_meter(stripe: LocalStripe) -> Iterator[str]:
    """A meter that there is not at Stripe."""
    name = "edgeflow_commands"
    (meter,) = [one for one in stripe.v1.billing.meters.list({"limit": 100}) if one.event_name == name]
    stripe.v1.billing.meters.deactivate(meter.id)
    yield name
    stripe.v1.billing.meters.reactivate(meter.id)


def test_a_meter_that_is_missing_fails_the_hour_and_is_not_asked_for_ever(
    customer: Organization, without_meter: str
) -> None:
    use(customer, hours_ago(4))
    for _ in range(3):
        submit()
        customer.due_now()
        customer.work()
    (operation,) = asked(customer)
    assert (operation.state, operation.tries, operation.error["extra"]["meters"]) == ("failed", 1, [without_meter])
    assert reported(customer) == [False]
    assert told(customer) == {name: value for name, value in TOLD.items() if name != without_meter}


def test_hours_that_may_still_change_and_such_of_before_the_account_wait_or_stay(customer: Organization) -> None:
    use(customer, hours_ago(2))  # its end is not two hours ago
    use(customer, hours_ago(50))
    use(customer, hours_ago(5), device_seconds=0, commands=0, points=0)
    submit()
    assert asked(customer) == []


def test_an_hour_waits_for_points_that_arrived_in_it_and_are_not_stored_yet(customer: Organization) -> None:
    use(customer, hours_ago(6))
    use(customer, hours_ago(4))
    customer.execute("DELETE FROM telemetry_inbox")
    customer.execute(
        "INSERT INTO telemetry_inbox (org_id, device_id, body, received_at) VALUES (:org, gen_random_uuid(), '', :at)",
        org=customer.id, at=hours_ago(4) + timedelta(minutes=5),
    )  # fmt: skip
    submit()
    assert [datetime.fromisoformat(one.payload["hour"]) for one in asked(customer)] == [hours_ago(6)]
    customer.execute("DELETE FROM telemetry_inbox")
    submit()
    assert len(asked(customer)) == 2


def test_who_is_no_customer_is_not_reported(owner: Organization) -> None:
    owner.execute(
        "INSERT INTO billing_accounts (org_id, created_at) VALUES (:org, now() - interval '2 days')", org=owner.id
    )
    use(owner, hours_ago(4))
    submit()
    assert asked(owner) == []


def test_many_that_look_at_once_ask_once(customer: Organization) -> None:
    for number in range(4, 24):
        use(customer, hours_ago(number))
    errors = list[Exception]()

    def run() -> None:
        try:
            submit()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(8)]
    with db.transaction(system=True) as session:  # whoever comes so far waits here, with what he has found
        session.execute(text("SELECT FROM billing_accounts WHERE org_id = :org FOR UPDATE"), {"org": customer.id})
        for one in threads:
            one.start()
        time.sleep(1)
    for one in threads:
        one.join(20)
    assert errors == []
    assert len(asked(customer)) == 20


def test_nothing_is_reported_where_nothing_is_sold(org: UUID) -> None:
    assert submit() == 0


def test_identifiers_are_short_enough_for_stripe(org: UUID) -> None:
    assert all(len(metering.identifier(org, hours_ago(1), name)) <= 100 for name in metering.METERS)
