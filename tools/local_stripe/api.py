"""What every request to ``/v1`` goes through: key, faults, idempotency, the endpoint, expansion, errors, one commit."""

import hashlib
import json
import time
from collections.abc import Callable
from typing import Any

import gevent
from flask import Response, request

from tools.local_stripe import errors
from tools.local_stripe.account import API_VERSION, Account, new_id
from tools.local_stripe.endpoints import ENDPOINTS, Endpoint
from tools.local_stripe.expand import expanded
from tools.local_stripe.faults import Fault, take
from tools.local_stripe.params import Params, parse
from tools.local_stripe.store import KEYS_SECONDS

_LONGEST_KEY = 255
Answer = tuple[int, str, dict[str, str]]  # status, body, headers


class Api:
    """Serves the endpoints of one account.

    Nothing between the first read and the commit gives way to another greenlet: so requests are atomic, one after
    the other, and a key is "in use" only while a fault delays its request.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._in_flight: set[str] = set()

    def views(self) -> list[tuple[str, str, Callable[..., Response]]]:
        """(method, path, view) of each endpoint."""
        return [(endpoint.method, endpoint.path, self._view(endpoint)) for endpoint in ENDPOINTS]

    def _view(self, endpoint: Endpoint) -> Callable[..., Response]:
        def view(**path: str) -> Response:
            return self.serve(endpoint, path)

        view.__name__ = f"{endpoint.handler.__module__}.{endpoint.handler.__name__}.{endpoint.path}".replace(".", "_")
        return view

    def unknown(self) -> Response:
        """An address that there is not: 404 as Stripe words it."""
        message = f"Unrecognized request URL ({request.method}: {request.path})."
        error = errors.StripeError(404, "invalid_request_error", message)
        return _response((404, json.dumps(error.body()), {"Request-Id": new_id("req", 14)}))

    def serve(self, endpoint: Endpoint, path: dict[str, str]) -> Response:
        request_id, key = new_id("req", 14), request.headers.get("Idempotency-Key")
        # Reading the body gives way to others: first, before anything is written.
        encoded = request.get_data(as_text=True) if request.method == "POST" else request.query_string.decode()
        fault = take(self._account.store, request.method, request.path)
        record = {"id": request_id, "method": request.method, "path": request.path, "idempotency_key": key}
        self._remember(record, encoded)
        try:
            self._authorize()
            answer = self._once(endpoint, path, encoded, key, request_id, fault)
        except errors.StripeError as error:
            answer = (error.status, json.dumps(error.body()), {})
        status, body, headers = answer
        return _response((status, body, {"Request-Id": request_id, **headers}))

    def _remember(self, record: dict[str, Any], encoded: str) -> None:
        told = json.dumps({**record, "params": encoded, "at": time.time()})
        self._account.store.db.execute("INSERT INTO requests (body) VALUES (?)", (told,))
        self._account.store.commit()

    def _authorize(self) -> None:
        key = (
            request.authorization.username if request.authorization and request.authorization.type == "basic" else None
        )
        bearer = request.headers.get("Authorization", "").partition("Bearer ")[2]
        if not (key or bearer):
            message = "You did not provide an API key. You need to provide your API key in the Authorization header."
            raise errors.StripeError(401, "invalid_request_error", message)
        if (key or bearer) != self._account.key:
            shown = (key or bearer or "")[-4:]
            raise errors.StripeError(401, "invalid_request_error", f"Invalid API Key provided: sk_test_****{shown}")

    def _once(
        self, endpoint: Endpoint, path: dict[str, str], encoded: str, key: str | None, id: str, fault: Fault | None
    ) -> Answer:
        """The endpoint's answer, or the one it gave before under the same key."""
        if not key or request.method != "POST":
            _before(fault)
            answer = self._perform(endpoint, path, encoded, id, None, None)
            _after(fault)
            return answer
        if len(key) > _LONGEST_KEY:
            raise errors.malformed("Idempotency keys must not be longer than 255 characters.")
        fingerprint = _fingerprint(request.path, encoded)
        if key in self._in_flight:
            message = f"There is currently another in-progress request using this Idempotent Key: {key}"
            raise errors.StripeError(409, "idempotency_error", message, code="idempotency_key_in_use")
        self._in_flight.add(key)
        try:
            _before(fault)
            answer = self._known(key, fingerprint) or self._perform(endpoint, path, encoded, id, key, fingerprint)
            _after(fault)
            return answer
        finally:
            self._in_flight.discard(key)

    def _known(self, key: str, fingerprint: str) -> Answer | None:
        row = self._account.store.db.execute(
            "SELECT fingerprint, status, body, request_id FROM idempotency WHERE key = ? AND created > ?",
            (key, time.time() - KEYS_SECONDS),
        ).fetchone()
        if row is None:
            return None
        if row[0] != fingerprint:
            message = (
                "Keys for idempotent requests can only be used with the same parameters they were first used with."
                f" Try using a key other than '{key}' if you meant to execute a different request."
            )
            raise errors.StripeError(400, "idempotency_error", message)
        return row[1], row[2], {"Idempotency-Key": key, "Idempotent-Replayed": "true", "Original-Request": row[3]}

    def _perform(
        self, endpoint: Endpoint, path: dict[str, str], encoded: str, id: str, key: str | None, fingerprint: str | None
    ) -> Answer:
        """Effects and the answer remembered for the key are committed together."""
        account, store = self._account, self._account.store
        account.request = {"id": id, "idempotency_key": key}
        headers = {"Idempotency-Key": key, "Original-Request": id} if key else {}
        try:
            status, body, keep = _call(account, endpoint, path, parse(encoded))
        except BaseException:
            store.rollback()
            raise
        finally:
            account.request = None
        if not keep:
            store.rollback()
        if key:
            store.db.execute(
                "INSERT OR REPLACE INTO idempotency (key, fingerprint, status, body, request_id, created)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (key, fingerprint, status, body, id, time.time()),
            )
        store.commit()
        return status, body, headers


def _call(account: Account, endpoint: Endpoint, path: dict[str, str], p: Params) -> tuple[int, str, bool]:
    """(status, body, whether its effects stay). Raises ParameterError."""
    p.allow(endpoint.allowed)
    expand = p.texts("expand")
    try:
        shown = endpoint.handler(account, p, **path)
    except errors.ParameterError:
        raise
    except errors.StripeError as error:
        return error.status, json.dumps(error.body()), error.keep
    return 200, json.dumps(expanded(account, shown, expand)), True


def _before(fault: Fault | None) -> None:
    if fault and not fault.after_effect:
        _happen(fault)


def _after(fault: Fault | None) -> None:
    if fault and fault.after_effect:
        _happen(fault)


def _happen(fault: Fault) -> None:
    gevent.sleep(fault.seconds)
    fault.happen()


def _fingerprint(path: str, encoded: str) -> str:
    return hashlib.sha256("&".join([path, *sorted(encoded.split("&"))]).encode()).hexdigest()


def _response(answer: Answer) -> Response:
    status, body, headers = answer
    response = Response(body, status, mimetype="application/json")
    response.headers.update({"Stripe-Version": API_VERSION, **headers})
    return response
