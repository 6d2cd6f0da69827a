"""Refresh tokens: single use, a grace for a lost reply, and a reuse that ends the family."""

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, update

from app import db
from app.auth.models import RefreshToken, Session
from app.tokens import digest
from tests.auth import people
from tests.auth.people import Person
from tests.make import Client


@pytest.fixture
def person(app: Any) -> Person:
    return people.register(app)


def refresh(app: Any, token: str, **options: Any) -> Any:
    return Client(app, {}).post("/auth/refresh", {"refresh_token": token}, **options)


def used_long_ago(token: str) -> None:
    """As if the token had been used 11 s ago."""
    with db.transaction() as session:
        which = update(RefreshToken).where(RefreshToken.token_hash == digest(token))
        session.execute(which.values(used_at=func.now() - timedelta(seconds=11)))


def test_rotation(app: Any, person: Person) -> None:
    second = refresh(app, person.refresh_token, expect=200)
    assert second["refresh_token"] != person.refresh_token
    assert (second["user"], second["organization"]) == (person.answer["user"], person.answer["organization"])
    people.signed_in(app, second).api.get("/auth/profile", expect=200)
    third = refresh(app, second["refresh_token"], expect=200)
    assert third["refresh_token"] not in (person.refresh_token, second["refresh_token"])


def test_a_lost_reply_is_answered_again(app: Any, person: Person) -> None:
    first, again = (refresh(app, person.refresh_token, expect=200) for _ in range(2))
    assert first["refresh_token"] == again["refresh_token"]
    people.signed_in(app, again).api.get("/auth/profile", expect=200)
    refresh(app, again["refresh_token"], expect=200)


def test_a_later_reuse_ends_the_session(app: Any, person: Person) -> None:
    second = refresh(app, person.refresh_token, expect=200)
    used_long_ago(person.refresh_token)
    refused = refresh(app, person.refresh_token)
    assert (refused.status_code, refused.json["code"]) == (401, "UNAUTHORIZED")
    people.signed_in(app, second).api.get("/auth/profile", expect=401)
    refresh(app, second["refresh_token"], expect=401)
    people.login(app, person.email).api.get("/auth/profile", expect=200)


def test_a_refused_reuse_is_refused_alike_for_its_idempotency_key(app: Any, person: Person) -> None:
    refresh(app, person.refresh_token, expect=200)
    used_long_ago(person.refresh_token)
    key = {"Idempotency-Key": person.id}
    assert [refresh(app, person.refresh_token, headers=key).status_code for _ in range(2)] == [401, 401]
    person.api.get("/auth/profile", expect=401)


def test_twenty_at_once_get_one_successor(app: Any, person: Person) -> None:
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: refresh(app, person.refresh_token), range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json["refresh_token"] for answer in answers}) == 1
    refresh(app, answers[0].json["refresh_token"], expect=200)


def test_late_reuse_by_twenty_at_once_ends_the_session(app: Any, person: Person) -> None:
    second = refresh(app, person.refresh_token, expect=200)
    used_long_ago(person.refresh_token)
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: refresh(app, person.refresh_token).status_code, range(20)))
    assert set(answers) == {401}
    refresh(app, second["refresh_token"], expect=401)


def test_tokens_that_are_none(app: Any, person: Person) -> None:
    for token in ("x", "refresh_" + "A" * 43, person.answer["access_token"][:200], person.refresh_token[:-1]):
        assert refresh(app, token, expect=401)["code"] == "UNAUTHORIZED"
    for body in ({}, {"refresh_token": None}, {"refresh_token": "a\0b"}, {"refresh_token": "x", "more": 1}):
        assert Client(app, {}).post("/auth/refresh", body, expect=400)["code"] == "VALIDATION_ERROR"
    # None of them was taken for the right one used twice.
    assert refresh(app, person.refresh_token, expect=200)["user"]["id"] == person.id


def test_an_expired_session_ends_with_its_tokens(app: Any, person: Person) -> None:
    with db.transaction() as session:
        session.execute(update(Session).where(Session.user_id == person.id).values(expires_at=func.now()))
    person.api.get("/auth/profile", expect=401)
    refresh(app, person.refresh_token, expect=401)
