"""Stripe's own pages: checkout, portal, invoice, PDF and the bank's question, with what their forms do."""

from typing import Any

from flask import Blueprint, Response, redirect, request
from werkzeug.wrappers import Response as BaseResponse

from tools.local_stripe import errors, pages, pdf
from tools.local_stripe.account import Account, listing, public
from tools.local_stripe.held import account
from tools.local_stripe.params import Params
from tools.local_stripe.resources import customers, intents, invoices, payment_methods, sessions, subscriptions
from tools.local_stripe.store import Obj

Page = str | BaseResponse | tuple[Any, int]
_SEE_OTHER = 303

routes = Blueprint("hosted", __name__)


@routes.errorhandler(errors.StripeError)
def refuse(error: errors.StripeError) -> tuple[dict[str, Any], int]:
    account.store.rollback()
    return error.body(), error.status


@routes.get("/c/pay/<id>")
def checkout(id: str) -> Page:
    return _checkout(account, id)


@routes.post("/c/pay/<id>")
def pay(id: str) -> Page:
    session = account.get("checkout.session", id)
    if request.form.get("action") == "cancel":
        return redirect(session["cancel_url"] or session["success_url"], _SEE_OTHER)
    try:
        session = sessions.complete(account, id, request.form.get("card", ""))
    except errors.StripeError as error:
        account.store.rollback()
        return _checkout(account, id, error.message), 402
    account.store.commit()
    if session.get("_confirm"):
        return redirect(f"/_local/confirm/{session['_confirm']}", _SEE_OTHER)
    return redirect(_success(session), _SEE_OTHER)


@routes.get("/p/session/<id>")
def portal(id: str) -> Page:
    return _portal(account, id)


@routes.post("/p/session/<id>")
def manage(id: str) -> Page:
    session = account.get("billing_portal.session", id)
    try:
        _manage(account, session["customer"], request.form)
    except errors.StripeError as error:
        _conclude(account, error)
        asked = error.fields.get("payment_intent", {})
        if asked.get("status") == "requires_action":
            return redirect(f"/_local/confirm/{asked['id']}", _SEE_OTHER)
        return _portal(account, id, error.message), 402
    account.store.commit()
    return redirect(request.path, _SEE_OTHER)


@routes.get("/_local/confirm/<id>")
def question(id: str) -> Page:
    return pages.confirmation(public(_intent(account, id)))


@routes.post("/_local/confirm/<id>")
def confirm(id: str) -> Page:
    """``outcome=succeed|fail`` by a form or as JSON; JSON is answered by the intent as it is now."""
    given = request.get_json(silent=True) or request.form
    agreed = given.get("outcome", "succeed") == "succeed"
    try:
        intent = intents.answered(account, id, agreed)
    except errors.StripeError as error:
        account.store.rollback()
        return error.body(), error.status
    target = _finished(account, intent)
    account.store.commit()
    if request.is_json or not request.form:
        return public(intent), 200
    return redirect(target, _SEE_OTHER) if target else pages.confirmation(public(intent))


@routes.get("/i/<id>")
def invoice(id: str) -> Page:
    """Paid here while it is open; later it is a paper."""
    found = account.get("invoice", id)
    if found["status"] != "open" or (account.store.get(found["customer"]) or {}).get("deleted"):
        return redirect(f"/i/{id}/pdf", _SEE_OTHER)
    portal = sessions.create_portal(account, Params({"customer": found["customer"]}))
    account.store.commit()
    return redirect(portal["url"], _SEE_OTHER)


@routes.get("/i/<id>/pdf")
def paper(id: str) -> Page:
    found = account.get("invoice", id)
    if not found["number"]:
        raise errors.no_such("invoice", id, status=404)
    customer = account.store.get(found["customer"]) or {"id": found["customer"]}
    # The invoice keeps whom it was for, also when the customer is gone.
    known = {**customer, "name": found["customer_name"], "email": found["customer_email"]}
    name = f'attachment; filename="Invoice-{found["number"]}.pdf"'
    document = pdf.render(public(found), public(known))
    return Response(document, mimetype="application/pdf", headers={"Content-Disposition": name})


def _intent(account: Account, id: str) -> Obj:
    found = account.store.get(id)
    if found is None or found["object"] not in ("payment_intent", "setup_intent"):
        raise errors.no_such("payment_intent", id, status=404)
    return found


def _checkout(account: Account, id: str, error: str | None = None) -> str:
    session = account.get("checkout.session", id)
    lines = listing(session.get("line_items") or [], f"/v1/checkout/sessions/{id}/line_items")
    return pages.checkout({**public(session), "line_items": lines}, error)


def _portal(account: Account, id: str, error: str | None = None) -> str:
    session = account.get("billing_portal.session", id)
    customer = account.get("customer", session["customer"])
    kinds = ("subscription", "payment_method", "invoice")
    found = [[public(obj) for obj in account.store.all(kind, customer["id"])] for kind in kinds]
    running = [one for one in found[0] if not one["ended_at"]]
    finalized = [one for one in found[2] if one["number"]]
    return pages.portal(public(session), public(customer), running, found[1], finalized, error)


def _manage(account: Account, customer: str, form: Any) -> None:
    """One action of the portal, on what is this customer's. Raises StripeError."""
    action = form.get("action", "")
    for field in ("subscription", "payment_method", "invoice"):
        if field in form and account.named(field, form[field], field)["customer"] != customer:
            raise errors.no_such(field, form[field], field)
    if action in ("cancel", "resume"):
        wish = Params({"cancel_at_period_end": "true" if action == "cancel" else "false"})
        subscriptions.update(account, wish, form["subscription"])
    elif action == "add":
        payment_methods.attach(account, Params({"customer": customer}), form["card"])
    elif action == "default":
        chosen = Params({"invoice_settings": {"default_payment_method": form["payment_method"]}})
        customers.update(account, chosen, customer)
    elif action == "remove":
        payment_methods.detach(account, Params({}), form["payment_method"])
    elif action == "pay":
        invoices.pay(account, Params({}), form["invoice"])
    else:
        raise errors.invalid("Unknown action.")


def _conclude(account: Account, error: errors.StripeError) -> None:
    if error.keep:
        account.store.commit()
    else:
        account.store.rollback()


def _finished(account: Account, intent: Obj) -> str | None:
    """Where a person goes on after the bank's question; a checkout session that waited for it is complete."""
    session = account.store.get(intent.get("_session") or "")
    if session is None:
        action = intent.get("_return_url")
        return str(action) if action else None
    if intent["status"] != "succeeded":
        return f"/c/pay/{session['id']}"
    return _success(sessions.finish(account, session) if session["status"] == "open" else session)


def _success(session: Obj) -> str:
    return str(session["success_url"]).replace("{CHECKOUT_SESSION_ID}", session["id"])
