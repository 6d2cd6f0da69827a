"""Idempotency-Key on POST: the request side of ``app.idempotency``."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from uuid import UUID

from flask import Response, g, make_response, request
from flask.globals import request_ctx

from app import db, idempotency
from app.api import error_response
from app.auth.identity import Identity
from app.errors import AppError, ServiceUnavailable, ValidationFailed
from app.idempotency import Answer, Claim

KEPT_HEADERS = ("Content-Type", "Location")


def run_once(caller: Identity | None, call: Callable[[], Any]) -> Any:
    """Carry out the request, or answer as the first one with its ``Idempotency-Key`` was answered.

    ``caller``: whose key it is; None for those of routes that anybody may call.
    """
    asked = request_ctx.request
    key = asked.headers.get("Idempotency-Key") if asked.method == "POST" else None
    if key is None:
        return call()
    if not 1 <= len(key) <= 255:
        raise ValidationFailed(details={"Idempotency-Key": ["Length must be between 1 and 255."]})
    org_id = caller.org_id if caller else None
    scope = f"{f'{caller.kind}:{caller.id}' if caller else 'public'}\0{request.path}"
    claimed = idempotency.claim(scope, org_id, key, request.get_data() + b"\0" + request.query_string)
    if isinstance(claimed, Answer):
        return Response(claimed.body, claimed.status, [*claimed.headers, ("Idempotent-Replayed", "true")])
    g.claim = claimed
    response = make_response(_outcome(call))
    _keep(claimed, org_id, response)
    return response


def begun() -> UUID | None:
    """The work that an earlier request with this key began, and that has not been answered for: wait for it alone."""
    claimed: Claim | None = g.get("claim")
    return claimed.work if claimed else None


def answer_comes_of(work: UUID) -> None:
    """Say, in the transaction that begins it, of what work the answer will come.

    Should this request end without it (it goes on too long, the process dies), the same key asks for it again.
    """
    claimed: Claim | None = g.get("claim")
    if claimed:
        g.claim = replace(claimed, work=work)
        claimed.begin(work)


def commit_before_waiting() -> None:
    """Commit what the request has done so far: no transaction is open while a device answers.

    From here on a failure is the request's answer too, so that the same key does not send the command again.
    """
    db.commit()
    g.effects_committed = True


def _outcome(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except AppError as error:
        goes_on = begun() is not None and isinstance(error, ServiceUnavailable)
        if goes_on or not (g.get("effects_committed") or error.keeps_changes):
            raise
        return error_response(error)


def _keep(claimed: Claim, org_id: UUID | None, response: Response) -> None:
    db.act_for(org_id)  # a registration has moved on into its new organization
    headers = [(name, response.headers[name]) for name in KEPT_HEADERS if name in response.headers]
    claimed.save(Answer(response.status_code, headers, response.get_data()))
