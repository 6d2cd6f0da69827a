"""API keys: shown once, no role above their maker's, an expiry, a last use."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, update

from app import db
from app.auth.models import ApiKey
from tests import make
from tests.auth import people
from tests.make import Client

ROLES = ["owner", "admin", "operator", "viewer"]


def soon() -> str:
    return (datetime.now(UTC) + timedelta(hours=1)).isoformat()


def test_a_key_is_shown_once_and_works_until_it_is_deleted(app: Any) -> None:
    person = people.register(app)
    made = person.api.post("/auth/api-keys", {"name": "ci", "role": "operator", "expires_at": soon()}, expect=201)
    assert made["key"].startswith("edgeflow_")
    assert made["key"].startswith(made["prefix"])
    (listed,) = person.api.get("/auth/api-keys", expect=200)["items"]
    assert listed == {name: value for name, value in made.items() if name != "key"}
    assert (listed["last_used_at"], listed["created_by"]) == (None, person.id)
    program = Client(app, {"X-API-Key": made["key"]})
    (seen,) = program.get("/organizations", expect=200)["items"]
    assert (seen["id"], seen["role"]) == (person.org, "operator")
    assert person.api.get("/auth/api-keys", expect=200)["items"][0]["last_used_at"] is not None
    person.api.delete(f"/auth/api-keys/{made['id']}", expect=204)
    program.get("/organizations", expect=401)
    person.api.delete(f"/auth/api-keys/{made['id']}", expect=404)


@pytest.mark.parametrize("own", ROLES)
def test_no_key_above_its_maker(app: Any, own: str) -> None:
    owner = people.register(app)
    person = owner if own == "owner" else people.joins(app, owner, own)
    answers = [person.api.post("/auth/api-keys", {"name": "k", "role": role}).status_code for role in ROLES]
    expected = {"owner": [201] * 4, "admin": [403, 201, 201, 201]}
    assert answers == expected.get(own, [403] * 4)
    assert person.api.get("/auth/api-keys").status_code == (200 if own in expected else 403)


def test_a_key_makes_no_keys_and_has_no_profile(app: Any, org: Any) -> None:
    program = make.client(app, org, "owner")
    program.post("/auth/api-keys", {"name": "k", "role": "viewer"}, expect=403)
    program.get("/auth/profile", expect=403)
    program.post("/auth/logout", expect=403)
    listed = program.get("/auth/api-keys", expect=200)
    assert len(listed["items"]) == 1  # itself


def test_an_expired_key_opens_nothing(app: Any) -> None:
    person = people.register(app)
    made = person.api.post("/auth/api-keys", {"name": "k", "role": "admin", "expires_at": soon()}, expect=201)
    program = Client(app, {"X-API-Key": made["key"]})
    program.get("/organizations", expect=200)
    with db.transaction(person.org) as session:
        session.execute(update(ApiKey).where(ApiKey.id == made["id"]).values(expires_at=func.now()))
    assert program.get("/organizations", expect=401)["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize(
    "wrong",
    [{"expires_at": "2020-01-01T00:00:00Z"}, {"expires_at": "2090-01-01T00:00:00"}, {"role": "root"}, {"role": None},
     {"name": ""}, {"key": "edgeflow_mine"}],
)  # fmt: skip
def test_keys_that_are_refused(app: Any, wrong: dict[str, Any]) -> None:
    person = people.register(app)
    answer = person.api.post("/auth/api-keys", {"name": "k", "role": "viewer", **wrong}, expect=400)
    assert list(answer["details"]) == list(wrong)


def test_keys_of_another_organization_are_not_there(app: Any) -> None:
    person, stranger = people.register(app), people.register(app)
    made = person.api.post("/auth/api-keys", {"name": "k", "role": "viewer"}, expect=201)
    stranger.api.delete(f"/auth/api-keys/{made['id']}", expect=404)
    assert stranger.api.get("/auth/api-keys", expect=200)["total"] == 0
    program = Client(app, {"X-API-Key": made["key"]})
    program.get(f"/organizations/{stranger.org}", expect=404)
    program.get("/organizations", headers={"X-Organization-Id": stranger.org}, expect=403)
    program.get("/organizations", headers={"X-Organization-Id": person.org}, expect=200)
