"""Guessing is bounded, by address and by account, whatever the caller says about itself (S8)."""

from collections.abc import Iterator
from typing import Any

import pytest

from app import create_app, limits, redis
from config.settings import settings
from tests.auth import people
from tests.make import Client


@pytest.fixture
def limited(app: Any) -> Iterator[Any]:
    """An application that counts, with small numbers."""
    small = {
        "rate_limits": True,
        "rate_limit_ip": "12 per minute",
        "rate_limit_auth": "5 per minute",
        "rate_limit_user": "4 per minute",
    }
    usual = {name: getattr(settings(), name) for name in small}
    for name, value in small.items():
        object.__setattr__(settings(), name, value)
    redis.client().flushdb()
    try:
        yield create_app()
    finally:
        limits.limiter.enabled = False
        for name, value in usual.items():
            object.__setattr__(settings(), name, value)


def guesses(app: Any, count: int, email: str = "", **environ: str) -> list[Any]:
    http = app.test_client()
    bodies = ({"email": email or people.address(), "password": "wrong"} for _ in range(count))
    return [http.post("/api/v1/auth/login", json=body, environ_overrides=environ) for body in bodies]


def test_guesses_of_one_address(limited: Any) -> None:
    answers = guesses(limited, 7)
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 2
    last = answers[-1]
    assert (last.json["code"], last.json["status"]) == ("RATE_LIMITED", 429)
    assert 1 <= int(last.headers["Retry-After"]) <= 60
    assert last.headers["RateLimit"].startswith("limit=5, remaining=0")


def test_a_made_up_forwarded_address_is_not_believed(limited: Any) -> None:
    http = limited.test_client()
    body = {"email": "a@example.com", "password": "x"}
    found = []
    for number in range(7):
        headers = {"X-Forwarded-For": f"10.0.0.{number}", "Forwarded": f"for=10.1.0.{number}"}
        found.append(http.post("/api/v1/auth/login", json=body, headers=headers).status_code)
    assert found == [401] * 5 + [429] * 2


def test_guesses_at_one_account_from_many_addresses(limited: Any) -> None:
    person = people.register(limited)
    found = [guesses(limited, 1, person.email, REMOTE_ADDR=f"10.2.0.{n}")[0].status_code for n in range(7)]
    assert found == [401] * 5 + [429] * 2
    unknown = [guesses(limited, 1, "x@example.com", REMOTE_ADDR=f"10.3.0.{n}")[0].status_code for n in range(7)]
    assert unknown == found


def test_registration_and_refresh_count_too(limited: Any) -> None:
    anybody = Client(limited, {})
    for path, body in (("register", people.registration()), ("refresh", {"refresh_token": "x"})):
        redis.client().flushdb()
        assert [anybody.post(f"/auth/{path}", body).status_code for _ in range(6)][-1] == 429


def test_the_profile_is_limited_by_user(limited: Any) -> None:
    person, other = people.register(limited), people.register(limited)
    assert [person.api.get("/auth/profile").status_code for _ in range(6)] == [200] * 4 + [429] * 2
    other.api.get("/auth/profile", expect=200)


def test_the_default_limit_of_an_address_says_when_to_come_back(limited: Any) -> None:
    http = limited.test_client()
    answers = [http.get("/api/v1/docs") for _ in range(13)]
    assert [answer.status_code for answer in answers] == [200] * 12 + [429]
    last = answers[-1]
    assert (last.json["code"], last.json["status"]) == ("RATE_LIMITED", 429)
    assert 1 <= int(last.headers["Retry-After"]) <= 61
    assert last.headers["RateLimit"].startswith("limit=12, remaining=0")


def test_connecting_devices_and_probes_are_never_answered_429(limited: Any) -> None:
    http = limited.test_client()
    assert [http.get("/api/v1/docs").status_code for _ in range(13)][-1] == 429
    paths = ("/tunnel", "/api/v1/tunnel", "/healthz", "/readyz", "/internal/metrics")
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "eA==",
        "Sec-WebSocket-Version": "13",
    }
    assert 429 not in [http.get(path, headers=upgrade).status_code for path in paths]
