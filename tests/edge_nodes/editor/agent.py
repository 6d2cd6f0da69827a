"""The real agent as a device of the real platform, in a thread, with a server beside it that a test plays."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from agent.credentials import Credentials
from agent.device import Device, Options
from agent.rest import Rest
from tests.agent.editors import Asked, EditorDriver, LocalServer, Serve, local_server
from tests.e2e.conftest import until
from tests.edge_nodes.editor.conftest import Setting


@contextmanager
def real_agent(
    setting: Setting, serve: Serve, *, path: str = "", web: int = 0, **options: Any
) -> Iterator[LocalServer]:
    """``setting``'s device, connected until the block ends; its editor is at ``path`` of the server that is given."""
    started: list[Any] = []
    ready = threading.Event()

    async def work() -> None:
        stop, url = asyncio.Event(), setting.gateways.url(web)
        async with local_server(serve) as server:
            rest = Rest(url)
            credentials = Credentials(str(setting.device.id), setting.key, url)
            device = Device(credentials, EditorDriver(f"{server.url}{path}"), rest, options=Options(**options))
            device.start()
            started[:] = [server, asyncio.get_running_loop(), stop]
            ready.set()
            await stop.wait()
            await device.stop()
            await rest.close()

    thread = threading.Thread(target=lambda: asyncio.run(work()), name="agent", daemon=True)
    thread.start()
    assert ready.wait(20)
    server, loop, stop = started
    try:
        link = f"/edge-nodes/{setting.device.id}/editor-url"
        until(lambda: setting.api("GET", link).status_code == 200, timeout=20)
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)


def parts_of(asked: Asked) -> tuple[str, str]:
    """Method and target of a request."""
    method, target, _version = asked.line.split(" ")
    return method, target
