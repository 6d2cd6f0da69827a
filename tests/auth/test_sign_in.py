"""Registration, sign-in, sign-out, profile and passwords, as a user sees them."""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select

from app import db, redis
from app.auth import passwords
from app.auth.models import Session, User
from tests.auth import people
from tests.make import Client


@pytest.fixture
def anybody(app: Any) -> Client:
    return Client(app, {})


def test_registering_makes_an_organization_and_signs_in(app: Any, anybody: Client) -> None:
    email = people.address()
    answer = anybody.post("/auth/register", people.registration(email=f"  {email.upper()} "))
    body = answer.json
    assert (answer.status_code, body["token_type"], body["expires_in"]) == (201, "Bearer", 900)
    assert body["refresh_token"].startswith("refresh_")
    assert answer.headers["Location"] == "/api/v1/auth/profile"
    assert (body["user"]["email"], body["user"]["name"]) == (email.upper(), "Ada")
    assert (body["organization"]["name"], body["organization"]["role"]) == ("Acme", "owner")
    assert "password" not in answer.text
    person = people.signed_in(app, body)
    assert person.api.get("/auth/profile", expect=200)["organization"]["id"] == person.org
    people.login(app, email.title())


def test_an_address_registers_once(app: Any, anybody: Client) -> None:
    person = people.register(app)
    answer = anybody.post("/auth/register", people.registration(email=person.email.upper()))
    assert (answer.status_code, answer.json["code"]) == (409, "CONFLICT")


def test_two_who_register_one_address_at_once(app: Any) -> None:
    body = people.registration()
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: Client(app, {}).post("/auth/register", body).status_code, range(5)))
    assert sorted(answers) == [201, 409, 409, 409, 409]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", "nobody"), ("email", "a b@example.com"), ("email", "a\0@example.com"), ("email", "a" * 255 + "@b.at"),
        ("password", "too short"), ("password", "x" * 1025), ("name", "   "), ("name", "x" * 201), ("name", 7),
        ("organization_name", ""), ("organization_name", None), ("admin", True),
    ],
)  # fmt: skip
def test_registrations_that_are_refused(anybody: Client, field: str, value: Any) -> None:
    answer = anybody.post("/auth/register", people.registration(**{field: value}))
    assert (answer.status_code, answer.json["code"], list(answer.json["details"])) == (400, "VALIDATION_ERROR", [field])


def test_a_registration_without_an_organization(anybody: Client) -> None:
    body = people.registration()
    del body["organization_name"]
    assert list(anybody.post("/auth/register", body, expect=400)["details"]) == ["organization_name"]


def test_one_idempotency_key_registers_one_user(app: Any) -> None:
    body, key = people.registration(), {"Idempotency-Key": "once"}
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: Client(app, key).post("/auth/register", body), range(8)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json["refresh_token"] for answer in answers}) == 1
    other = Client(app, key).post("/auth/register", people.registration())
    assert other.status_code == 409
    assert people.login(app, body["email"]).api.get("/organizations", expect=200)["total"] == 1


def test_wrong_credentials_look_alike(app: Any, anybody: Client) -> None:
    person = people.register(app)
    known = anybody.post("/auth/login", {"email": person.email, "password": "x"}, expect=401)
    unknown = anybody.post("/auth/login", {"email": people.address(), "password": "x"}, expect=401)
    assert {**known, "request_id": ""} == {**unknown, "request_id": ""}


def test_unknown_users_cost_the_same_time(app: Any, anybody: Client) -> None:
    person = people.register(app)

    def seconds(email: str) -> float:
        started = time.perf_counter()
        anybody.post("/auth/login", {"email": email, "password": "wrong"}, expect=401)
        return time.perf_counter() - started

    for _attempt in range(3):  # the machine is shared: one quiet moment is enough
        pairs = [(seconds(person.email), seconds(people.address())) for _ in range(9)]
        known, unknown = (statistics.median(times) for times in zip(*pairs, strict=True))
        if 1 / 1.5 < known / unknown < 1.5:
            return
    pytest.fail(f"known {known:.4f} s, unknown {unknown:.4f} s")


def test_signing_out_acts_at_once(app: Any, anybody: Client) -> None:
    person = people.register(app)
    other = people.login(app, person.email)
    person.api.post("/auth/logout", expect=204)
    assert person.api.get("/auth/profile").status_code == 401
    assert anybody.post("/auth/refresh", {"refresh_token": person.refresh_token}).status_code == 401
    other.api.get("/auth/profile", expect=200)


