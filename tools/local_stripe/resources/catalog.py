"""/v1/products and /v1/prices, and those that a plans file names."""

import tomllib
from pathlib import Path

from tools.local_stripe import errors
from tools.local_stripe.account import Account, new_id, public
from tools.local_stripe.endpoints import PAGE, created, endpoint, page
from tools.local_stripe.params import Params
from tools.local_stripe.shapes import billing as shapes
from tools.local_stripe.store import Obj


def seed(account: Account, plans: Path) -> None:
    """A product and a price for each ``[plan] price = {amount, currency, interval, stripe_price}``. Raises OSError."""
    for name, plan in tomllib.loads(plans.read_text()).items():
        asked = plan.get("price") if isinstance(plan, dict) else None
        if not asked or not asked.get("stripe_price"):
            continue
        now = account.now()
        product = account.store.get(f"prod_{name}") or shapes.product(f"prod_{name}", plan.get("name", name), now)
        recurring = {"interval": asked["interval"], "interval_count": asked.get("interval_count", 1)}
        id, amount, currency = asked["stripe_price"], asked["amount"], asked["currency"].lower()
        known = account.store.get(id)
        if known is None or (known["unit_amount"], known["currency"]) != (amount, currency):
            account.save(shapes.price(id, product["id"], amount, currency, recurring, now))
        account.save({**product, "name": plan.get("name", name), "default_price": id, "metadata": {"plan": name}})


@endpoint("POST", "/v1/products", "id name description metadata active default_price_data")
def create_product(account: Account, p: Params) -> Obj:
    product = shapes.product(p.text("id") or new_id("prod", 14), p.required("name"), account.now())
    product.update(description=p.text("description"), metadata=p.metadata(), active=p.boolean("active", True))
    account.save(product)
    account.emit("product.created", product)
    return public(product)


@endpoint("POST", "/v1/products/<id>", "name description metadata active default_price")
def update_product(account: Account, p: Params, id: str) -> Obj:
    product = account.get("product", id)
    changed: Obj = {"metadata": p.metadata(product["metadata"]), "active": p.boolean("active", product["active"])}
    changed |= {name: p.text(name) for name in ("name", "description", "default_price") if name in p}
    return public(account.update(product, "product.updated", **changed, updated=account.now()))


@endpoint("GET", "/v1/products", f"{PAGE} active created ids")
def products(account: Account, p: Params) -> Obj:
    when, active = created(p), p.text("active")
    return page(p, "/v1/products", account.store.all("product"), lambda obj: when(obj) and _is(obj, active))


@endpoint("GET", "/v1/products/<id>")
def product(account: Account, p: Params, id: str) -> Obj:
    return public(account.get("product", id))


@endpoint(
    "POST", "/v1/prices", "product product_data unit_amount currency recurring nickname metadata active lookup_key"
)
def create_price(account: Account, p: Params) -> Obj:
    amount, now = p.integer("unit_amount"), account.now()
    if amount is None or amount < 0:
        raise errors.missing("unit_amount")
    if "product_data" in p:
        made = shapes.product(new_id("prod", 14), p.nested("product_data").required("name"), now)
        owner = account.save(made)["id"]
    else:
        owner = account.named("product", p.required("product"), "product")["id"]
    price = shapes.price(new_id("price"), owner, amount, p.required("currency").lower(), _recurring(p), now)
    price.update(nickname=p.text("nickname"), metadata=p.metadata(), lookup_key=p.text("lookup_key"))
    account.save(price)
    account.emit("price.created", price)
    return public(price)


def _recurring(p: Params) -> Obj | None:
    if "recurring" not in p:
        return None
    asked = p.nested("recurring")
    asked.allow(("interval", "interval_count", "usage_type"))
    asked.choice("usage_type", ("licensed",), "licensed")
    interval = asked.required("interval")
    if interval not in ("day", "week", "month", "year"):
        raise errors.malformed(
            "Invalid recurring[interval]: must be one of day, month, week, or year", "recurring[interval]"
        )
    return {"interval": interval, "interval_count": asked.integer("interval_count", 1)}


@endpoint("POST", "/v1/prices/<id>", "active nickname metadata lookup_key")
def update_price(account: Account, p: Params, id: str) -> Obj:
    price = account.get("price", id)
    changed: Obj = {"metadata": p.metadata(price["metadata"]), "active": p.boolean("active", price["active"])}
    changed |= {name: p.text(name) for name in ("nickname", "lookup_key") if name in p}
    return public(account.update(price, "price.updated", **changed))


@endpoint("GET", "/v1/prices", f"{PAGE} active product currency type created lookup_keys")
def prices(account: Account, p: Params) -> Obj:
    when, active, product = created(p), p.text("active"), p.text("product")
    keys = p.texts("lookup_keys")

    def keep(obj: Obj) -> bool:
        named = not keys or obj["lookup_key"] in keys
        return when(obj) and _is(obj, active) and (not product or obj["product"] == product) and named

    return page(p, "/v1/prices", account.store.all("price"), keep)


@endpoint("GET", "/v1/prices/<id>")
def price(account: Account, p: Params, id: str) -> Obj:
    return public(account.get("price", id))


def _is(obj: Obj, active: str | None) -> bool:
    return active is None or obj["active"] == (active == "true")
