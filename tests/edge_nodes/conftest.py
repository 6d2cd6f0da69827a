"""Two devices with hostile editors on one web process, and their browser on the other."""

from collections.abc import Iterator
from uuid import UUID

import psutil
import pytest

from tests import make
from tests.edge_nodes.hostile import Editor, Tab
from tests.platform import Platform
from tests.tunnel.conftest import Caller, caller, tenant

__all__ = ["caller", "tenant"]


class Scene:
    """An organization with two devices; ``device`` is the hostile one, ``sibling`` another on the same platform."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.org: UUID = make.organization()
        (one, key), (two, other_key) = make.devices(2, self.org)
        self.device = Editor(platform.url(0), one.id, key)
        self.sibling = Editor(platform.url(0), two.id, other_key)
        self.operator = Caller(platform.url(1), make.api_key(self.org, "operator"))
        self.viewer = Caller(platform.url(1), make.api_key(self.org, "viewer"))
        self.stranger = Caller(platform.url(1), make.api_key(make.organization(), "owner"))
        self.tab = Tab.open(self.operator, one.id)
        self.sibling_tab = Tab.open(self.operator, two.id)

    def forget(self) -> None:
        self.device.forget()
        self.sibling.forget()

    def still_fine(self) -> None:
        """The device's connection stands, its editor is served, and commands get through."""
        self.device.forget()
        page = self.tab.get("/still-fine")
        assert (page.status, page.body) == (200, b"hello")
        assert self.operator("GET", f"/edge-nodes/{self.device.device_id}/health").status_code == 200

    def memory(self) -> int:
        """Resident bytes of all serving processes."""
        webs = [process for name, process in self.platform.processes.items() if name.startswith("web")]
        return sum(child.memory_info().rss for web in webs for child in psutil.Process(web.pid).children())

    def close(self) -> None:
        for device in (self.device, self.sibling):
            device.close()
        for one in (self.operator, self.viewer, self.stranger):
            one.http.close()


@pytest.fixture(scope="module")
def _scene(app: object, gateways: Platform) -> Iterator[Scene]:
    made = Scene(gateways)
    yield made
    made.close()


@pytest.fixture
def scene(_scene: Scene) -> Scene:
    """Shared by a file's tests; each begins with polite devices that have heard nothing."""
    _scene.forget()
    return _scene
