"""``/_local/…``: what a test tells this server, and what it may ask. Not Stripe's; no key is needed on loopback."""

import json
from typing import Any

from flask import Blueprint, Response, jsonify, request

from tools.local_stripe import errors, faults
from tools.local_stripe.account import public
from tools.local_stripe.billing import engine
from tools.local_stripe.clock import finish_advancing
from tools.local_stripe.held import account, deliverer
from tools.local_stripe.resources.events import start_advancing

routes = Blueprint("control", __name__, url_prefix="/_local")

_WEBHOOKS = {"duplicate": int, "shuffle": bool, "hold": bool, "drop": int}


@routes.after_request
def commit(response: Response) -> Response:
    account.store.commit()
    return response


@routes.errorhandler(errors.StripeError)
def refuse(error: errors.StripeError) -> tuple[dict[str, Any], int]:
    account.store.rollback()
    return error.body(), error.status


@routes.get("/health")
def health() -> dict[str, Any]:
    return {"status": "ok"}


@routes.post("/faults")
def add_fault() -> dict[str, Any]:
    return faults.plan(account.store, _body())


@routes.delete("/faults")
def no_faults() -> tuple[str, int]:
    account.store.set("faults", [])
    return "", 204


@routes.post("/webhooks")
def webhooks() -> dict[str, Any]:
    """``{duplicate, shuffle, hold, drop}`` from now on; ``url`` and ``secrets`` change the endpoint itself."""
    body = _body()
    changed = {name: kind(body[name]) for name, kind in _WEBHOOKS.items() if name in body}
    account.store.set("webhooks", {**account.store.setting("webhooks", {}), **changed})
    endpoint = {name: body[name] for name in ("url", "secrets") if name in body}
    if endpoint:
        account.store.set("endpoint", {**account.store.setting("endpoint", {}), **endpoint})
        account.webhook_url = endpoint.get("url", account.webhook_url)
        account.webhook_secrets = endpoint.get("secrets", account.webhook_secrets)
    return dict(account.store.setting("webhooks", {}))


@routes.get("/webhooks")
def deliveries() -> dict[str, Any]:
    """How many deliveries are ``pending``, ``delivered``, ``given_up``."""
    rows = account.store.db.execute("SELECT state, count(*) FROM deliveries GROUP BY state").fetchall()
    return {**dict.fromkeys(("pending", "delivered", "given_up"), 0), **dict(rows)}


@routes.post("/webhooks/release")
def release() -> dict[str, Any]:
    return {"released": deliverer.release()}


@routes.get("/requests")
def requests() -> Response:
    """What came to ``/v1``, oldest first: ``[{id, method, path, params, idempotency_key, at}]``."""
    rows = account.store.db.execute("SELECT body FROM requests ORDER BY seq").fetchall()
    return jsonify([json.loads(row[0]) for row in rows])


@routes.delete("/requests")
def forget_requests() -> tuple[str, int]:
    account.store.db.execute("DELETE FROM requests")
    return "", 204


@routes.delete("/memory")
def forget_calls() -> tuple[str, int]:
    """A day passes for what is remembered of calls: idempotency keys, and identifiers of usage."""
    account.store.forget_calls()
    return "", 204


@routes.post("/settings")
def settings() -> dict[str, Any]:
    """``{after_retries: cancel|unpaid|past_due}``: what becomes of a subscription when the last retry failed."""
    after = _body().get("after_retries")
    if after not in ("cancel", "unpaid", "past_due"):
        raise errors.malformed("after_retries is one of cancel, unpaid, past_due", "after_retries")
    account.store.set("after_retries", after)
    return {"after_retries": after}


@routes.post("/clock")
def clock() -> dict[str, Any]:
    """``{test_clock: id|null}``: customers made without a clock get this one.

    With ``advance_to`` that clock is advanced instead, and the answer comes when it is ready.
    """
    body = _body()
    id = body.get("test_clock")
    if id:
        found = account.named("test_helpers.test_clock", id, "test_clock")
        if "advance_to" in body:
            start_advancing(account, found, int(body["advance_to"]))
            finish_advancing(account, account.get("test_helpers.test_clock", id))
            return public(account.get("test_helpers.test_clock", id))
    account.store.set("test_clock", id)
    return {"test_clock": id}


@routes.post("/tick")
def tick() -> dict[str, Any]:
    """Do what real time has brought about since the ticker last looked."""
    return {"done": engine.run(account, None, account.now())}


def _body() -> dict[str, Any]:
    body = request.get_json(force=True, silent=True)
    if not isinstance(body, dict):
        raise errors.malformed("A JSON object is expected.")
    return body
