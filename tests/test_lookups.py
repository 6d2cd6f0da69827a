"""Look-ups outside of a transaction: they leave nothing behind, and outlive the loss of their connections."""

import time
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app import db
from config.settings import settings
from tests import make
from tests.make import Client

PID = text("SELECT pg_backend_pid()")


pytestmark = pytest.mark.usefixtures("app")


def cut() -> None:
    """End the connection that the next look-up will get: the one that came back last."""
    (pid,) = db.look_up(PID, {}) or (0,)
    with psycopg.connect(settings().database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def test_what_a_look_up_sets_ends_with_it() -> None:
    tell = text("SELECT set_config('app.org_id', :org, true), pg_backend_pid()")
    _, told = db.look_up(tell, {"org": str(uuid4())}) or (None, None)
    left, asked = db.look_up(text("SELECT current_setting('app.org_id', true), pg_backend_pid()"), {}) or (None, None)
    assert (left or "", asked) == ("", told)


def test_one_that_is_cut_says_so_once() -> None:
    cut()
    with pytest.raises(DBAPIError) as caught:
        db.look_up(PID, {})
    assert caught.value.connection_invalidated
    assert db.look_up(PID, {})


def test_one_that_lay_idle_is_tried_before_it_is_used() -> None:
    cut()
    time.sleep(db.FRESH_SECONDS)
    assert db.look_up(PID, {})


def test_a_request_that_meets_a_cut_one_is_answered_503_and_the_next_is_not(app: Any, org: Any) -> None:
    device, _key = make.device(org)
    api = make.client(app, org)
    path = f"/edge-nodes/{device.id}/health"
    assert api.get(path, expect=503)["code"] == "DEVICE_OFFLINE"
    cut()
    assert api.get(path, expect=503)["code"] == "SERVICE_UNAVAILABLE"
    assert api.get(path, expect=503)["code"] == "DEVICE_OFFLINE"


def test_a_foreign_device_is_looked_up_as_one_that_is_not_there(app: Any, org: Any) -> None:
    device, _key = make.device(make.organization("Other"))
    found = [make.client(app, org).get(f"/edge-nodes/{one}/health", expect=404) for one in (device.id, uuid4())]
    assert {one["error"] for one in found} == {"device not found"}


def test_a_member_of_another_organization_sees_no_device_of_the_one_he_names(app: Any, org: Any) -> None:
    device, _key = make.device(org)
    other = Client(app, {"X-API-Key": make.api_key(make.organization("Other")), "X-Organization-Id": str(org)})
    assert other.get(f"/edge-nodes/{device.id}/health", expect=403)["code"] == "FORBIDDEN"


def test_one_whose_caller_is_ended_gives_its_answer_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(self: Any, gen: Any, *_args: Any, **_options: Any) -> Any:
        next(gen)
        raise SystemExit

    before = db.look_up(PID, {})
    with monkeypatch.context() as patched:
        patched.setattr(db.BoundedConnection, "wait", ended)
        with pytest.raises(SystemExit):
            db.look_up(text("SELECT 'his'"), {})
    assert db.look_up(PID, {}) not in (before, ("his",))