def test_nobody_is_signed_out_or_let_in_when_redis_lost_everything(app: Any, anybody: Client) -> None:
    person, gone = people.register(app), people.register(app)
    gone.api.post("/auth/logout", expect=204)
    redis.client().flushdb()
    person.api.get("/auth/profile", expect=200)
    anybody.post("/auth/refresh", {"refresh_token": person.refresh_token}, expect=200)
    gone.api.get("/auth/profile", expect=401)


def test_the_profile_changes_by_field(app: Any) -> None:
    person = people.register(app)
    renamed = person.api.put("/auth/profile", {"name": " Grace "}, expect=200)
    assert (renamed["name"], renamed["email"]) == ("Grace", person.email)
    assert renamed["updated_at"] > renamed["created_at"]
    assert person.api.put("/auth/profile", {"role": "owner"}, expect=400)["details"].keys() == {"role"}


def test_another_address_wants_the_password(app: Any) -> None:
    person, other, email = people.register(app), people.register(app), people.address()
    password = {"current_password": people.PASSWORD}
    assert "current_password" in person.api.put("/auth/profile", {"email": email}, expect=400)["details"]
    person.api.put("/auth/profile", {"email": other.email.upper(), **password}, expect=409)
    person.api.put("/auth/profile", {"email": email, **password}, expect=200)
    people.login(app, email)


def test_a_new_password_ends_the_other_sessions(app: Any, anybody: Client) -> None:
    person = people.register(app)
    elsewhere = people.login(app, person.email)
    change = {"current_password": people.PASSWORD, "new_password": "another long one"}
    person.api.post("/auth/change-password", change, expect=204)
    person.api.get("/auth/profile", expect=200)
    elsewhere.api.get("/auth/profile", expect=401)
    anybody.post("/auth/refresh", {"refresh_token": elsewhere.refresh_token}, expect=401)
    anybody.post("/auth/login", {"email": person.email, "password": people.PASSWORD}, expect=401)
    people.login(app, person.email, "another long one")


def test_a_wrong_current_password_keeps_everything(app: Any) -> None:
    person = people.register(app)
    change = {"current_password": "wrong", "new_password": "another long one"}
    assert "current_password" in person.api.post("/auth/change-password", change, expect=400)["details"]
    people.login(app, person.email)


def test_hashes_are_argon2id_and_renewed_when_the_parameters_change(app: Any) -> None:
    person = people.register(app)

    def stored() -> User:
        with db.transaction() as session:
            return session.scalars(select(User).where(User.email == person.email)).one()

    assert stored().password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    weak = passwords.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(people.PASSWORD)
    with db.transaction() as session:
        session.get_one(User, stored().id).password_hash = weak
    people.login(app, person.email)
    assert stored().password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


def test_a_password_is_the_same_however_it_is_typed(app: Any) -> None:
    person = people.register(app, password="caf\u00e9 au lait")
    assert people.login(app, person.email, "cafe\u0301 au lait").id == person.id
    Client(app, {}).post("/auth/login", {"email": person.email, "password": "cafe au lait"}, expect=401)


def test_a_sign_in_is_recorded(app: Any) -> None:
    answer = Client(app, {"User-Agent": "curl/8"}).post("/auth/register", people.registration(), expect=201)
    with db.transaction() as session:
        row = session.scalars(select(Session).where(Session.user_id == answer["user"]["id"])).one()
    assert (row.user_agent, row.ip) == ("curl/8", "127.0.0.1")


def test_no_secret_is_stored_in_clear(app: Any) -> None:
    person = people.register(app)
    key = person.api.post("/auth/api-keys", {"name": "ci", "role": "viewer"}, expect=201)["key"]
    invitation = {"email": people.address(), "role": "viewer"}
    idempotent = {"Idempotency-Key": f"k-{person.id}"}
    made = person.api.post(f"/organizations/{person.org}/members", invitation, headers=idempotent, expect=201)
    secrets = [people.PASSWORD, person.refresh_token, person.answer["access_token"], key, made["invitation_token"]]
    tables = ("users", "sessions", "refresh_tokens", "api_keys", "invitations", "idempotency_keys")
    with db.transaction(system=True) as session:
        dump = "".join(str(session.execute(db.text(f"SELECT * FROM {table}")).all()) for table in tables)
    assert person.id in dump
    assert [secret for secret in secrets if secret in dump] == []
