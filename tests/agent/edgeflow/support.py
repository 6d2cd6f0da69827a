"""A driver on the stand-in runtime, flows of both formats, orders."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from agent.content import content_hash
from agent.drivers.base import Deployment
from agent.drivers.choice import RuntimeOptions
from agent.drivers.edgeflow import EdgeFlowDriver
from tests.agent.edgeflow.runtime import Runtime

Json = dict[str, Any]


def flow(marker: Any = 1, **config: Any) -> Json:
    """Two nodes, joined."""
    return {
        "name": "watch",
        "nodes": [
            {"id": "every", "type": "inject", "x": 10, "y": 20.5, "config": {"marker": marker, **config}},
            {"id": "show", "type": "debug", "name": "Show"},
        ],
        "connections": [{"source": "every", "target": "show"}],
    }


def order(content: Json | None = None, version: int = 1, start: bool = True, flow_id: str = "flow-1") -> Deployment:
    content = content or flow(version)
    hashed = content_hash(content)
    assert hashed
    return Deployment(flow_id, version, hashed, {**content, "id": flow_id}, start)


class Scene:
    """A runtime and a driver, which may be opened anew as after a restart of the agent."""

    def __init__(self, runtime: Runtime, folder: Any, seconds: float) -> None:
        self.runtime, self._folder, self._seconds = runtime, folder, seconds
        self.heard: list[tuple[str, str]] = []
        self.driver = self._make()

    def _make(self) -> EdgeFlowDriver:
        driver = EdgeFlowDriver(RuntimeOptions(self._folder, self.runtime.url), self._seconds)
        driver.listen(lambda level, text, fields: self.heard.append((level, text)))
        return driver

    async def reopen(self) -> None:
        await self.driver.close()
        self.driver = self._make()
        await self.driver.open()

    async def only(self) -> Json:
        """The one flow that is listed."""
        (found,) = await self.driver.list_flows()
        return found

    @property
    def runtime_id(self) -> str:
        (found,) = self.runtime.stored
        return found


def play(folder: Any, work: Callable[[Scene], Awaitable[None]], seconds: float = 5.0, **options: Any) -> None:
    """Do `work` on a scene, whose driver waits `seconds` for an answer."""

    async def run() -> None:
        async with asyncio.timeout(20), Runtime(**options) as runtime:
            scene = Scene(runtime, folder, seconds)
            await scene.driver.open()
            try:
                await work(scene)
            finally:
                await scene.driver.close()

    asyncio.run(run())
