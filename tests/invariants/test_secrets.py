"""No secret lies in clear in a log, in PostgreSQL, in Redis or among the arguments of a process (S12)."""

import os
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import psutil
import psycopg
import pytest
import redis

from tests.invariants.conftest import PASSWORD, Caller, connected
from tests.invariants.servers import Servers
from tests.platform import TLS, Platform

pytestmark = pytest.mark.xdist_group("own_servers")


class Planted:
    """Secrets of every kind, each made and used as people and devices do, well and badly."""

    def __init__(self, platform: Platform) -> None:
        self.platform, self.ada = platform, Caller(platform.url())
        self.found = {"password": PASSWORD, **tokens_of("registered", self.ada.tokens)}
        self.http = httpx.Client(base_url=f"{platform.url()}/api/v1", timeout=30, verify=TLS)
        self.plant("new password", f"new {uuid4()}")
        for step in (self.sign_in, self.make_keys, self.invite, self.watch, self.work, self.blunder):
            step()

    def plant(self, name: str, secret: str) -> str:
        self.found[name] = secret
        return secret

    def once(self, path: str, body: dict[str, Any]) -> Any:
        """Posted with an Idempotency-Key, so that the answer is kept, and asked for again."""
        headers = {"Idempotency-Key": self.plant(f"key of {path} {len(self.found)}", str(uuid4()))}
        answers = [self.ada.http.post(path, json=body, headers=headers) for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert answers[0].is_success, answers[0].text
        return answers[0].json() if answers[0].content else None

    def sign_in(self) -> None:
        login = {"email": self.ada.email, "password": PASSWORD}
        self.found |= tokens_of("signed in", self.once("/auth/login", login))
        self.found |= tokens_of(
            "refreshed", self.once("/auth/refresh", {"refresh_token": self.found["signed in refresh"]})
        )
        change = {"current_password": PASSWORD, "new_password": self.found["new password"]}
        self.once("/auth/change-password", change)

    def make_keys(self) -> None:
        self.plant("API key", self.once("/auth/api-keys", {"name": "ci", "role": "owner"})["key"])
        assert self.http.get("/devices", headers={"X-API-Key": self.found["API key"]}).status_code == 200
        self.device = self.once("/devices", {"name": "pump"})
        self.plant("device key", self.device["api_key"])
        code = self.plant("code", self.device["provisioning_code"])
        agent = {"provisioning_code": code, "hardware_info": {"serial": str(uuid4())}}
        self.plant("provisioned key", self.once("/devices/provision", agent)["api_key"])

    def invite(self) -> None:
        email = f"{uuid4().hex}@example.com"
        path = f"/organizations/{self.ada.tokens['organization']['id']}/members"
        token = self.plant("invitation", self.once(path, {"email": email, "role": "viewer"})["invitation_token"])
        guest = {
            "email": email,
            "password": self.plant("guest", f"guest {uuid4()}"),
            "name": "G",
            "invitation_token": token,
        }
        self.found |= tokens_of("guest", self.once("/auth/register", guest))

    def watch(self) -> None:
        """A rule that tells two webhooks: one is signed with a secret of the receiver's, one with a new secret."""
        hook = {"type": "webhook", "url": "https://example.com/hook"}
        given = {**hook, "secret": self.plant("given webhook secret", f"hook {uuid4()}")}
        rule = {"name": "gone", "type": "device_offline", "for_seconds": 86_400, "channels": [given, hook]}
        made = self.once("/alerts", rule)["channels"]
        self.plant("new webhook secret", made[1]["secret"])
        assert set(made[1]["secret"]) != {"*"}

    def work(self) -> None:
        with connected(self.platform, self.ada, self.device):
            self.ada("PUT", f"/devices/{self.device['id']}/shadow", {"desired": {"a": 1}})
            deployment = {"flow_id": self.ada.flow(), "target": {"all": True}, "start": True}
            self.ada("POST", "/deployments", deployment, expect=201)

    def blunder(self) -> None:
        """Where people put secrets that do not belong there, and what is answered with an error."""
        key, password = self.found["device key"], self.plant("wrong password", f"wrong {uuid4()}")
        for answer in (
            self.http.post("/auth/login", json={"email": self.ada.email, "password": password}),
            self.http.post("/auth/login", content=f'{{"password": "{password}"'.encode()),
            self.http.post("/auth/register", json={"password": password, "more": password}),
            self.http.get(f"/devices/{key}"),
            self.http.get("/devices", params={"api_key": key, "token": self.found["signed in access"]}),
            self.http.get("/devices", headers={"Authorization": f"Bearer {self.found['API key']}"}),
            self.http.post("/devices/provision", json={"provisioning_code": self.found["code"], "hardware_info": {}}),
        ):
            assert 400 <= answer.status_code < 500


def tokens_of(name: str, answer: dict[str, Any]) -> dict[str, str]:
    return {f"{name} {kind}": answer[f"{kind}_token"] for kind in ("access", "refresh")}


@pytest.fixture(scope="module")
def planted(own_platform: Platform) -> dict[str, str]:
    return Planted(own_platform).found


def told(secrets: dict[str, str], places: Iterator[tuple[str, bytes]]) -> list[str]:
    """Which secret stands where: as it is, or as PostgreSQL prints bytes."""
    forms = {name: (secret.encode(), secret.encode().hex().encode()) for name, secret in secrets.items()}
    return [
        f"{name} in {place}"
        for place, content in places
        for name, both in forms.items()
        if any(form in content for form in both)
    ]


def logs(servers: Servers, platform: Platform) -> Iterator[tuple[str, bytes]]:
    for file in (*platform.folder.glob("*.log"), *(servers.folder / "log").glob("*.log")):
        yield file.name, file.read_bytes()


def rows(servers: Servers) -> Iterator[tuple[str, bytes]]:
    with psycopg.connect(servers.superuser_url) as connection:
        tables = (
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        for (table,) in connection.execute(tables).fetchall():
            for (row,) in connection.execute(f"SELECT t::text FROM {table} t"):
                yield table, row.encode()


def entries(servers: Servers) -> Iterator[tuple[str, bytes]]:
    client = redis.Redis.from_url(servers.environ["REDIS_URL"])
    readers: dict[bytes, Any] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
    }
    for key in client.scan_iter():
        yield "Redis", key + repr(readers[client.type(key)](key)).encode()


def arguments() -> Iterator[tuple[str, bytes]]:
    for process in psutil.Process(os.getpid()).children(recursive=True):
        yield process.name(), " ".join(process.cmdline()).encode()


def test_the_planted_secrets_are_of_every_kind(planted: dict[str, str]) -> None:
    assert len(planted) == len(set(planted.values())) >= 20


def test_no_secret_in_a_log(planted: dict[str, str], servers: Servers, own_platform: Platform) -> None:
    places = list(logs(servers, own_platform))
    assert any(b"/auth/login" in content for _, content in places)
    assert told(planted | outer_secrets(servers), iter(places)) == []


def test_no_secret_in_a_row(planted: dict[str, str], servers: Servers) -> None:
    places = list(rows(servers))
    assert {"users", "sessions", "idempotency_keys", "device_keys", "api_keys", "alert_rules"} <= {
        place for place, _ in places
    }
    assert told(planted, iter(places)) == []


def test_no_secret_in_redis(planted: dict[str, str], servers: Servers) -> None:
    places = list(entries(servers))
    assert places
    assert told(planted, iter(places)) == []


def test_no_secret_among_arguments(planted: dict[str, str], servers: Servers) -> None:
    places = list(arguments())
    assert any(b"gunicorn" in content for _, content in places)
    assert told(planted | outer_secrets(servers), iter(places)) == []


def outer_secrets(servers: Servers) -> dict[str, str]:
    """Those of the stores, and the keys that sign and hash."""
    urls = {name: servers.environ[name].split("@")[0].rsplit(":", 1)[1] for name in ("DATABASE_URL", "REDIS_URL")}
    return urls | {file.name: file.read_text().strip() for file in (servers.folder / "secrets").iterdir()}
