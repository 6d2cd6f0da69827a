"""What a scenario stands in: an organization with its devices, the platform's processes, the fleet, the database."""

import contextlib
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import redis

from agent.enrol import Member
from tests.faults.fleet import FleetProcess
from tests.faults.parts import Parts
from tests.invariants.servers import Servers
from tests.platform import TLS

PASSWORD = "correct horse battery"
REQUEST_SECONDS = 60.0
NODES = [{"id": "every", "type": "inject", "config": {"interval": 1}}, {"id": "show", "type": "debug"}]


class User:
    """A person with an API key, who repeats what was not answered, under one key, at whichever web process answers.

    ``accepted``: the id of every deployment that was answered with 2xx. ``careless``: he repeats without the key.
    """

    def __init__(self, urls: Sequence[str], *, careless: bool = False) -> None:
        self._clients = [
            httpx.Client(base_url=f"{url}/api/v1", timeout=20, trust_env=False, verify=TLS) for url in urls
        ]
        self._careless, self._turn = careless, 0
        self.accepted: list[str] = []
        self.repeats = 0
        self._register()

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """The parsed answer. Raises AssertionError for a refusal, or when nobody has answered for a minute."""
        key, deadline, last = str(uuid4()), time.monotonic() + REQUEST_SECONDS, ""
        while time.monotonic() < deadline:
            client = self._clients[self._turn % len(self._clients)]
            headers = {} if self._careless or method == "GET" else {"Idempotency-Key": key}
            try:
                answer = client.request(method, path, json=body, headers=headers)
            except httpx.HTTPError as error:
                last = repr(error)
            else:
                if answer.is_success:
                    return answer.json()
                last = f"{answer.status_code} {answer.text}"
                assert answer.status_code in (409, 502, 503, 504), f"{method} {path}: {last}"
            self._turn += 1
            self.repeats += 1
            time.sleep(0.1)
        raise AssertionError(f"{method} {path} was not answered: {last}")

    def deploy(self, flow_id: str, strategy: dict[str, Any]) -> str:
        """Deploy the newest version of a flow to all devices; the deployment's id."""
        body = {"flow_id": flow_id, "target": {"all": True}, "strategy": strategy, "start": True}
        self.accepted.append(str(self("POST", "/deployments", body)["id"]))
        return self.accepted[-1]

    def _register(self) -> None:
        email = f"{uuid4().hex[:12]}@example.com"
        account = {"email": email, "password": PASSWORD, "name": "Ada", "organization_name": "Acme"}
        token = self("POST", "/auth/register", account)["access_token"]
        for client in self._clients:
            client.headers["Authorization"] = f"Bearer {token}"
        key = self("POST", "/auth/api-keys", {"name": "faults", "role": "owner"})["key"]  # a token would end meanwhile
        for client in self._clients:
            del client.headers["Authorization"]
            client.headers["X-API-Key"] = key


