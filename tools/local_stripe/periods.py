"""Calendar of subscriptions, pure: times are seconds since 1970, UTC."""

import calendar
from datetime import UTC, datetime

from tools.local_stripe.store import Obj

HOUR = 3_600
DAY = 24 * HOUR
FINALIZES_AFTER = HOUR  # a renewal's draft may be changed that long
INCOMPLETE_FOR = 23 * HOUR
TRIAL_WARNING = 3 * DAY
RETRY_AFTER = (3 * DAY, 5 * DAY, 7 * DAY)  # after the 1st, 2nd, 3rd failed attempt; then the subscription gives up


def step(anchor: int, interval: str, count: int) -> int:
    """``anchor`` plus ``count`` intervals; a 31st becomes the last day of a shorter month."""
    if interval in ("day", "week"):
        return anchor + count * DAY * (7 if interval == "week" else 1)
    start = datetime.fromtimestamp(anchor, UTC)
    months = start.month - 1 + count * (12 if interval == "year" else 1)
    year, month = start.year + months // 12, months % 12 + 1
    day = min(start.day, calendar.monthrange(year, month)[1])
    return int(start.replace(year=year, month=month, day=day).timestamp())


def period_end(anchor: int, recurring: Obj, start: int) -> int:
    """The first end of a period after ``start``, counted from the anchor so that month ends do not drift."""
    count = 1
    while (end := step(anchor, recurring["interval"], count * recurring["interval_count"])) <= start:
        count += 1
    return end


def due(obj: Obj) -> int | None:
    """When something has to happen to an object by itself."""
    if obj["object"] == "subscription":
        return _subscription_due(obj)
    if obj["object"] == "invoice":
        times = {"draft": obj["automatically_finalizes_at"], "open": obj["next_payment_attempt"]}
        return times.get(obj["status"]) if obj["auto_advance"] else None
    if obj["object"] == "checkout.session":
        return int(obj["expires_at"]) if obj["status"] == "open" else None
    return None


def _subscription_due(subscription: Obj) -> int | None:
    status = subscription["status"]
    if status == "incomplete":
        return int(subscription["created"]) + INCOMPLETE_FOR
    if status not in ("trialing", "active", "past_due", "unpaid"):
        return None
    times = [current_period(subscription)[1], subscription["cancel_at"]]
    if status == "trialing" and not subscription.get("_warned"):
        times.append(max(subscription["trial_end"] - TRIAL_WARNING, subscription["trial_start"]))
    if subscription["pending_update"]:
        times.append(subscription["pending_update"]["expires_at"])
    return min(time for time in times if time is not None)


def current_period(subscription: Obj) -> tuple[int, int]:
    item = subscription["items"]["data"][0]
    return item["current_period_start"], item["current_period_end"]


def day(time: int) -> str:
    """``24 Nov 2026`` as descriptions of lines say it."""
    return datetime.fromtimestamp(time, UTC).strftime("%d %b %Y")
