"""What several of the agent's tests need: a device on the stand-in cloud, a flow, waiting without sleeping long."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from agent.credentials import Credentials
from agent.device import Device, Options
from agent.drivers.base import Deployment, Driver
from agent.drivers.simulated import Behaviour, SimulatedDriver
from agent.rest import Rest
from agent.waiting import Waits
from tests.agent.cloud import Cloud, Link

QUICK = Options(grace=1.0, waits=Waits(base=0.02, cap=0.1, refused=0.3, replaced=0.1, stable_after=60))


@asynccontextmanager
async def device_on(cloud: Cloud, driver: Driver | None = None, **options: Any) -> AsyncIterator[Device]:
    """A device that connects to `cloud` until the block ends."""
    device_id, api_key = cloud.add()
    rest = Rest(cloud.url)
    options.setdefault("options", QUICK)
    driver = driver or SimulatedDriver("test", Behaviour())
    device = Device(Credentials(device_id, api_key, cloud.url), driver, rest, **options)
    device.start()
    try:
        yield device
    finally:
        await device.stop()
        await rest.close()


async def until(condition: Callable[[], Any], seconds: float = 5) -> None:
    """Return as soon as `condition` holds; raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def counting_flow(expression: str = "count", interval: float = 0.02) -> dict[str, Any]:
    """A flow that shows what `expression` gives, every `interval` seconds."""
    nodes = [
        {"id": "in", "type": "inject", "config": {"interval": interval, "expression": expression}, "wires": [["out"]]},
        {"id": "out", "type": "debug"},
    ]
    return {"name": "counting", "nodes": nodes}


def deployment(flow: dict[str, Any] | None = None, version: int = 1, **more: Any) -> dict[str, Any]:
    """A deploy_flow payload; the hash follows the version."""
    flow = flow if flow is not None else counting_flow()
    payload = {"flow_id": "flow-1", "version": version, "content_hash": f"hash-{version}", "flow": flow}
    return {**payload, "start": True, "previous": None, **more}


def payload(wanted: Deployment) -> dict[str, Any]:
    """The deploy_flow payload of what a driver is given."""
    told = {"flow_id": wanted.flow_id, "version": wanted.version, "content_hash": wanted.content_hash}
    return {**told, "flow": wanted.flow, "start": wanted.start, "previous": None}


class Conversation:
    """Commands to one device; `done`: the actions that have succeeded."""

    def __init__(self, link: Link) -> None:
        self._link, self.done = link, set[str]()

    async def ask(self, action: str, **sent: Any) -> Any:
        """The data of a command that succeeds."""
        answer = await self._link.ask(action, sent)
        assert answer["status"] == "success", answer
        self.done.add(action)
        return answer["data"]

    async def fails(self, action: str, code: str, **sent: Any) -> str:
        """The words of one that fails with this code."""
        answer = await self._link.ask(action, sent)
        assert (answer["status"], answer["code"]) == ("error", code), answer
        return str(answer["error"])
