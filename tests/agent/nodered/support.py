"""A driver on the real Node-RED, and what the tests ask of both."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from agent.commands import ACTIONS, Context
from agent.drivers.choice import RuntimeOptions
from agent.drivers.nodered import NodeRedDriver
from agent.protocol import CommandError
from agent.settings import Settings
from tests.agent.nodered.instance import NodeRed
from tests.agent.nodered.samples import OWN


def with_driver(
    nodered: Any,
    folder: Path,
    work: Callable[[NodeRedDriver], Awaitable[Any]],
    settle: float = 0.4,
    token_file: Path | None = None,
) -> Any:
    """Do `work` on an open driver, whose deployments have to run for `settle` seconds."""

    async def run() -> Any:
        driver = NodeRedDriver(RuntimeOptions(folder, nodered.url, token_file), settle)
        await driver.open()
        try:
            async with asyncio.timeout(40):
                return await work(driver)
        finally:
            await driver.close()

    return asyncio.run(run())


async def ask(driver: NodeRedDriver, action: str, **payload: Any) -> Any:
    """What an action of the tunnel's protocol answers, or the CommandError that it raises."""
    context = Context(driver, Settings(), None)  # type: ignore[arg-type]  # of a shadow they know nothing
    return await ACTIONS[action].run(context, payload)


async def flow_of(driver: NodeRedDriver, flow_id: str = "flow-1") -> Any:
    """A flow as it is listed."""
    return {flow["id"]: flow for flow in await driver.list_flows()}.get(flow_id)


async def until_errors(driver: NodeRedDriver, flow_id: str = "flow-1") -> None:
    """Return once a flow has made an error."""
    async with asyncio.timeout(5):
        while not (await flow_of(driver, flow_id))["errors"]:
            await asyncio.sleep(0.05)


async def fails(code: str, call: Awaitable[Any]) -> str:
    """The text of the CommandError that a call raises."""
    with pytest.raises(CommandError) as caught:
        await call
    assert caught.value.code == code
    return str(caught.value)


def own(nodered: NodeRed) -> list[list[str]]:
    """A person's objects as Node-RED has them, and as they are on its disk."""
    ids = {item["id"] for item in OWN}
    stored = json.loads((nodered.folder / "flows.json").read_text())
    return [[json.dumps(item) for item in flows if item["id"] in ids] for flows in (nodered.read()["flows"], stored)]
