"""Two devices with a Node-RED each, and several people and tabs in real Chromium, all at the same time."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext

from tests.agent.nodered.instance import NodeRed
from tests.browser.conftest import House
from tests.browser.red import Red, ticking
from tests.edge_nodes.hostile import until

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("two_browsers")]

NewRed = Callable[..., Red]


@pytest.fixture(scope="module")
def annex(house: House, nodered_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """The second device, at the other web process; its Node-RED is below a path (``httpAdminRoot``)."""
    folder = tmp_path_factory.mktemp("annex")
    with NodeRed(nodered_home, folder / "nodered", root="/admin") as nodered, House(folder, nodered, house) as running:
        yield running


@pytest.fixture
def person(chromium: Browser, tmp_path: Path) -> Iterator[Callable[[], BrowserContext]]:
    """Makes browsers of other people: each has cookies of its own."""
    made: list[BrowserContext] = []

    def new() -> BrowserContext:
        made.append(chromium.new_context(viewport={"width": 1280, "height": 800}))
        return made[-1]

    yield new
    for context in made:
        context.close()


@pytest.fixture
def tab(tmp_path: Path) -> Callable[[BrowserContext, str], Red]:
    """Opens a tab in somebody's browser; its screenshots have a folder of that name."""

    def new(context: BrowserContext, name: str) -> Red:
        (tmp_path / name).mkdir()
        return Red(context.new_page(), tmp_path / name)

    return new


def names(house: House) -> set[str]:
    return {str(one.get("name") or one.get("label")) for one in house.nodered.objects().values()}


def test_two_people_change_and_deploy_on_two_devices_at_once(
    house: House, annex: House, person: Callable[[], BrowserContext], tab: NewRed
) -> None:
    """Each change runs on its own device alone, is its own device's drift, and each hears its own device."""
    flows = {house: house.deploy("Pump watch"), annex: annex.deploy("Fan watch")}
    assert house.drift() == annex.drift() == []
    pump, fan = tab(person(), "pump"), tab(person(), "fan")
    for red, at in ((pump, house), (fan, annex)):
        red.open(at.editor_url())
    for red, what in ((pump, "pump"), (fan, "fan")):
        red.import_flow(ticking(f"tick of {what}"))
        red.show_tab(f"{what.title()} watch")
        red.rename("each minute", f"changed by {what}")
        red.show_debug()
    for red in (pump, fan):
        red.deploy()
    for red in (pump, fan):
        red.told("Successfully deployed")
    for red, what in ((pump, "pump"), (fan, "fan")):
        red.hears(f"tick of {what}", more_than=2)
        red.shot("deployed")
    assert {"changed by pump", "tick of pump"} <= names(house)
    assert {"changed by fan", "tick of fan"} <= names(annex)
    assert not any("fan" in name for name in names(house))
    assert not any("pump" in name for name in names(annex))
    for at, flow_id in flows.items():
        until(lambda at=at, flow_id=flow_id: [one["flow_id"] for one in at.drift()] == [flow_id], 20)
    assert pump.debug_messages("tick of fan") == fan.debug_messages("tick of pump") == 0


def test_one_browser_with_both_devices_and_another_person_at_one_of_them(
    house: House, annex: House, person: Callable[[], BrowserContext], tab: NewRed
) -> None:
    """Tabs of both devices live side by side; who has the same editor open is told of a deployment, and nobody else."""
    for at, label in ((house, "beat of pump"), (annex, "beat of fan")):
        at.nodered.write([*at.nodered.read()["flows"], *ticking(label)])
    mine, hers = person(), person()
    pump, fan, other = tab(mine, "pump"), tab(mine, "fan"), tab(hers, "other")
    for red, at, label in ((pump, house, "pump"), (fan, annex, "fan"), (other, house, "pump")):
        red.open(at.editor_url())
        red.show_debug()
        red.hears(f"beat of {label}", more_than=1)
    jar = [one for one in mine.cookies() if one["name"] == "edgeflow_editor"]
    assert sorted(one["domain"] for one in jar) == sorted(
        f"{at.device_id}.edit.localhost" for at in (house, annex)
    )  # fmt: skip
    pump.drag("comment", 320, 400)
    pump.deploy()
    pump.told("Successfully deployed")
    other.told("The flows on the server have been updated")
    for red, name in ((pump, "pump"), (fan, "fan"), (other, "other")):
        red.shot(name)
    assert fan.page.locator(".red-ui-notification").filter(has_text="have been updated").count() == 0
    assert pump.debug_messages("of fan") == fan.debug_messages("of pump") == other.debug_messages("of fan") == 0
    came = fan.debug_messages("beat of fan")
    other.page.close()
    fan.hears("beat of fan", more_than=came)
