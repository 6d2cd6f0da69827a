"""The subscription as Stripe told it last, and what may be asked of it. Stripe carries it out (``operations``)."""

from typing import Any
from uuid import UUID

from sqlalchemy import select

from app import db
from app.billing import operations, plans, quotas
from app.billing.models import OVER, USABLE, BillingAccount, PaymentMethod, Subscription
from app.errors import Conflict, InvalidState, NotFound, ValidationFailed


def newest(org_id: UUID) -> Subscription | None:
    """The one that is in force, else the newest that lives, else the newest."""
    query = (
        select(Subscription)
        .where(Subscription.org_id == org_id)
        .order_by(
            Subscription.status.not_in(USABLE),
            Subscription.status.in_(OVER),
            Subscription.created_at.desc(),
            Subscription.id,
        )
        .limit(1)
        .execution_options(populate_existing=True)
    )
    return db.session.scalar(query)


def get(org_id: UUID, *, secret: bool) -> dict[str, Any]:
    """The newest, in the API's shape, with its client secret if ``secret``. Raises NotFound if there never was one."""
    return shown(_newest(org_id), secret=secret)


def shown(row: Subscription, *, secret: bool) -> dict[str, Any]:
    """In the API's shape; the client secret is there while a payment waits for the customer."""
    waits = row.client_secret is not None and row.status not in OVER
    answer = {name: getattr(row, name) for name in _FIELDS} | {"requires_action": waits}
    if waits and secret and row.client_secret:
        answer["client_secret"] = operations.unseal(row.client_secret).decode()
    return answer


_FIELDS = (
    "id", "plan", "status", "current_period_start", "current_period_end", "cancel_at_period_end", "trial_end",
    "ended_at", "created_at",
)  # fmt: skip


def allowed_actions(status: str, *, ends: bool) -> list[str]:
    """What can be asked of a subscription in that state; ``ends``: with its period. Pure."""
    if status in OVER:
        return ["subscribe"]
    if status == "incomplete":
        return ["confirm_payment", "subscribe", "cancel"]
    return [*(["change"] if status in USABLE else []), "cancel", *(["resume"] if ends else [])]


def admit_new(org_id: UUID, plan: str, payment_method_id: str | None = None, trial: bool = False) -> None:
    """Whether one may subscribe to it.

    Raises ValidationFailed (no such plan, a free one, nothing to pay it by, no trial), InvalidState (one lives
    already) or Conflict (too small a plan, the trial was used).
    """
    admit_checkout(org_id, plan)
    if trial:
        _check_trial(org_id, plans.plans()[plan])
    elif payment_method_id is None and not _has_payment_method(org_id):
        wanted = "There is no payment method yet: give one, or begin with the trial."
        raise ValidationFailed(details={"payment_method_id": [wanted]})


def admit_checkout(org_id: UUID, plan: str) -> None:
    """As ``admit_new``, where Stripe's page asks what to pay by."""
    _check_plan(plan)
    found = newest(org_id)
    if found is not None and "subscribe" not in allowed_actions(found.status, ends=found.cancel_at_period_end):
        raise _wrong_state(found, "there is a subscription already")
    _check_room(org_id, plan)


def admit_change(org_id: UUID, plan: str) -> bool:
    """Whether there is anything to change.

    Raises ValidationFailed, NotFound, InvalidState (it is over, or not paid for yet) or Conflict (too small a plan).
    """
    _check_plan(plan)
    found = _newest(org_id)
    if found.status not in USABLE:
        raise _wrong_state(found, f"a subscription that is {found.status} cannot be changed")
    if found.plan == plan:
        return False
    _check_room(org_id, plan)
    return True


def admit_cancel(org_id: UUID, at: str) -> str | None:
    """When it is to end, ``now`` or ``period_end``; None if that is so already. Raises NotFound or InvalidState."""
    found = _newest(org_id)
    if found.status in OVER:
        raise _wrong_state(found, "the subscription has ended")
    if at == "now" or found.status not in USABLE:  # no period is paid for that it could wait for
        return "now"
    return None if found.cancel_at_period_end else "period_end"


def admit_resume(org_id: UUID) -> None:
    """Raises NotFound, or InvalidState if nothing is to be resumed."""
    found = _newest(org_id)
    if "resume" not in allowed_actions(found.status, ends=found.cancel_at_period_end):
        raise _wrong_state(found, "the subscription is not about to end")


def _newest(org_id: UUID) -> Subscription:
    found = newest(org_id)
    if found is None:
        raise NotFound("subscription")
    return found


def _check_plan(name: str) -> None:
    """Raises ValidationFailed unless it is sold."""
    known = plans.plans()
    sold = [plan.id for plan in known.values() if plan.price is not None]
    if name in known and name not in sold:
        message = f"the plan {name} is not sold; to return to the free one, cancel the subscription"
        raise ValidationFailed(message, details={"plan": ["Not sold. DELETE /billing/subscription cancels."]})
    if name not in sold:
        raise ValidationFailed(details={"plan": [f"Must be one of: {', '.join(sold)}."]})


def _check_trial(org_id: UUID, plan: plans.Plan) -> None:
    if not plan.trial_days:
        raise ValidationFailed(details={"trial": [f"{plan.name} has no trial."]})
    if db.session.scalar(select(BillingAccount.trial_used_at).where(BillingAccount.org_id == org_id)):
        raise Conflict("the trial is given once, and has been used; subscribe without it")


def _has_payment_method(org_id: UUID) -> bool:
    return db.session.scalar(select(PaymentMethod.id).where(PaymentMethod.org_id == org_id).limit(1)) is not None


def _check_room(org_id: UUID, plan: str) -> None:
    """Raises Conflict, with what is too much, if the organization has more than the plan allows."""
    if too_much := quotas.too_much(org_id, plan):
        raise Conflict(f"there is more than the plan {plan} allows; nothing was changed", too_much=too_much)


def _wrong_state(found: Subscription, message: str) -> InvalidState:
    allowed = allowed_actions(found.status, ends=found.cancel_at_period_end)
    return InvalidState(message, current_state=found.status, allowed_actions=allowed)
