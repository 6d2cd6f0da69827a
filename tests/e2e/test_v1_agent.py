"""The released agent, as it is: a strict twin of it against the platform."""

from typing import Any

import pytest

from tests import make
from tests.e2e.conftest import User, until
from tests.platform import Platform
from tests.twins.v1_agent import V1Agent

pytestmark = pytest.mark.xdist_group("platform")


@pytest.fixture
def agent(user: User, platform: Platform) -> Any:
    """A v1 agent that provisioned itself, connected and synchronized its shadow."""
    created = user("POST", "/devices", {"name": "press-1"}, expect=201)
    running = V1Agent(platform.url(1), provisioning_code=created["provisioning_code"], flows=["mixer"])
    running.provision()
    assert running.device_id == created["id"]
    running.start()
    running.wait_connected()
    yield running
    running.stop()


def test_it_provisions_connects_and_synchronizes(user: User, agent: V1Agent) -> None:
    status = until(lambda: (s := user("GET", f"/devices/{agent.device_id}/status"))["connected"] and s)
    assert (status["status"], status["agent_version"], status["protocol"]) == ("online", "1.0.0", 1)
    shadow = until(lambda: (s := user("GET", f"/devices/{agent.device_id}/shadow"))["reported"] and s)
    assert shadow["reported"]["online"] is True


def test_it_answers_health_flows_start_and_stop(user: User, agent: V1Agent) -> None:
    path = f"/edge-nodes/{agent.device_id}"
    assert user("GET", f"{path}/health")["version"] == "1.0.0"
    assert [flow["id"] for flow in user("GET", f"{path}/flows")["flows"]] == ["mixer"]
    assert user("POST", f"{path}/flows/mixer/start")["status"] in ("started", "already_running")
    assert user("POST", f"{path}/flows/mixer/stop")["status"] == "stopped"
    assert not agent.dropped


def test_what_it_does_not_implement_is_said_in_words(user: User, agent: V1Agent) -> None:
    path = f"/edge-nodes/{agent.device_id}"
    assert user("GET", f"{path}/node-types", expect=501)["code"] == "NOT_SUPPORTED_BY_DEVICE"
    refused = user("POST", f"{path}/flows", {"flow": {"id": "x"}}, expect=501)
    assert "not yet implemented" in refused["error"]
    user("PUT", f"{path}/configure", {"settings": {"heartbeat_interval": 60}}, expect=501)


def test_a_deployment_to_it_fails_at_once_for_good(user: User, agent: V1Agent) -> None:
    deployment_id = user.deploy(user.flow())
    failed = user.wait(deployment_id, "failed", timeout=20)
    assert "not yet implemented" in failed["reason"]
    (execution,) = user("GET", f"/deployments/{deployment_id}/executions")["items"]
    assert (execution["state"], execution["attempt"]) == ("failed", 1)
    assert execution["error_code"] == "NOT_SUPPORTED_BY_DEVICE"


def test_a_desired_change_makes_it_read_its_shadow_again(user: User, agent: V1Agent) -> None:
    user("PUT", f"/devices/{agent.device_id}/shadow", {"desired": {"speed": 4}})
    until(lambda: any(one["action"] == "update_desired" for one in agent.commands()))
    assert not agent.dropped


def test_it_comes_back_after_its_web_process_was_killed(user: User, platform: Platform, app: Any) -> None:
    device, key = make.device(user.org_id)
    running = V1Agent(platform.url(1), device_id=str(device.id), api_key=key, flows=["mixer"], time_scale=0.2)
    running.start()
    running.wait_connected()
    try:
        platform.restart("web1")
        until(lambda: not running.connected, timeout=10)
        until(lambda: running.connected or running.gave_up, timeout=30)
        assert not running.gave_up
        assert user("GET", f"/edge-nodes/{device.id}/health")["status"]
    finally:
        running.stop()
