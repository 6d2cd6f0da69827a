"""An organization's payment methods, as Stripe told them last."""

from typing import Any
from uuid import UUID

from sqlalchemy import select

from app import db
from app.billing import subscription
from app.billing.models import USABLE, PaymentMethod
from app.errors import InvalidState, NotFound


def listed(org_id: UUID) -> list[dict[str, Any]]:
    """All of them, the default one first, then the newest."""
    return [shown(row) for row in db.session.scalars(_all(org_id))]


def by_stripe_id(org_id: UUID, stripe_id: str) -> dict[str, Any]:
    """Raises NotFound."""
    return shown(_one(org_id, PaymentMethod.stripe_id == stripe_id))


def stripe_id(org_id: UUID, method_id: UUID) -> str:
    """Raises NotFound."""
    return _one(org_id, PaymentMethod.id == method_id).stripe_id


def shown(row: PaymentMethod) -> dict[str, Any]:
    """In the API's shape; ``expires`` is a month."""
    plain = {name: getattr(row, name) for name in ("id", "type", "brand", "last4", "is_default", "created_at")}
    return {**plain, "expires": f"{row.exp_year:04d}-{row.exp_month:02d}" if row.exp_year and row.exp_month else None}


def admit_removal(org_id: UUID, method_id: UUID) -> str:
    """The id at Stripe of one that may go. Raises NotFound, or InvalidState for the last one of a live subscription."""
    row = _one(org_id, PaymentMethod.id == method_id)
    found = subscription.newest(org_id)
    if found is not None and found.status in USABLE and len(listed(org_id)) == 1:
        raise InvalidState(
            "the subscription is paid by it; add another payment method first, or cancel the subscription at once",
            current_state=found.status,
            allowed_actions=["add_payment_method", "cancel"],
        )
    return row.stripe_id


def _all(org_id: UUID) -> Any:
    newest_first = (PaymentMethod.created_at.desc(), PaymentMethod.id)
    return (
        select(PaymentMethod)
        .where(PaymentMethod.org_id == org_id)
        .order_by(PaymentMethod.is_default.desc(), *newest_first)
        .execution_options(populate_existing=True)
    )


def _one(org_id: UUID, condition: Any) -> PaymentMethod:
    row: PaymentMethod | None = db.session.scalar(_all(org_id).where(condition))
    if row is None:
        raise NotFound("payment method")
    return row
