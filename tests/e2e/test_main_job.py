"""The main job, end to end: real processes, real sockets, the real agent."""

import time
from typing import Any

import pytest

from agent.simulator import FleetThread
from tests import make
from tests.e2e.conftest import User, fleet, until
from tests.platform import Platform

pytestmark = pytest.mark.xdist_group("platform")


def test_a_flow_reaches_every_device_and_rolls_back_to_each_ones_own_previous_version(
    user: User,
) -> None:
    with fleet(user, 6) as devices:
        flow_id = user.flow(1)
        some = [device["id"] for device in user("GET", "/devices?limit=3")["items"]]
        first = user.deploy(flow_id, target={"device_ids": some})
        assert user.wait(first, "succeeded")["progress"]["succeeded"] == 3
        user.change(flow_id, 2)
        second = user.deploy(flow_id, {"max_in_flight": 2})
        done = user.wait(second, "succeeded")
        assert (done["version"], done["progress"]["succeeded"]) == (2, 6)
        assert set(versions(devices, flow_id).values()) == {2}
        assert len(versions(devices, flow_id)) == 6
        user("POST", f"/deployments/{second}/rollback", expect=202)
        user.wait(second, "rolled_back")
        assert versions(devices, flow_id) == dict.fromkeys(some, 1)


def versions(devices: FleetThread, flow_id: str) -> dict[str, Any]:
    """Which version of a flow each device that has it runs, asked of the devices themselves."""
    listed = devices.run(devices.fleet.flows())
    return {
        device_id: flow["version"]
        for device_id, flows in listed.items()
        for flow in flows
        if flow["id"] == flow_id and flow["status"] == "running"
    }


def test_pause_sends_nothing_new_and_start_goes_on(user: User) -> None:
    with fleet(user, 8, latency_ms=400):
        deployment_id = user.deploy(user.flow(), {"max_in_flight": 2})
        until(lambda: user.deployment(deployment_id)["progress"]["succeeded"] >= 2)
        user("POST", f"/deployments/{deployment_id}/pause")
        until(lambda: user.deployment(deployment_id)["progress"]["in_progress"] == 0)
        before = user.deployment(deployment_id)
        time.sleep(1)
        after = user.deployment(deployment_id)
        assert (after["status"], after["progress"]) == ("paused", before["progress"])
        assert after["progress"]["queued"] > 0
        user("POST", f"/deployments/{deployment_id}/start", expect=202)
        assert user.wait(deployment_id, "succeeded")["progress"]["succeeded"] == 8


def test_devices_on_two_web_processes_take_one_deployment(user: User, platform: Platform) -> None:
    with fleet(user, 4), fleet(user, 4, url=platform.url(1), online=8):
        gateways = {one["gateway"] for one in user("GET", "/tunnel/status")["items"]}
        assert len(gateways) == 2
        assert user.wait(user.deploy(user.flow()), "succeeded")["progress"]["succeeded"] == 8


def test_an_offline_device_gets_its_flow_the_moment_it_connects(user: User) -> None:
    asleep = make.devices(1, user.org_id)
    with fleet(user, 2):
        deployment_id = user.deploy(user.flow())
        waiting = until(lambda: (d := user.deployment(deployment_id))["progress"]["succeeded"] == 2 and d)
        assert (waiting["status"], waiting["progress"]["queued"]) == ("in_progress", 1)
        assert "1 of 3 devices offline" in waiting["reason"]
        with fleet(user, 1, made=asleep, online=3):
            connected = time.monotonic()
            user.wait(deployment_id, "succeeded")
            assert time.monotonic() - connected < 2


def test_a_failing_fleet_pauses_its_deployment_and_says_why(user: User) -> None:
    with fleet(user, 4, failure_rate=1.0):
        deployment_id = user.deploy(user.flow(), {"max_in_flight": 1, "retries": 0})
        paused = user.wait(deployment_id, "paused")
        assert paused["progress"]["failed"] >= 1
        assert paused["progress"]["queued"] >= 1
        assert "failed" in paused["reason"]


def test_a_desired_change_is_pushed_and_reported_back(user: User) -> None:
    with fleet(user, 1):
        device_id = user("GET", "/devices")["items"][0]["id"]
        user("PUT", f"/devices/{device_id}/shadow", {"desired": {"fan": {"speed": 3}}})
        shadow = until(lambda: (s := user("GET", f"/devices/{device_id}/shadow"))["sync_state"] == "in_sync" and s)
        assert shadow["reported"]["fan"] == {"speed": 3}


def test_a_deleted_device_loses_its_tunnel_and_its_key(user: User) -> None:
    with fleet(user, 1) as devices:
        device_id = user("GET", "/devices")["items"][0]["id"]
        user("DELETE", f"/devices/{device_id}", expect=204)
        until(lambda: devices.fleet.connected == 0)
        user("GET", f"/devices/{device_id}", expect=404)
