"""A real Node-RED behind the real agent, its editor in real Chromium, through two real web processes."""

from pathlib import Path

import httpx
import pytest

from tests.agent.nodered.test_editor_posts import LOOSE
from tests.browser.conftest import House
from tests.browser.red import Red, ticking
from tests.edge_nodes.hostile import until
from tests.platform import TLS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


def labels(house: House) -> list[str]:
    """The tabs that Node-RED itself says it has."""
    return [one["label"] for one in house.nodered.read()["flows"] if one["type"] == "tab"]


def test_a_flow_imported_and_deployed_in_the_browser_runs_on_the_device(house: House, red: Red) -> None:
    """And its debug messages come to the sidebar, over the proxied WebSocket."""
    red.open(house.editor_url())
    red.import_flow(ticking("pressure 42"))
    red.shot("imported")
    red.deploy()
    red.told("Successfully deployed")
    red.show_debug()
    red.hears("pressure 42")
    red.show_tab("pressure 42")
    red.shot("deployed")
    assert "pressure 42" in labels(house)
    answer = house.api.get(f"/edge-nodes/{house.device_id}/flows")
    assert "pressure 42" in answer.raise_for_status().text


def test_a_node_dragged_from_the_palette_is_deployed(house: House, red: Red) -> None:
    before = house.nodered.objects()
    red.open(house.editor_url())
    red.drag("comment", 320, 400)
    red.shot("dragged")
    red.deploy()
    red.told("Successfully deployed")
    after = house.nodered.objects()
    assert [after[one]["type"] for one in after.keys() - before.keys()] == ["comment"]


def test_a_change_deployed_in_the_browser_is_drift_in_the_cloud(house: House, red: Red) -> None:
    """A flow that the cloud has deployed is changed on its tab: the cloud tells that, and until it is put right."""
    flow_id = house.deploy("Pump watch")
    assert house.drift() == []
    red.open(house.editor_url())
    red.show_tab("Pump watch")
    red.drag("comment", 320, 400)
    red.deploy()
    red.told("Successfully deployed")
    red.shot("changed")
    until(lambda: [one["flow_id"] for one in house.drift()] == [flow_id], 20)
    (drift,) = house.drift()
    assert drift["running_hash"] == house.running(flow_id)["hash"] != drift["deployed_hash"]
    house.ask("POST", f"/devices/{house.device_id}/flows/{flow_id}/restore")
    until(lambda: house.drift() == [], 30)


def test_a_deploy_of_another_tab_is_no_drift_of_what_the_cloud_deployed(house: House, red: Red) -> None:
    """Though the editor posts that too, in a form of its own: without properties that it does not know, for one."""
    flow_id = house.deploy("Loose watch", LOOSE["nodes"])
    house.nodered.write([*house.nodered.read()["flows"], *ticking("beside it")])
    before = house.nodered.objects()
    hashed = house.running(flow_id)["hash"]
    red.open(house.editor_url())
    red.show_tab("Loose watch")
    red.page.wait_for_timeout(500)  # it measures groups as it draws them
    red.show_tab("beside it")
    red.drag("comment", 320, 400)
    red.deploy()
    red.told("Successfully deployed")
    after = house.nodered.objects()
    changed = {item["type"] for known, item in before.items() if after[known] != item}
    assert {"inject", "function", "debug", "catch", "junction", "group", "mqtt-broker", "subflow"} <= changed
    flows = {flow["id"]: flow for flow in house.ask("GET", f"/edge-nodes/{house.device_id}/flows")["flows"]}
    assert (flows[flow_id]["drift"], flows[flow_id]["content_hash"]) == (False, hashed)
    assert house.drift() == []


def test_the_editor_comes_back_on_its_url_after_a_restart_of_either_web_process(house: House, red: Red) -> None:
    """Of the one that serves the browser, then of the one that holds the device's tunnel."""
    house.nodered.write([*house.nodered.read()["flows"], *ticking("still here")])
    red.open(house.editor_url())
    red.show_debug()
    red.hears("still here")
    url = red.page.url
    for part in ("web1", "web0"):
        house.platform.restart(part)
        red.socket_closes(5)
        came = red.debug_messages("still here")
        house.platform.wait_ready()
        red.hears("still here", more_than=came, timeout_ms=30_000)
        red.shot(f"back-after-{part}")
    red.page.reload()
    red.loaded()
    assert red.page.url == url


def test_a_viewers_deploy_is_refused_and_the_device_keeps_what_it_has(house: House, red: Red) -> None:
    before = house.nodered.read()["flows"]
    red.open(house.editor_url("viewer"))
    red.import_flow(ticking("not allowed"))
    red.deploy()
    red.told("Deploy failed")
    red.shot("refused")
    assert house.nodered.read()["flows"] == before


def test_signing_out_closes_the_open_editor(house: House, red: Red) -> None:
    token = house.sign_in()
    red.open(house.editor_url(token=token))
    signed_out = httpx.post(
        f"{house.platform.url(1)}/api/v1/auth/logout", headers={"Authorization": f"Bearer {token}"}, verify=TLS
    )
    assert signed_out.status_code in {200, 204}, signed_out.text
    red.socket_closes(3)
    answer = red.page.reload()
    assert answer is not None
    assert answer.status in {401, 403}
    assert "Node-RED" not in red.page.content()
    red.shot("closed")


def test_one_devices_page_cannot_read_the_api_or_another_origin(house: House, red: Red, tmp_path: Path) -> None:
    """What a flow's page might try with its visitor's browser, in a real one."""
    red.open(house.editor_url())
    tried = """async url => { try { const a = await fetch(url, {credentials: 'include'}); return a.status }
                              catch (error) { return 'blocked' } }"""
    assert red.page.evaluate(tried, f"{house.platform.url(1)}/api/v1/devices") == "blocked"
    assert red.page.evaluate(tried, "/settings") == 200
    assert red.page.evaluate("document.cookie").find("edgeflow_editor") == -1
