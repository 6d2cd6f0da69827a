"""Only our own unexpired access tokens open anything (S3)."""

import base64
import json
import time
from typing import Any
from uuid import uuid4

import jwt
import pytest

from config.settings import settings
from tests import make
from tests.auth import people
from tests.make import Client

ALL = ("/auth/profile", "/organizations", "/auth/api-keys")


def claims(person: people.Person) -> dict[str, Any]:
    token = person.answer["access_token"]
    return jwt.decode(token, options={"verify_signature": False, "verify_aud": False})


def signed(claims: dict[str, Any], *, secret: str | None = None, algorithm: str = "HS256") -> str:
    return jwt.encode(claims, secret or settings().jwt_secret_key, algorithm=algorithm)


def without(claims: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in claims.items() if key != name}


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def mutations(good: dict[str, Any], token: str, refresh_token: str) -> dict[str, str]:
    """Every forged or broken token, by name."""
    header, payload, signature = token.split(".")
    now = int(time.time())
    changed = {
        "expired": {"exp": now - 1}, "not yet valid": {"nbf": now + 600}, "issued tomorrow": {"iat": now + 86_400},
        "wrong issuer": {"iss": "somebody"}, "wrong audience": {"aud": "other-api"}, "audiences": {"aud": ["x", "y"]},
        "refresh type": {"type": "refresh"}, "no such type": {"type": None}, "another's subject": {"sub": str(uuid4())},
        "subject no id": {"sub": "1"}, "subject number": {"sub": 7}, "unknown session": {"sid": str(uuid4())},
        "session no id": {"sid": "x"}, "session null": {"sid": None}, "session list": {"sid": [good["sid"]]},
        "text expiry": {"exp": "never"}, "infinite expiry": {"exp": 1e400}, "expiry null": {"exp": None},
    }  # fmt: skip
    return {
        **{name: signed({**good, **values}) for name, values in changed.items()},
        **{f"no {name}": signed(without(good, name)) for name in ("exp", "iat", "iss", "aud", "sub", "sid", "type")},
        "alg none": f"{part({'alg': 'none', 'typ': 'JWT'})}.{payload}.",
        "alg None, old signature": f"{part({'alg': 'None', 'typ': 'JWT'})}.{payload}.{signature}",
        "no alg": f"{part({'typ': 'JWT'})}.{payload}.{signature}",
        "HS512": signed(good, algorithm="HS512"),
        "HS384": signed(good, algorithm="HS384"),
        "foreign secret": signed(good, secret="x" * 48),
        "the other secret": signed(good, secret=settings().secret_key),
        "key in the header": jwt.encode(good, "y" * 48, headers={"jwk": {"kty": "oct", "k": "eXl5"}, "kid": "../.."}),
        "other payload": f"{header}.{part({**good, 'sub': str(uuid4())})}.{signature}",
        "no signature": f"{header}.{payload}.",
        "two parts": f"{header}.{payload}",
        "encrypted shape": f"{token}.x.y",
        "deep header": f"{base64.urlsafe_b64encode(b'[' * 5000).decode()}.{payload}.{signature}",
        "deep payload": signed_bytes(b"[" * 5000),
        "refresh as access": refresh_token,
        "not a token": "abc",
        "not ascii": "é.é.é",
    }


def signed_bytes(payload: bytes) -> str:
    return jwt.PyJWS().encode(payload, settings().jwt_secret_key, algorithm="HS256")


@pytest.fixture(scope="module")
def forged(app: Any) -> dict[str, str]:
    person = people.register(app)
    return mutations(claims(person), person.answer["access_token"], person.refresh_token)


def test_no_mutation_passes(app: Any, forged: dict[str, str]) -> None:
    assert len(forged) >= 40
    passed = {}
    for name, token in forged.items():
        for path in ALL:
            answer = Client(app, {"Authorization": f"Bearer {token}"}).get(path)
            if (answer.status_code, answer.json.get("code")) != (401, "UNAUTHORIZED"):
                passed[name, path] = answer.text
    assert passed == {}


def test_the_control_passes(app: Any) -> None:
    person = people.register(app)
    token = signed(claims(person))
    answers = [Client(app, {"Authorization": f"bearer {token}"}).get(path, expect=200) for path in ALL]
    assert len(answers) >= 2
    profile = Client(app, {"Authorization": f"bearer {token}"}).get("/auth/profile", expect=200)
    assert profile["id"] == person.id


def test_a_revoked_session_does_not_pass(app: Any) -> None:
    person = people.register(app)
    assert {person.api.get(path).status_code for path in ALL} == {200}
    person.api.post("/auth/logout", expect=204)
    refused = [person.api.get(path, expect=401) for path in ALL]
    assert {one["code"] for one in refused} == {"UNAUTHORIZED"}


def test_missing_credentials_are_asked_for(app: Any) -> None:
    answer = Client(app, {}).get("/auth/profile")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
    for headers in ({"Authorization": "Basic YTpi"}, {"Authorization": "Bearer"}, {"X-API-Key": "x"}):
        assert Client(app, headers).get("/organizations", expect=401)["code"] == "UNAUTHORIZED"


def test_a_device_key_opens_nothing_here(app: Any, org: Any) -> None:
    _device, key = make.device(org)
    refused = [Client(app, {"X-API-Key": key}).get(path, expect=403) for path in (*ALL, f"/organizations/{org}")]
    assert {one["code"] for one in refused} == {"FORBIDDEN"}


def test_a_token_that_opened_something_ends_all_the_same(app: Any) -> None:
    person = people.register(app)
    token = signed({**claims(person), "exp": int(time.time()) + 2})
    bearer = Client(app, {"Authorization": f"Bearer {token}"})
    bearer.get("/auth/profile", expect=200)
    time.sleep(2.1)
    bearer.get("/auth/profile", expect=401)
