"""How each kind of operation is carried out at Stripe.

Each may be begun again from its first step, by another worker, after any crash: its calls carry keys that stay the
same, and it first looks whether what it wants is there already, for the case that Stripe no longer knows a key.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy import text

from app import db
from app.billing import accounts, duplicates, metering, operations, paying, subscribing
from app.billing.accounts import Claimed, Operation, Overtaken
from app.billing.stripe_client import CardDeclined, StripeDown, StripeRefused
from app.billing.work import Work
from app.errors import AppError, Conflict, PaymentFailed, ServiceUnavailable, ValidationFailed

log = structlog.get_logger(__name__)

OPERATIONS = Counter("edgeflow_billing_operations_total", "Operations at Stripe that ended", ["kind", "outcome"])

TRIES_OF_A_FAULT = 5
"""A performer that fails by a fault of ours is tried so often; what waits behind it is to have its turn."""


@dataclass(frozen=True)
class Outcome:
    """What became of an operation: ``state`` done, failed, or queued (to be tried again later)."""

    operation: Operation
    state: str
    result: dict[str, Any] | None = None
    error: AppError | None = None
    why: str | None = None


def perform(claimed: Claimed) -> list[Outcome]:
    """Carry out what is queued, in order, until something has to wait for Stripe. Raises Overtaken."""
    outcomes: list[Outcome] = []
    for operation in claimed.operations:
        outcome = _perform(Work(claimed, operation))
        outcomes.append(outcome)
        if outcome.state == "queued":
            break
        OPERATIONS.labels(operation.kind, outcome.state).inc()
        log.info(
            "billing operation", org_id=claimed.org_id, operation_id=operation.id, kind=operation.kind,
            state=outcome.state, tries=operation.tries, error=outcome.error and outcome.error.code,
        )  # fmt: skip
    return outcomes


def _perform(work: Work) -> Outcome:
    operation = work.operation
    if operation.expired:
        message = "Stripe could not be reached for a day: it is not known whether this was done"
        return Outcome(operation, "failed", error=ServiceUnavailable(message, outcome="expired"))
    try:
        return Outcome(operation, "done", result=KINDS[operation.kind](work))
    except Overtaken:
        raise
    except AppError as error:
        return Outcome(operation, "failed", error=error)
    except StripeRefused as refused:
        return Outcome(operation, "failed", error=understood(refused))
    except StripeDown as down:
        return Outcome(operation, "queued", why=str(down))
    except Exception as error:
        log.exception("billing operation failed", org_id=work.claimed.org_id, operation_id=operation.id)
        if operation.tries < TRIES_OF_A_FAULT:
            return Outcome(operation, "queued", why=type(error).__name__)
        return Outcome(operation, "failed", error=ServiceUnavailable("this could not be carried out"))


def understood(refused: StripeRefused) -> AppError:
    """What the caller is told of Stripe's no."""
    if isinstance(refused, CardDeclined):
        return PaymentFailed(refused.message, decline_code=refused.decline_code or refused.code)
    if refused.code == "resource_missing" and refused.param in ("payment_method", "default_payment_method", "id"):
        return ValidationFailed(details={"payment_method_id": [refused.message]})
    log.error("stripe refused", error=refused.message, code=refused.code, param=refused.param, status=refused.status)
    return Conflict(f"Stripe refused: {refused.message}", stripe_code=refused.code)


KINDS: dict[str, Callable[[Work], dict[str, Any]]] = {
    "subscription.create": subscribing.create_subscription,
    "subscription.change": subscribing.change_subscription,
    "subscription.cancel": subscribing.cancel_subscription,
    "subscription.resume": subscribing.resume_subscription,
    "payment_method.add": paying.add_payment_method,
    "payment_method.remove": paying.remove_payment_method,
    "payment_method.default": paying.default_payment_method,
    "checkout.create": subscribing.create_checkout,
    duplicates.SETTLE: duplicates.settle,
    "portal.create": subscribing.create_portal,
    accounts.METER_REPORT: metering.report,
}

_FINISH = text("""
UPDATE billing_operations o SET state = n.state, result = n.result, error = n.error,
    finished_at = CASE WHEN n.state <> 'queued' THEN now() END
FROM unnest(CAST(:ids AS uuid[]), CAST(:states AS text[]), CAST(:results AS jsonb[]), CAST(:errors AS jsonb[]))
    AS n (id, state, result, error)
WHERE o.id = n.id AND o.state = 'queued'
""")
_REPORTED = text("""
UPDATE usage_hours SET reported_at = now() WHERE org_id = :org AND hour = ANY (CAST(:hours AS timestamptz[]))
""")


def write(org_id: UUID, outcomes: list[Outcome]) -> None:
    """Store what became of operations, in a transaction that holds their account: whoever waits is told."""
    if not outcomes:
        return
    told = [one.operation for one in outcomes if one.state == "done" and one.operation.kind == accounts.METER_REPORT]
    if told:
        db.session.execute(_REPORTED, {"org": org_id, "hours": [one.payload["hour"] for one in told]})
    results = [None if one.result is None else db.as_json(operations.sealed(one.result)) for one in outcomes]
    errors = [db.as_json(_stored_error(one)) for one in outcomes]
    values = {
        "ids": [one.operation.id for one in outcomes],
        "states": [one.state for one in outcomes],
        "results": results,
        "errors": [None if one == "null" else one for one in errors],
    }
    db.session.execute(_FINISH, values)


def _stored_error(outcome: Outcome) -> dict[str, Any] | None:
    if outcome.error is not None:
        return operations.told(outcome.error)
    if outcome.state == "queued":
        return {"spoiled": outcome.operation.spoiled, "why": outcome.why}
    return None
