"""The whole way: REST, tunnel, the agent as a process, a real Node-RED behind it."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from agent import credentials
from agent.credentials import Credentials
from tests import make
from tests.agent.nodered.instance import NodeRed
from tests.agent.nodered.samples import OWN, TAB, answering
from tests.agent.nodered.support import own
from tests.e2e.conftest import User, until
from tests.platform import ROOT, Platform

pytestmark = [pytest.mark.xdist_group("platform"), pytest.mark.slow]


@pytest.fixture
def user(platform: Platform, app: object) -> User:
    return User(platform.url(), make.organization())


@pytest.fixture
def device(user: User, nodered: NodeRed, tmp_path) -> Iterator[str]:
    """A device whose runtime is that Node-RED; its id."""
    [(row, key)] = make.devices(1, user.org_id)
    credentials.save(tmp_path / "state" / "credentials.json", Credentials(str(row.id), key, user.url))
    command = [sys.executable, "-m", "agent", "run", "--url", user.url, "--state-dir", str(tmp_path / "state")]
    command += ["--driver", "nodered", "--runtime-url", nodered.url]
    with (tmp_path / "agent.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env={**os.environ})
    try:
        user.online(1)
        yield str(row.id)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0, (tmp_path / "agent.log").read_text()


def publish(user: User, flow_id: str | None, definition: dict) -> str:
    if flow_id is None:
        flow_id = user("POST", "/flows", {"name": "pump", "definition": definition}, expect=201)["id"]
    else:
        user("PUT", f"/flows/{flow_id}", {"definition": definition})
    user("POST", f"/flows/{flow_id}/publish")
    return str(flow_id)


def test_flows_of_a_node_red_are_listed_created_deployed_and_rolled_back_over_rest(user, device, nodered):
    node = f"/edge-nodes/{device}"
    assert [flow["id"] for flow in user("GET", f"{node}/flows")["flows"]] == [TAB]
    assert user("GET", f"{node}/health")["runtime"]["version"] == "4.1.15"
    assert "http in" in {kind["type"] for kind in user("GET", f"{node}/node-types")["node_types"]}
    flow_id = publish(user, None, answering("one"))
    first = user.deploy(flow_id)
    assert user.wait(first, "succeeded", "failed")["status"] == "succeeded"
    assert nodered.ask("/flow") == "one"
    published = user("GET", f"/flows/{flow_id}")
    told = user("GET", f"{node}/flows/{flow_id}")["flow"]
    assert told["content_hash"] == published["content_hash"]
    assert told["definition"] == published["definition"]
    publish(user, flow_id, answering("two"))
    second = user.deploy(flow_id)
    assert user.wait(second, "succeeded", "failed")["status"] == "succeeded"
    assert nodered.ask("/flow") == "two"
    publish(user, flow_id, answering("three", func="return ("))
    third = user.deploy(flow_id, {"retries": 0, "on_failure": "abort"})
    assert user.wait(third, "succeeded", "failed")["status"] == "failed"
    [failed] = user("GET", f"/deployments/{third}/executions")["items"]
    assert failed["error_code"] == "START_FAILED"
    assert "SyntaxError" in failed["error"]
    assert nodered.ask("/flow") == "two"
    user("POST", f"/deployments/{second}/rollback", expect=202)
    until(lambda: nodered.ask("/flow") == "one")
    user("POST", f"{node}/flows/{flow_id}/stop")
    assert nodered.ask("/flow") is None
    user("POST", f"{node}/flows/{flow_id}/start")
    assert (nodered.ask("/flow"), nodered.ask("/own")) == ("one", "own")


def test_one_flow_on_a_node_red_from_its_creation_to_its_end_over_rest(user, device, nodered):
    """Created and changed on the device itself, then two versions of it deployed, rolled back, and deleted there."""
    node = f"/edge-nodes/{device}"
    before = own(nodered)
    made = user("POST", f"{node}/flows", {"id": "mine", "name": "by hand", **answering("one", "/mine")})
    assert made == {"flow_id": "mine", "status": "created"}
    assert nodered.ask("/mine") is None
    assert user("POST", f"{node}/flows/mine/start")["status"] == "started"
    assert nodered.ask("/mine") == "one"
    changed = {"flow": {"name": "changed", "definition": answering("two", "/mine")}}
    assert user("PUT", f"{node}/flows/mine", changed) == {"flow_id": "mine", "status": "updated"}
    assert nodered.ask("/mine") == "two"
    listed = {flow["id"]: flow for flow in user("GET", f"{node}/flows")["flows"]}
    assert listed.keys() == {"mine", TAB}
    assert (listed["mine"]["name"], listed["mine"]["status"]) == ("changed", "running")
    definition = user("GET", f"{node}/flows/mine")["flow"]["definition"]
    assert definition == answering("two", "/mine")
    refused(user, nodered, node)
    assert user("POST", f"{node}/flows/mine/stop")["status"] == "stopped"
    assert nodered.ask("/mine") is None
    assert user("DELETE", f"{node}/flows/mine") == {"flow_id": "mine", "status": "deleted"}
    flow_id = publish(user, None, definition)
    versions = [rolled_out(user, flow_id)]
    assert nodered.ask("/mine") == "two"
    publish(user, flow_id, answering("three", "/mine"))
    versions.append(rolled_out(user, flow_id))
    assert (nodered.ask("/mine"), nodered.ask("/own")) == ("three", "own")
    user("POST", f"/deployments/{versions[1]}/rollback", expect=202)
    assert user.wait(versions[1], "rolled_back", "rollback_failed")["status"] == "rolled_back"
    told = user("GET", f"{node}/flows/{flow_id}")["flow"]
    assert (nodered.ask("/mine"), told["version"], told["drift"]) == ("two", 1, False)
    assert user("DELETE", f"{node}/flows/{flow_id}")["status"] == "deleted"
    assert nodered.ask("/mine") is None
    assert own(nodered) == before
    assert set(nodered.objects()) == {item["id"] for item in OWN}


def rolled_out(user: User, flow_id: str) -> str:
    deployment = user.deploy(flow_id)
    assert user.wait(deployment, "succeeded", "failed")["status"] == "succeeded"
    return deployment


def refused(user: User, nodered: NodeRed, node: str) -> None:
    """What cannot be done changes nothing, and the answer says why."""
    rev, there = nodered.read()["rev"], nodered.objects()
    unfit = {"nodes": [{"id": "a", "type": "modbus-read", "x": 1, "y": 1}]}
    for method, path, body, code, words in (
        ("PUT", "mine", unfit, "UNSUPPORTED_NODE_TYPE", "modbus-read"),
        ("PUT", "mine", {"nodes": [{"id": "a", "type": "inject", "wires": [["b"]]}]}, "INVALID_FLOW", "no node 'b'"),
        ("PUT", TAB, answering("mine now"), "INVALID_FLOW", "somebody made"),
        ("DELETE", TAB, None, "INVALID_FLOW", "somebody made"),
    ):
        answer = user(method, f"{node}/flows/{path}", body, expect=502)
        assert (answer["code"], answer["device_code"]) == ("DEVICE_ERROR", code)
        assert words in answer["error"]
    for method, path in (("PUT", "nobody"), ("DELETE", "nobody"), ("GET", "nobody")):
        body = answering("one") if method == "PUT" else None
        assert user(method, f"{node}/flows/{path}", body, expect=404)["code"] == "NOT_FOUND"
    user("POST", f"{node}/flows/nobody/start", expect=404)
    user("POST", f"{node}/flows/nobody/stop", expect=404)
    assert nodered.read()["rev"] == rev
    broken = answering("four", "/mine", initialize="throw new Error('no pump')")
    answer = user("PUT", f"{node}/flows/mine", broken, expect=502)
    assert (answer["device_code"], "no pump" in answer["error"]) == ("START_FAILED", True)
    assert (nodered.objects(), nodered.ask("/mine")) == (there, "two")
