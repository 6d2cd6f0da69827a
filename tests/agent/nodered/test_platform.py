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
from tests.agent.nodered.samples import TAB, answering
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
