"""Parts are killed in the middle of the work: nothing is lost, and it converges by itself."""

import signal
import time

import httpx
import pytest
import redis

from agent.simulator import FleetThread
from config.settings import settings
from tests import make
from tests.e2e.conftest import User, fleet, until
from tests.platform import Platform

pytestmark = pytest.mark.xdist_group("platform")

DEVICES = 200
STRATEGY = {"max_in_flight": 25, "timeout_seconds": 60}


def applied_once(devices: FleetThread) -> bool:
    """No device carried a command id out twice."""
    return all(count == 1 for ledger in devices.fleet.ledger.values() for count in ledger.values())


def under_way(user: User, deployment_id: str) -> None:
    until(lambda: 20 <= user.deployment(deployment_id)["progress"]["succeeded"] < DEVICES, every=0.02)


@pytest.mark.parametrize("part", ["worker", "scheduler", "web1"])
def test_a_killed_part_costs_seconds_and_no_work(user: User, platform: Platform, part: str) -> None:
    url = platform.url(1) if part == "web1" else None
    with fleet(user, DEVICES, url=url, latency_ms=300) as devices:
        deployment_id = user.deploy(user.flow(), STRATEGY)
        under_way(user, deployment_id)
        platform.kill(part)
        time.sleep(0.5)
        platform.start(part)
        done = user.wait(deployment_id, "succeeded", timeout=60)
        progress = done["progress"]
        assert progress["succeeded"] + progress["already_installed"] == DEVICES
        assert applied_once(devices)


def test_flushing_redis_in_the_middle_loses_no_work(user: User) -> None:
    with fleet(user, DEVICES, latency_ms=300) as devices:
        deployment_id = user.deploy(user.flow(), STRATEGY)
        under_way(user, deployment_id)
        redis.Redis.from_url(settings().redis_url).flushdb()
        done = user.wait(deployment_id, "succeeded", timeout=60)
        progress = done["progress"]
        assert progress["succeeded"] + progress["already_installed"] == DEVICES
        assert applied_once(devices)


def test_flushing_redis_while_idle_signs_nobody_out_or_in(platform: Platform) -> None:
    with httpx.Client(base_url=f"{platform.url()}/api/v1") as http:
        email = f"{make.organization()}@example.com"
        account = {"email": email, "password": "correct horse battery", "name": "Ada", "organization_name": "A"}
        signed_in = http.post("/auth/register", json=account).json()
        gone = http.post("/auth/login", json={"email": email, "password": account["password"]}).json()
        http.post("/auth/logout", headers={"Authorization": f"Bearer {gone['access_token']}"})
        redis.Redis.from_url(settings().redis_url).flushdb()
        for tokens, status in ((signed_in, 200), (gone, 401)):
            headers = {"Authorization": f"Bearer {tokens['access_token']}"}
            assert http.get("/auth/profile", headers=headers).status_code == status


def test_a_stopped_worker_that_wakes_up_writes_nothing_stale(user: User, platform: Platform) -> None:
    with fleet(user, 20, latency_ms=200) as devices:
        deployment_id = user.deploy(user.flow(), {"max_in_flight": 3, "timeout_seconds": 5, "retries": 0})
        until(lambda: user.deployment(deployment_id)["progress"]["succeeded"] >= 3, every=0.02)
        platform.kill("worker", signal.SIGSTOP)
        time.sleep(3)
        platform.kill("worker", signal.SIGCONT)
        done = user.wait(deployment_id, "succeeded", timeout=60)
        assert done["progress"]["succeeded"] + done["progress"]["already_installed"] == 20
        assert applied_once(devices)
