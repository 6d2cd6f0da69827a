"""Members and invitations: who joins, who changes whom, and the owner that always remains."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, update

from app import db
from app.organizations.models import Invitation
from tests.auth import people
from tests.auth.people import Person
from tests.make import Client

RANKS = ["owner", "admin", "operator", "viewer"]


@pytest.fixture
def owner(app: Any) -> Person:
    return people.register(app)


def members(owner: Person) -> str:
    return f"/organizations/{owner.org}/members"


def invite(owner: Person, email: str, role: str = "operator") -> str:
    return owner.api.post(members(owner), {"email": email, "role": role}, expect=201)["invitation_token"]


def test_an_invited_person_registers_into_the_organization(app: Any, owner: Person) -> None:
    email = people.address()
    answer = owner.api.post(members(owner), {"email": email, "role": "operator"})
    body = answer.json
    assert body["invitation_token"].startswith("invite_")
    assert answer.headers["Location"] == f"/api/v1/organizations/{owner.org}/invitations/{body['id']}"
    listed = owner.api.get(f"/organizations/{owner.org}/invitations", expect=200)["items"]
    assert listed == [{name: value for name, value in body.items() if name != "invitation_token"}]
    person = people.register(app, email=email.upper(), invitation_token=body["invitation_token"])
    assert (person.org, person.answer["organization"]["role"]) == (owner.org, "operator")
    assert person.api.get("/organizations", expect=200)["total"] == 1
    assert owner.api.get(f"/organizations/{owner.org}/invitations", expect=200)["total"] == 0
    joined = {member["user_id"]: member["role"] for member in owner.api.get(members(owner), expect=200)["items"]}
    assert joined == {owner.id: "owner", person.id: "operator"}


def test_an_invitation_is_for_one_address_and_one_use(app: Any, owner: Person) -> None:
    person = people.register(app)
    token = invite(owner, person.email)
    accept = "/organizations/invitations/accept"
    people.register(app).api.post(accept, {"token": token}, expect=403)
    Client(app, {}).post("/auth/register", people.registration(invitation_token=token), expect=403)
    assert person.api.post(accept, {"token": token}, expect=200)["id"] == owner.org
    person.api.post(accept, {"token": token}, expect=404)
    person.api.post(accept, {"token": "invite_x"}, expect=404)
    Client(app, {}).post("/auth/register", people.registration(invitation_token="invite_x"), expect=404)
    owner.api.post(members(owner), {"email": person.email.upper(), "role": "viewer"}, expect=409)


def test_a_refused_registration_leaves_no_user(app: Any, owner: Person) -> None:
    body = people.registration(invitation_token=invite(owner, people.address()))
    Client(app, {}).post("/auth/register", body, expect=403)
    Client(app, {}).post("/auth/login", {"email": body["email"], "password": people.PASSWORD}, expect=401)


def test_many_acceptances_at_once_make_one_member(app: Any, owner: Person) -> None:
    person = people.register(app)
    body = {"token": invite(owner, person.email)}
    with ThreadPoolExecutor(6) as pool:
        accept = "/organizations/invitations/accept"
        answers = list(pool.map(lambda _: Client(app, person.api.headers).post(accept, body).status_code, range(6)))
    assert sorted(answers) == [200, 404, 404, 404, 404, 404]
    assert owner.api.get(members(owner), expect=200)["total"] == 2


def test_inviting_again_replaces_the_invitation(app: Any, owner: Person) -> None:
    person = people.register(app)
    old, new = invite(owner, person.email, "admin"), invite(owner, person.email.upper(), "viewer")
    (listed,) = owner.api.get(f"/organizations/{owner.org}/invitations", expect=200)["items"]
    assert listed["role"] == "viewer"
    person.api.post("/organizations/invitations/accept", {"token": old}, expect=404)
    assert person.api.post("/organizations/invitations/accept", {"token": new}, expect=200)["role"] == "viewer"


def test_withdrawn_and_expired_invitations_open_nothing(app: Any, owner: Person) -> None:
    person = people.register(app)
    path = f"/organizations/{owner.org}/invitations"
    withdrawn = invite(owner, person.email)
    (listed,) = owner.api.get(path, expect=200)["items"]
    owner.api.delete(f"{path}/{listed['id']}", expect=204)
    owner.api.delete(f"{path}/{listed['id']}", expect=404)
    expired = invite(owner, person.email)
    with db.transaction(owner.org) as session:
        session.execute(update(Invitation).values(expires_at=func.now()))
    for token in (withdrawn, expired):
        person.api.post("/organizations/invitations/accept", {"token": token}, expect=404)


@pytest.mark.parametrize("own", ["owner", "admin"])
def test_nobody_gives_or_touches_more_than_his_own_role(app: Any, owner: Person, own: str) -> None:
    person = owner if own == "owner" else people.joins(app, owner, own)
    other = people.joins(app, owner, "viewer")
    second = people.joins(app, owner, "owner")
    for role in RANKS[1:]:
        person.api.put(f"{members(owner)}/{other.id}", {"role": role}, expect=200)
    allowed = 200 if own == "owner" else 403
    person.api.put(f"{members(owner)}/{other.id}", {"role": "owner"}, expect=allowed)
    person.api.put(f"{members(owner)}/{second.id}", {"role": "viewer"}, expect=allowed)
    third = people.joins(app, owner, "owner")
    person.api.delete(f"{members(owner)}/{third.id}", expect=204 if own == "owner" else 403)
    invitation = {"email": people.address(), "role": "owner"}
    person.api.post(members(owner), invitation, expect=201 if own == "owner" else 403)


@pytest.mark.parametrize("own", ["operator", "viewer"])
def test_others_manage_nobody_but_may_leave(app: Any, owner: Person, own: str) -> None:
    person, other = people.joins(app, owner, own), people.joins(app, owner, "viewer")
    person.api.put(f"{members(owner)}/{other.id}", {"role": "viewer"}, expect=403)
    person.api.put(f"{members(owner)}/{person.id}", {"role": "owner"}, expect=403)
    person.api.delete(f"{members(owner)}/{other.id}", expect=403)
    person.api.delete(f"{members(owner)}/{person.id}", expect=204)
    assert owner.api.get(members(owner), expect=200)["total"] == 2


def test_a_role_acts_on_the_next_request(app: Any, owner: Person) -> None:
    person = people.joins(app, owner, "viewer")
    person.api.get("/auth/api-keys", expect=403)
    changed = owner.api.put(f"{members(owner)}/{person.id}", {"role": "admin"}, expect=200)
    assert (changed["email"], changed["role"]) == (person.email, "admin")
    person.api.get("/auth/api-keys", expect=200)


def test_a_removed_user_stays_signed_in_without_a_role(app: Any, owner: Person) -> None:
    person = people.joins(app, owner, "admin")
    owner.api.delete(f"{members(owner)}/{person.id}", expect=204)
    person.api.get("/auth/api-keys", expect=403)
    person.api.get(f"/organizations/{owner.org}", expect=404)
    assert person.api.get("/organizations", expect=200)["items"] == []
    assert person.api.get("/auth/profile", expect=200)["organization"] is None
    again = people.login(app, person.email)
    assert again.answer["organization"] is None
    refreshed = Client(app, {}).post("/auth/refresh", {"refresh_token": again.refresh_token}, expect=200)
    assert refreshed["organization"] is None
    key = {"Idempotency-Key": person.id}
    body = {"token": invite(owner, person.email, "viewer")}
    for _ in range(2):
        accepted = again.api.post("/organizations/invitations/accept", body, headers=key, expect=200)
        assert accepted["id"] == owner.org
    change = {"current_password": people.PASSWORD, "new_password": "another long one"}
    again.api.post("/auth/change-password", change, expect=204)
    again.api.post("/auth/logout", expect=204)


def test_strangers_and_nobody_are_no_members(app: Any, owner: Person) -> None:
    stranger = people.register(app)
    for user in (stranger.id, uuid4()):
        owner.api.put(f"{members(owner)}/{user}", {"role": "viewer"}, expect=404)
        owner.api.delete(f"{members(owner)}/{user}", expect=404)


def test_the_last_owner_stays(app: Any, owner: Person) -> None:
    admin = people.joins(app, owner, "admin")
    own = f"{members(owner)}/{owner.id}"
    assert owner.api.delete(own, expect=409)["code"] == "CONFLICT"
    owner.api.put(own, {"role": "admin"}, expect=409)
    owner.api.put(own, {"role": "owner"}, expect=200)
    admin.api.delete(own, expect=403)
    owner.api.put(f"{members(owner)}/{admin.id}", {"role": "owner"}, expect=200)
    owner.api.delete(own, expect=204)
    admin.api.delete(f"{members(owner)}/{admin.id}", expect=409)


def test_two_owners_who_go_at_once_leave_one_behind(app: Any, owner: Person) -> None:
    for action in ("PUT", "DELETE"):
        organization = people.register(app)
        second = people.joins(app, organization, "owner")

        def go(pair: tuple[Person, Person], action: str = action, path: str = members(organization)) -> int:
            caller, other = pair
            body = {"role": "viewer"} if action == "PUT" else None
            return Client(app, caller.api.headers).request(action, f"{path}/{other.id}", body).status_code

        pairs = [(organization, second), (second, organization)] * 3
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(go, pairs))
        assert min(answers) in (200, 204)
        with db.transaction(organization.org) as session:
            count = "SELECT count(*) FROM memberships WHERE role = 'owner'"
            assert session.scalar(db.text(count)) == 1
