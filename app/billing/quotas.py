"""What an organization's plan lets it have, what it has, and the refusal of more, where things are made.

The rooms whose rows are counted stand on this one, so their tables are named in SQL here.
"""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import text

from app import clock, db
from app.billing import plans
from app.errors import QuotaExceeded
from config.settings import settings

# An open invitation is a place that somebody was promised.
_USED = {
    "devices": "SELECT count(*) FROM devices WHERE org_id = :org",
    "flows": "SELECT count(*) FROM flows WHERE org_id = :org",
    "members": "SELECT (SELECT count(*) FROM memberships WHERE org_id = :org) + (SELECT count(*) FROM invitations "
    "WHERE org_id = :org AND accepted_at IS NULL AND expires_at > now())",
    # Counted when they are made (``_COUNT``): those that went with their flow were made all the same.
    "deployments_per_month": "SELECT coalesce(sum(deployments), 0)::bigint FROM usage_months "
    "WHERE org_id = :org AND month = date_trunc('month', now(), 'UTC')",
    "metric_points_per_day": "SELECT coalesce(sum(points), 0)::bigint FROM usage_points "
    "WHERE org_id = :org AND hour >= date_trunc('day', now(), 'UTC')",
}
_WORDS = {
    "devices": ("devices", "delete a device"),
    "flows": ("flows", "delete a flow"),
    "members": ("members and open invitations", "remove a member, withdraw an invitation"),
    "deployments_per_month": ("deployments a month", "wait for the next month"),
    "metric_points_per_day": ("metric points a day", "wait for the next day"),
}
LASTING = ("devices", "flows", "members")
"""Quotas of what stays until somebody deletes it; the others begin anew by themselves."""

_PLAN = text("SELECT plan FROM organizations WHERE id = :org")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('quota ' || :quota || ' ' || CAST(:org AS text), 0))")
_STAND = {
    name: text(f"SELECT plan, ({used}) AS used FROM organizations WHERE id = :org") for name, used in _USED.items()
}
# Of what may be deleted and yet was made; the points of a day are counted where they are stored (``points``).
_COUNT = {
    "deployments_per_month": text("""
        INSERT INTO usage_months AS m (org_id, month, deployments)
        VALUES (:org, date_trunc('month', now(), 'UTC'), :adding)
        ON CONFLICT (org_id, month) DO UPDATE SET deployments = m.deployments + excluded.deployments""")
}
_ALL = text(f"SELECT plan, {', '.join(f'({used}) AS {name}' for name, used in _USED.items())} FROM organizations "
            "WHERE id = :org")  # fmt: skip


def claim(org_id: UUID, quota: str, adding: int = 1, *, made: bool = False) -> None:
    """Claim places for what this transaction makes; they are taken when it commits. Raises QuotaExceeded.

    ``made``: it has been made already, and is counted. ``adding`` 0: nothing comes, but what goes on with what there is
    already wants it to be within the limit.
    """
    if limits(org_id)[quota] is not None:  # not even if the plan becomes smaller now: then this came before
        _find_places(org_id, quota, adding, made)
    if adding and quota in _COUNT:
        db.session.execute(_COUNT[quota], {"org": org_id, "adding": adding})


def _find_places(org_id: UUID, quota: str, adding: int, made: bool) -> None:
    """Raises QuotaExceeded."""
    if adding:
        # One at a time from here to the commit. The statement after it sees what the one before has committed: the
        # rows, and the plan, which may have changed meanwhile.
        db.session.execute(_LOCK, {"org": org_id, "quota": quota})
    plan, counted = db.session.execute(_STAND[quota], {"org": org_id}).one()
    used = counted - adding if made else counted
    limit = _limits(plan)[quota]
    if limit is not None and used + adding > limit:
        raise QuotaExceeded(_refusal(plan, quota, limit, used), quota=quota, limit=limit, used=used)


def limits(org_id: UUID) -> dict[str, int | None]:
    """The limit of each quota; None is unlimited."""
    return _limits(db.session.scalar(_PLAN, {"org": org_id}))


def overview(org_id: UUID) -> dict[str, Any]:
    """``{plan, items: [{quota, limit, used, resets_at}]}``; what does not begin anew has no ``resets_at``."""
    plan, used = _stand(org_id)
    items = [
        {"quota": quota, "limit": limit, "used": used[quota], "resets_at": resets_at(quota)}
        for quota, limit in _limits(plan).items()
    ]
    return {"plan": plans.plan(plan).id, "items": items}


def outlook(org_id: UUID, quota: str, adding: int = 1) -> dict[str, Any]:
    """What a claim would meet now: ``{quota, limit, used, would_use, refused}``."""
    plan, used = db.session.execute(_STAND[quota], {"org": org_id}).one()
    limit = _limits(plan)[quota]
    wanted = used + adding
    return {
        "quota": quota,
        "limit": limit,
        "used": used,
        "would_use": wanted,
        "refused": limit is not None and wanted > limit,
    }


def too_much(org_id: UUID, plan: str) -> list[dict[str, Any]]:
    """What the organization has more of than ``plan`` includes: ``[{quota, limit, used}]``, of what lasts."""
    _now, used = _stand(org_id)
    return [
        {"quota": quota, "limit": limit, "used": used[quota]}
        for quota, limit in _limits(plan).items()
        if quota in LASTING and limit is not None and used[quota] > limit
    ]


def resets_at(quota: str) -> datetime | None:
    """When a quota's count begins anew (UTC); None for what lasts."""
    today = clock.now().replace(hour=0, minute=0, second=0, microsecond=0)
    if quota == "deployments_per_month":
        return (today.replace(day=1) + timedelta(days=31)).replace(day=1)
    return today + timedelta(days=1) if quota == "metric_points_per_day" else None


def _limits(plan: str | None) -> dict[str, int | None]:
    """Of a plan, by its id; where nothing is sold, nothing is limited."""
    if not settings().billing:
        return dict.fromkeys(plans.QUOTAS)
    return dict(plans.plan(plan or plans.DEFAULT).quotas)


def _stand(org_id: UUID) -> tuple[str, dict[str, int]]:
    row = db.session.execute(_ALL, {"org": org_id}).one()._asdict()
    return row.pop("plan"), row


def _refusal(plan: str, quota: str, limit: int, used: int) -> str:
    things, remedy = _WORDS[quota]
    held = plans.plan(plan).name
    return f"the plan {held} includes {limit} {things}, and {used} are used: {remedy}, or change the plan"
