"""Callers who lie: about their address, about being a device, about who they guess at, about numbers and times (S8)."""

from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from app import create_app, limits, redis
from config.settings import settings
from tests import make
from tests.auth import people

LIMITS = {"rate_limits": True, "rate_limit_auth": "4 per minute", "rate_limit_ip": "6 per minute"}

Limited = Callable[..., Any]


@pytest.fixture
def limited() -> Iterator[Limited]:
    """Makes an application that counts, with small numbers and other settings as given."""
    usual = {name: getattr(settings(), name) for name in (*LIMITS, "proxy_hops")}

    def made(**values: Any) -> Any:
        for name, value in {**LIMITS, **values}.items():
            object.__setattr__(settings(), name, value)
        redis.client().flushdb()
        return create_app()

    try:
        yield made
    finally:
        limits.limiter.enabled = False
        for name, value in usual.items():
            object.__setattr__(settings(), name, value)
        redis.client().flushdb()


def guess(app: Any, email: str, forwarded: str = "", **environ: str) -> int:
    headers = {"X-Forwarded-For": forwarded, "X-Real-IP": forwarded} if forwarded else {}
    body = {"email": email, "password": "wrong wrong"}
    answer = app.test_client().post("/api/v1/auth/login", json=body, headers=headers, environ_overrides=environ)
    return int(answer.status_code)


@pytest.mark.parametrize("hops", [0, 1])
def test_of_a_forwarded_chain_only_what_our_proxies_wrote_counts(limited: Limited, hops: int) -> None:
    """With one proxy, the last entry is its word; with none, no entry is anybody's."""
    app = limited(proxy_hops=hops)
    found = [guess(app, people.address(), f"10.0.0.{number}, 203.0.113.9") for number in range(6)]
    assert found == [401] * 4 + [429] * 2
    other = [guess(app, people.address(), f"10.0.0.1, 203.0.113.{number}") for number in range(10, 16)]
    assert other == ([401] * 6 if hops else [429] * 6)


def test_the_spelling_of_an_address_gives_no_more_guesses(limited: Limited) -> None:
    app = limited(rate_limit_ip="1000 per minute")
    person = people.register(app, email=f"vivi.kim.{uuid4().hex[:8]}@example.com")
    redis.client().flushdb()
    spellings = [person.email.replace("i", letter, count) for letter in ("İ", "I") for count in (1, 2, 3)]
    found = [guess(app, email, REMOTE_ADDR=f"10.4.0.{number}") for number, email in enumerate(spellings)]
    assert found == [401] * 4 + [429] * 2


def test_saying_that_one_is_a_device_lifts_no_limit(limited: Limited) -> None:
    app = limited()
    headers = {"X-API-Key": "device_" + "x" * 43}
    for path in ("/openapi.json", "/devices", f"/devices/{uuid4()}/shadow"):
        redis.client().flushdb()
        found = [app.test_client().get(f"/api/v1{path}", headers=headers).status_code for _ in range(8)]
        assert found[-1] == 429, path


def test_a_device_is_never_told_to_slow_down(limited: Limited) -> None:
    app = limited()
    device, key = make.device(make.organization())
    path = f"/api/v1/devices/{device.id}/shadow"
    found = {app.test_client().get(path, headers={"X-API-Key": key}).status_code for _ in range(20)}
    assert found == {200}


BEYOND = ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:60Z", "2026-01-01", "infinity", 1]


@pytest.mark.parametrize("moment", BEYOND)
def test_a_time_that_no_calendar_holds_is_the_callers_error(app: Any, moment: Any) -> None:
    owner = people.register(app).api
    owner.post("/auth/api-keys", {"name": "k", "role": "viewer", "expires_at": moment}, expect=400)
    owner.get("/auth/api-keys", expect=200)


def test_the_last_moment_is_one(app: Any) -> None:
    owner = people.register(app).api
    moment = "9999-12-31T23:59:59.999999Z"
    owner.post("/auth/api-keys", {"name": "k", "role": "viewer", "expires_at": moment}, expect=201)
    assert owner.get("/auth/api-keys", expect=200)["items"][0]["expires_at"] == moment
