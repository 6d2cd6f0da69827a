"""``expand[]``: ids replaced by objects along a path, ``data.latest_invoice.confirmation_secret``."""

from typing import Any

from tools.local_stripe import errors
from tools.local_stripe.account import HIDDEN, PREFIXES, Account, listing, public
from tools.local_stripe.store import Obj

_DEEPEST = 4


def expanded(account: Account, shown: Obj, paths: list[str]) -> Obj:
    """``shown`` (public already) with each path expanded in place. Raises ParameterError for one that cannot be."""
    for path in paths:
        steps = path.split(".")
        if len([step for step in steps if step != "data"]) > _DEEPEST:
            raise errors.malformed("You cannot expand more than 4 levels of a property.", "expand")
        _walk(account, shown, steps, path)
    return shown


def _walk(account: Account, node: Any, steps: list[str], path: str) -> None:
    if not steps or node is None:
        return
    step, rest = steps[0], steps[1:]
    if isinstance(node, list):
        for item in node:
            _walk(account, item, steps, path)
        return
    if step in HIDDEN.get(node.get("object", ""), ()):
        node[step] = _shown_on_demand(account, node, step)
    if step not in node or isinstance(node[step], int | bool):
        raise errors.malformed(f"This property cannot be expanded ({path}).", "expand")
    node[step] = _object(account, node[step], path)
    _walk(account, node[step], rest, path)


def _object(account: Account, value: Any, path: str) -> Any:
    if not isinstance(value, str):
        return value
    found = account.store.get(value) if value.partition("_")[0] in PREFIXES else None
    if found is None:
        raise errors.malformed(f"This property cannot be expanded ({path}).", "expand")
    return public(found)


def _shown_on_demand(account: Account, node: Obj, step: str) -> Any:
    url = f"/v1/{node['object']}s/{node['id']}/{step}"
    if step == "subscriptions":
        running = (s for s in account.store.all("subscription", node["id"]) if s["status"] != "canceled")
        return listing([public(s) for s in running], f"/v1/customers/{node['id']}/subscriptions")
    if step == "payments":
        payments = account.store.all("invoice_payment", node["customer"])
        return listing([public(p) for p in payments if p["invoice"] == node["id"]], "/v1/invoice_payments")
    if step in ("sources", "tax_ids"):
        return listing([], url)
    if step == "tax":
        return {"automatic_tax": "unrecognized_location", "ip_address": None, "location": None, "provider": "stripe"}
    stored = account.store.get(node["id"]) or node
    return stored.get(step) if step != "line_items" else listing(stored.get("line_items") or [], url)
