"""Rollouts: how fast a flow reaches thousands of devices, how that grows, and what it asks of the database.

Devices answer in 50 ms; one stage, ``max_in_flight`` 1,000. All of it shares this machine: the devices too.
"""

import statistics
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import httpx
import psutil
import psycopg

from bench import fleet, listing, platform
from bench.baseline import claim_and_settle
from bench.platform import House
from bench.report import Figure, at_least, at_most, told
from bench.statements import counted

LATENCY_MS = 50
MAX_IN_FLIGHT = 1_000
POLL_SECONDS = 0.1
PATIENCE = 300.0
TARGET_PER_SECOND, TARGET_STATEMENTS = 500, 0.2
FLOW = {
    "nodes": [
        {"id": "every", "type": "inject", "config": {"interval": 60}},
        {"id": "show", "type": "debug"},
    ],
    "connections": [{"source": "every", "target": "show"}],
}
FEW, MANY = "few", "many"


@dataclass(frozen=True)
class Rollout:
    """One that is over. Seconds: ``told`` as the caller sees it, from the POST until a poll says ``succeeded``;
    ``taken`` by the database's clock, from the POST's transaction to the last one."""

    told: float
    taken: float


class User:
    """Whoever deploys, over HTTP."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=60)

    def __enter__(self) -> "User":
        return self

    def __exit__(self, *_error: object) -> None:
        self._http.close()  # an open connection holds up the end of the web process

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._http.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json()

    def flow(self) -> str:
        """A fresh published flow; its id."""
        made = self("POST", "/flows", {"name": "watch", "definition": FLOW})
        self("POST", f"/flows/{made['id']}/publish")
        return str(made["id"])

    def deploy(self, tag: str) -> str:
        """Start a rollout of a fresh flow to the devices with a tag; its id."""
        body = {
            "flow_id": self.flow(),
            "target": {"tags": [tag]},
            "strategy": {"stages": [100], "max_in_flight": MAX_IN_FLIGHT},
            "start": True,
        }
        return str(self("POST", "/deployments", body)["id"])

    def roll_out(self, tag: str) -> Rollout:
        """Deploy, and wait for the end. Raises RuntimeError if it does not succeed."""
        began = time.perf_counter()
        deployment_id = self.deploy(tag)
        while (found := self("GET", f"/deployments/{deployment_id}"))["status"] == "in_progress":
            if time.perf_counter() - began > PATIENCE:
                break
            time.sleep(POLL_SECONDS)
        seconds = time.perf_counter() - began
        if found["status"] != "succeeded":
            raise RuntimeError(f"not rolled out after {seconds:.0f} s: {found['reason']}")
        return Rollout(seconds, (_time(found["finished_at"]) - _time(found["created_at"])).total_seconds())


def run(
    *, few: int = 500, many: int = 5_000, repeats: int = 3, rows: int = 10_000, durable: bool = True
) -> list[Figure]:
    """``few`` and ``many``: devices of the rollouts compared; ``rows``: executions of the deployment that is listed."""
    with House(durable=durable) as house:
        org_id, token = house.sign_up()
        members = platform.devices(few, org_id, tags=[FEW, MANY])
        members += platform.devices(many - few, org_id, tags=[MANY])
        with User(house.url(), token) as user, fleet.running(house.url(), members, LATENCY_MS) as devices:
            user.roll_out(FEW)  # connections open, caches fill
            small = [user.roll_out(FEW) for _ in range(repeats)]
            before = _cpu(house, devices)
            large = [user.roll_out(MANY) for _ in range(repeats)]
            used = {name: seconds - before[name] for name, seconds in _cpu(house, devices).items()}
            statements = _statements(house, user)
        figures = _rates(few, many, small, large)
        figures += _shares(used, sum(one.told for one in large))
        figures.append(at_most("rollout.statements_per_device", statements / many, "statements", TARGET_STATEMENTS))
        figures += _baseline(house, org_id, many, figures[0].value)
        return figures + listing.figures(house, rows)


def _rates(few: int, many: int, small: list[Rollout], large: list[Rollout]) -> list[Figure]:
    seconds = {number: statistics.median(one.taken for one in runs) for number, runs in ((few, small), (many, large))}
    rate = many / statistics.median(one.told for one in large)
    slowest = many / max(one.told for one in large)
    growth = seconds[many] / seconds[few]
    return [
        at_least("rollout.devices_per_second", rate, f"/s to {many} devices", TARGET_PER_SECOND),
        told("rollout.devices_per_second.slowest", slowest, f"/s to {many} devices"),
        told(
            "rollout.devices_per_second.few", few / statistics.median(one.told for one in small), f"/s to {few} devices"
        ),
        at_most(f"rollout.seconds_{many}_over_{few}", growth, "times", many / few),
    ]


def _cpu(house: House, devices: psutil.Process) -> dict[str, float]:
    """Seconds of processor that each part has used so far."""
    parts = {
        "web": house.serving(),
        "worker": psutil.Process(house.platform.processes["worker"].pid),
        "postgresql": _server(house, "postgres"),
        "valkey": _server(house, "valkey"),
        "devices": devices,
    }
    return {name: _with_children(process) for name, process in parts.items()}


def _server(house: House, name: str) -> psutil.Process:
    """The embedded server of that name: this process started it."""
    return next(one for one in psutil.Process().children() if name in one.name())


def _with_children(process: psutil.Process) -> float:
    return sum(_own(one) for one in (process, *process.children(recursive=True)))


def _own(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def _shares(used: dict[str, float], seconds: float) -> list[Figure]:
    return [told(f"rollout.cores.{name}", used[name] / seconds, "of the machine's") for name in used]


def _statements(house: House, user: User) -> int:
    """Of one more rollout, in a run of its own: writing them down would slow the others."""
    with counted(house) as count, psycopg.connect(house.superuser_url, autocommit=True) as watching:
        watching.execute("SET log_statement = 'none'")
        deployment_id = user.deploy(MANY)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            row = watching.execute("SELECT status FROM deployments WHERE id = %s", [deployment_id]).fetchone()
            if row != ("in_progress",):
                break
            time.sleep(POLL_SECONDS)
    return count()


def _baseline(house: House, org_id: UUID, number: int, rate: float) -> list[Figure]:
    bare = claim_and_settle(house.superuser_url, org_id, number)
    return [
        told("rollout.bare_claim_and_settle.per_second", bare, "/s by arrays of 500"),
        told("rollout.ratio_to_bare_claim_and_settle", rate / bare, "times"),
    ]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