@dataclass
class World:
    """One scenario's. ``rng`` is seeded, so that a run's choices can be had again."""

    servers: Servers
    parts: Parts
    user: User
    members: list[Member]
    fleet: FleetProcess
    flow_id: str
    rng: random.Random = field(default_factory=lambda: random.Random(7))
    version: int = 0
    remarks: list[str] = field(default_factory=list)
    """What a fault has seen for itself that must not be."""

    def publish(self) -> None:
        """A further version of the flow."""
        self.version += 1
        definition = {"nodes": NODES, "connections": [], "config": {"marker": self.version}}
        self.user("PUT", f"/flows/{self.flow_id}", {"definition": definition})
        self.user("POST", f"/flows/{self.flow_id}/publish")

    def rows(self, query: str, **values: Any) -> list[Any]:
        """Of the database as it is, across tenants; waits while PostgreSQL is away."""
        for _ in range(100):
            try:
                with psycopg.connect(self.servers.superuser_url, autocommit=True, connect_timeout=3) as connection:
                    return connection.execute(query, values).fetchall()
            except psycopg.OperationalError:
                time.sleep(0.1)
        raise TimeoutError("PostgreSQL does not answer")

    def progress(self, deployment_id: str) -> tuple[str, int, int]:
        """``(status, finished, open)`` of a deployment."""
        query = """
            SELECT d.status, count(e.id) FILTER (WHERE e.state NOT IN ('queued', 'in_progress')),
                count(e.id) FILTER (WHERE e.state IN ('queued', 'in_progress'))
            FROM deployments d LEFT JOIN executions e ON e.deployment_id = d.id
            WHERE d.id = %(id)s GROUP BY d.status
        """
        found = self.rows(query, id=deployment_id)
        return found[0] if found else ("lost", 0, 0)

    def under_way(self, deployment_id: str, share: float) -> bool:
        """Wait until a part of the devices is finished; False when all are."""
        self.until(lambda: self.progress(deployment_id)[1] >= share * len(self.members), 60)
        return self.progress(deployment_id)[2] > 0

    def over(self, deployment_id: str) -> bool:
        status, finished, still_open = self.progress(deployment_id)
        return status in ("succeeded", "failed", "canceled") and not still_open and finished >= len(self.members)

    def until(self, check: Callable[[], Any], seconds: float, every: float = 0.05) -> bool:
        """Whether ``check`` came true within so many seconds."""
        deadline = time.monotonic() + seconds
        while not check():
            if time.monotonic() > deadline:
                return False
            time.sleep(every)
        return True

    def flush(self) -> None:
        """FLUSHALL; waits while Valkey is away."""
        with contextlib.closing(redis.Redis.from_url(self.servers.environ["REDIS_URL"])) as client:
            client.flushall()


@contextlib.contextmanager
def world(
    servers: Servers,
    folder: Path,
    devices: int,
    *,
    web: int = 2,
    without: tuple[str, ...] = (),
    **fleet: Any,
) -> Iterator[World]:
    """The platform's processes and one organization (see ``populated``). ``without``: protections that are taken away:
    those of ``points``, ``dedup`` (the devices'), ``idempotency`` (the user repeats without a key)."""
    inside = tuple(one for one in without if one not in ("dedup", "idempotency"))
    if "dedup" in without:
        fleet["without_dedup"] = True
    with (
        Parts(folder, servers.environ, web=web, without=inside) as parts,
        populated(servers, parts, devices, careless="idempotency" in without, **fleet) as made,
    ):
        yield made


@contextlib.contextmanager
def populated(
    servers: Servers, parts: Parts, devices: int, *, careless: bool = False, kind: str = "v2", **fleet: Any
) -> Iterator[World]:
    """A fresh organization with ``devices`` connected devices; ``fleet``: what ``fleet`` is told of them."""
    if kind == "v2":
        fleet = {"faults": {}, "latency_ms": 300.0, "without_dedup": False, **fleet}
    urls = [parts.url(number) for number in range(len(parts.ports))]
    with contextlib.closing(User(urls, careless=careless)) as user:
        _subscribe_all(servers)
        members = _devices(user, devices)
        flow = user("POST", "/flows", {"name": "watch", "definition": {"nodes": NODES, "connections": []}})
        with FleetProcess(parts.folder / "fleet.log", members, kind=kind, urls=urls, **fleet) as crowd:
            yield World(servers, parts, user, members, crowd, str(flow["id"]))


def _subscribe_all(servers: Servers) -> None:
    """To a plan that holds the fleet, and whose limits are counted."""
    with psycopg.connect(servers.superuser_url, autocommit=True) as connection:
        connection.execute("UPDATE organizations SET plan = 'pro'")


def _devices(user: User, count: int) -> list[Member]:
    def make(number: int) -> Member:
        made = user("POST", "/devices", {"name": f"device-{number:04d}"})
        return Member(made["name"], made["id"], made["api_key"])

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(make, range(count)))
