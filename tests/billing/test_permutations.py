"""S5: Stripe's events, in any order and as often as they like, end in one state.

The history is a local Stripe's; what it answered after each step is recorded, so that many ways of telling it take
seconds. The database is the real one, and so are the webhook's and the worker's functions.
"""

import os
import random
from typing import Any

import pytest

from app.billing import operations
from tests.billing.local import Organization
from tests.billing.recorded import History, Telling, record

PERMUTATIONS = int(os.environ.get("EDGEFLOW_TEST_PERMUTATIONS", "120"))
"""``make faults`` has 1,000 of them."""
CHUNKS = 4
FORGET = (
    "DELETE FROM stripe_events WHERE org_id = :org",
    "DELETE FROM subscriptions",
    "DELETE FROM payment_methods",
    "DELETE FROM invoices",
    "UPDATE organizations SET plan = 'free'",
    "UPDATE billing_accounts SET wanted = 0, synced = 0, trial_used_at = NULL, next_attempt_at = now()",
)


def forget(owner: Organization) -> None:
    """As before the first event."""
    for statement in FORGET:
        owner.execute(statement, **({"org": owner.id} if ":org" in statement else {}))


def books(owner: Organization) -> dict[str, Any]:
    """Every table of billing, but for when something was written and under which of our ids."""
    account = owner.row(
        "SELECT customer_id, generation, customer_deleted_at, trial_used_at, failures, error, wanted = synced AS seen, "
        "lease_until FROM billing_accounts"
    )
    events = owner.rows("SELECT id, type, customer_id FROM stripe_events WHERE org_id = :org ORDER BY id", org=owner.id)
    ours = owner.rows("SELECT id FROM billing_operations WHERE kind <> 'checkout.settle'")
    return {**owner.state(), "account": tuple(account), "events": events, "operations": ours}


def settlements(owner: Organization) -> set[tuple[str, str]]:
    """What became of those operations that a beginning gives rise to, if a look came in time to see it."""
    query = "SELECT state, result FROM billing_operations WHERE kind = 'checkout.settle'"
    return {(row.state, str(operations.opened(row.result)["taken_back"])) for row in owner.rows(query)}


def told_in_order(owner: Organization, history: History) -> dict[str, Any]:
    telling = Telling(history, owner, random.Random(0))
    telling.order = list(range(len(history.events)))
    telling.tell()
    return books(owner)


@pytest.mark.slow
@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_all_ways_to_tell_a_history_end_in_one_state(owner: Organization, chunk: int) -> None:
    history = record(owner)
    right = told_in_order(owner, history)
    assert len({one["id"] for one in history.events}) == len(right["events"]) == 12
    assert [one["status"] for one in right["subscriptions"]] == ["canceled"]
    assert sorted(one["status"] for one in right["invoices"] if one["total"]) == ["paid", "paid"]
    ways = set()
    for seed in range(chunk, PERMUTATIONS, CHUNKS):
        forget(owner)
        telling = Telling(history, owner, random.Random(seed))
        telling.tell()
        assert books(owner) == right, f"seed {seed}: {telling.order}"
        ways.add(tuple(telling.order))
    assert len(ways) == PERMUTATIONS // CHUNKS
    assert settlements(owner) == {("done", "[]")}


def test_the_history_is_one_that_order_matters_to(owner: Organization) -> None:
    """The control: who believed what events say would end in another state for another order."""
    history = record(owner)
    ends = set()
    for seed in range(20):
        believed: dict[str, Any] = {}
        for number in Telling(history, owner, random.Random(seed)).order:
            about = history.events[number]["data"]["object"]
            believed[about["object"]] = repr(sorted(about.items(), key=str))
        ends.add(tuple(sorted(believed.items())))
    assert len(ends) > 5
