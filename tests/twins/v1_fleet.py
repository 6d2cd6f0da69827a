"""Thousands of v1 agents in one process: the connection of ``v1_agent``, in the same strict order of calls.

Each agent: one frame after `connect` or a refusal, the shadow read and written over REST before its read loop, a ping
each 30 s, the waits of 5, 10, 15, 20, 25 s after a drop, and then it has given up until a person restarts it. Of the
commands it knows those that a rollout to a v1 agent begins with.
"""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from agent.enrol import Member
from tests.twins.v1_agent import (
    BACKOFF,
    CONNECTED_TIMEOUT,
    HEARTBEAT,
    VERSION,
    GoStrict,
    Json,
    check_shadow,
    now,
    parse_frame,
)

HTTP_SECONDS = 30.0
FIRST_DIALS_AT_ONCE = 100
"""A first dial that fails is never repeated, so a person starts the agents one after the other."""


class V1Fleet:
    """Agents that all know the same address. ``time_scale`` shrinks their waits."""

    def __init__(self, urls: list[str], members: Sequence[Member], time_scale: float = 1.0) -> None:
        self.agents = [_Agent(urls[0], member, time_scale) for member in members]
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Return when every agent is connected, or has given up."""
        turn = asyncio.Semaphore(FIRST_DIALS_AT_ONCE)

        async def first(agent: _Agent) -> None:
            async with turn:
                self._tasks.append(asyncio.create_task(agent.run()))
                await agent.settled.wait()

        await asyncio.gather(*(first(agent) for agent in self.agents))

    async def report(self) -> Json:
        failures = Counter(failure for agent in self.agents for failure in agent.failures)
        return {
            "connected": sum(agent.connected for agent in self.agents),
            "gave_up": sum(agent.gave_up for agent in self.agents),
            "dials": sum(agent.dials for agent in self.agents),
            "most_tries": max(agent.most_tries for agent in self.agents),
            "failures": dict(failures.most_common(10)),
        }

    def move(self, to: int) -> None:
        raise NotImplementedError("a v1 agent has one address")

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class _Agent:
    def __init__(self, url: str, member: Member, time_scale: float) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        self._id, self._key, self._scale = member.device_id, member.api_key, time_scale
        self.settled = asyncio.Event()
        self.connected = self.gave_up = False
        self.dials = self.most_tries = 0
        self.failures: list[str] = []

    async def run(self) -> None:
        """The first dial has one try; after a drop there are five."""
        if await self._serve_one():
            while await self._reconnect():
                pass
        self.gave_up = True
        self.settled.set()

    async def _reconnect(self) -> bool:
        for number, wait in enumerate(BACKOFF, 1):
            self.most_tries = max(self.most_tries, number)
            await asyncio.sleep(wait * self._scale)
            if await self._serve_one():
                return True
        return False

    async def _serve_one(self) -> bool:
        """One try at a connection, served until it ends; False when it did not come about."""
        self.dials += 1
        url = f"ws://{self._host}:{self._port}/tunnel"
        try:
            async with connect(url, compression=None, ping_interval=None, proxy=None, max_size=None) as link:
                await self._introduce(link)
                await self._shadow("GET")
                reported = {"online": True, "agent_version": VERSION, "last_updated": now()}
                await self._shadow("PUT", {"reported": reported})
                await self._serve(link)
            return True
        except (OSError, EOFError, TimeoutError, WebSocketException, GoStrict) as error:
            self.failures.append(f"{type(error).__name__}: {str(error)[:100]}")
            return False
        finally:
            self.connected = False

    async def _introduce(self, link: ClientConnection) -> None:
        hello = {"type": "connect", "device_id": self._id, "api_key": self._key, "version": VERSION, "timestamp": now()}
        await link.send(json.dumps(hello))
        frame = parse_frame(await asyncio.wait_for(link.recv(), CONNECTED_TIMEOUT))
        if frame.get("type") != "connected":
            raise GoStrict(f"connection refused: {frame.get('error') or frame.get('type')}")

    async def _serve(self, link: ClientConnection) -> None:
        beat = asyncio.create_task(self._beat(link))
        self.connected = True
        self.settled.set()
        try:
            async for text in link:
                with contextlib.suppress(GoStrict):  # dropped in silence, as the agent does
                    await self._take(link, parse_frame(text))
        except ConnectionClosed:
            return
        finally:
            beat.cancel()

    async def _beat(self, link: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(HEARTBEAT)
                await link.send(json.dumps({"type": "ping", "timestamp": now()}))

    async def _take(self, link: ClientConnection, frame: Json) -> None:
        if frame.get("type") != "command":
            return
        answer = {"type": "response", "id": frame.get("id"), "timestamp": now(), **_answer(str(frame.get("action")))}
        await link.send(json.dumps(answer))

    async def _shadow(self, method: str, body: Json | None = None) -> None:
        status, text = await asyncio.wait_for(self._request(method, body), HTTP_SECONDS)
        if status != 200:
            raise GoStrict(f"{method} shadow was answered {status}: {text[:100]!r}")
        try:
            check_shadow(json.loads(text))
        except ValueError as error:
            raise GoStrict(f"{method} shadow: {error}") from error

    async def _request(self, method: str, body: Json | None) -> tuple[int, bytes]:
        """One request on a connection of its own: thousands in one client's pool would measure the client."""
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} /api/v1/devices/{self._id}/shadow HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
            f"X-API-Key: {self._key}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
            "Connection: close\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(self._host, self._port)
        try:
            writer.write(head.encode() + content)
            answered = await reader.read(-1)
        finally:
            writer.close()
        first, _, text = answered.partition(b"\r\n\r\n")
        if not first.startswith(b"HTTP/1.1 "):
            raise GoStrict(f"{method} shadow was not answered")
        return int(first[9:12]), text


def _answer(action: str) -> dict[str, Any]:
    if action == "list_flows":
        return {"status": "success", "data": {"flows": []}}
    if action == "health_check":
        return {"status": "success", "data": {"status": "healthy", "version": VERSION, "uptime": 1}}
    if action in ("create_flow", "update_flow", "delete_flow", "get_flow"):
        return {"status": "error", "error": f"{action.replace('_', ' ')} not yet implemented"}
    return {"status": "error", "error": f"unknown command action: {action}"}
