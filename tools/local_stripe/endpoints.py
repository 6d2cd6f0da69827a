"""How an endpoint is declared, and the answers that many share."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tools.local_stripe import errors
from tools.local_stripe.account import Account, listing, public
from tools.local_stripe.params import Params
from tools.local_stripe.store import Obj

Handler = Callable[..., Obj]
_MOST, _USUAL = 100, 10
PAGE = "limit starting_after ending_before"


@dataclass(frozen=True)
class Endpoint:
    method: str
    path: str
    allowed: frozenset[str]
    handler: Handler


ENDPOINTS: list[Endpoint] = []


def endpoint(method: str, path: str, allowed: str = "", *, expand: bool = True) -> Callable[[Handler], Handler]:
    """``handler(account, params, **path)`` → the object to show. ``allowed``: the parameters that it takes."""
    names = frozenset([*allowed.split(), *(("expand",) if expand else ())])

    def declare(handler: Handler) -> Handler:
        ENDPOINTS.append(Endpoint(method, path, names, handler))
        return handler

    return declare


def page(p: Params, url: str, objects: Iterable[Obj], keep: Callable[[Obj], Any] = bool) -> Obj:
    """A list of those to keep, newest first: ``limit`` (1 to 100), ``starting_after``, ``ending_before``."""
    limit = p.integer("limit", _USUAL) or 0
    if not 1 <= limit <= _MOST:
        raise errors.malformed(f"Limit must be between 1 and {_MOST}.", "limit")
    after, before = p.text("starting_after"), p.text("ending_before")
    kept = (obj for obj in objects if not obj.get("deleted") and keep(obj))
    if before:
        newer = _until(kept, before)
        return listing([public(obj) for obj in newer[-limit:]], url, len(newer) > limit)
    if after:
        _until(kept, after, "starting_after")
    found = []
    for obj in kept:
        found.append(public(obj))
        if len(found) > limit:
            break
    return listing(found[:limit], url, len(found) > limit)


def _until(objects: Iterable[Obj], id: str, param: str = "ending_before") -> list[Obj]:
    passed: list[Obj] = []
    for obj in objects:
        if obj["id"] == id:
            return passed
        passed.append(obj)
    raise errors.no_such("object", id, param)


def created(p: Params) -> Callable[[Obj], bool]:
    """The filter ``created`` or ``created[gte|gt|lte|lt]``."""
    if isinstance(p.values.get("created"), str):
        exactly = p.integer("created")
        return lambda obj: obj["created"] == exactly
    span = p.nested("created")
    span.allow(("gte", "gt", "lte", "lt"))
    gte, gt, lte, lt = (span.integer(name) for name in ("gte", "gt", "lte", "lt"))
    return lambda obj: (
        (gte is None or obj["created"] >= gte)
        and (gt is None or obj["created"] > gt)
        and (lte is None or obj["created"] <= lte)
        and (lt is None or obj["created"] < lt)
    )


def customer_of(account: Account, p: Params) -> str | None:
    """The filter ``customer``; a customer that never was is refused, as Stripe does."""
    id = p.text("customer")
    if id:
        found = account.store.get(id)
        if found is None or found["object"] != "customer":
            raise errors.no_such("customer", id, "customer")
    return id
