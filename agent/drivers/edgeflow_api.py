"""The EdgeFlow runtime's local REST API (`/api/v1` on port 8080) as a few typed calls.

What the runtime answers when it does not want is `{"error": text}` with 400, 404 or, for nearly everything else, 500.
Reading calls, and those that are the same when done twice, are repeated when no answer came; creating and starting are
not: the driver looks what has become of them.
"""

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx

from agent.drivers.base import JsonObject
from agent.protocol import INTERNAL_ERROR, RUNTIME_UNAVAILABLE, CommandError
from agent.rest import is_local

MAX_ANSWER = 32 * 1024 * 1024
PAUSES = (0.2, 0.6)
"""Seconds before a repetition."""
API_KEY = "efk_"
"""How the runtime's API keys begin; any other token is a JWT."""


class Unavailable(CommandError):
    """The runtime gave no answer; `reached`: it may have carried the request out all the same."""

    def __init__(self, text: str, *, reached: bool) -> None:
        super().__init__(RUNTIME_UNAVAILABLE, text)
        self.reached = reached


class Refusal(CommandError):
    """The runtime said no, with an HTTP `status`."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(INTERNAL_ERROR, text)
        self.status = status


class EdgeFlowApi:
    """One pool of connections. `token` is asked anew for each request and may raise OSError or ValueError."""

    def __init__(self, url: str, token: Callable[[], str | None] = lambda: None, seconds: float = 8.0) -> None:
        self.url, self._token = url.rstrip("/"), token
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(seconds, connect=min(3.0, seconds)), trust_env=not is_local(url)
        )

    async def close(self) -> None:
        """Close the pool."""
        await self._client.aclose()

    async def flows(self) -> dict[str, JsonObject]:
        """All flows by the runtime's own id, as they are stored, with nodes and connections."""
        answer = await self._again("GET", "/flows")
        return {str(flow["id"]): flow for flow in _objects(answer, "flows") if flow.get("id")}

    async def flow(self, runtime_id: str) -> JsonObject | None:
        """One flow, None when there is none."""
        try:
            return await self._again("GET", f"/flows/{quote(runtime_id, safe='')}")
        except Refusal as error:
            if error.status == 404:
                return None
            raise

    async def create(self, name: str, description: str) -> str:
        """An empty flow; its id, which the runtime chooses."""
        made = await self._call("POST", "/flows", {"name": name, "description": description})
        if not isinstance(made.get("id"), str) or not made["id"]:
            raise Refusal(201, "the runtime created a flow without an id")
        return str(made["id"])

    async def update(self, runtime_id: str, body: JsonObject) -> None:
        """Replace a flow's content."""
        await self._again("PUT", f"/flows/{quote(runtime_id, safe='')}", body)

    async def delete(self, runtime_id: str) -> None:
        """Stop and forget a flow, also one that is not there."""
        await self._again("DELETE", f"/flows/{quote(runtime_id, safe='')}")

    async def start(self, runtime_id: str) -> None:
        """Start a flow."""
        await self._call("POST", f"/flows/{quote(runtime_id, safe='')}/start")

    async def stop(self, runtime_id: str) -> None:
        """Stop a flow, also one that does not run."""
        await self._again("POST", f"/flows/{quote(runtime_id, safe='')}/stop")

    async def node_types(self) -> list[JsonObject]:
        """The catalogue."""
        answer = await self._again("GET", "/node-types")
        return _objects(answer, "node_types" if "node_types" in answer else "nodeTypes")

    async def executions(self) -> list[JsonObject]:
        """Starts of flows and what became of them, newest first; the runtime keeps a hundred, in memory."""
        return _objects(await self._again("GET", "/executions"), "executions")

    async def stats(self) -> JsonObject:
        """The machine's figures."""
        return await self._again("GET", "/resources/stats")

    async def gpio(self) -> JsonObject:
        """The pins."""
        return await self._again("GET", "/gpio/state")

    async def _again(self, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
        """A call that is the same when it is done twice."""
        for pause in PAUSES:
            try:
                return await self._call(method, path, body)
            except Unavailable:
                await asyncio.sleep(pause)
        return await self._call(method, path, body)

    async def _call(self, method: str, path: str, body: JsonObject | None = None) -> JsonObject:
        url = f"{self.url}/api/v1{path}"
        try:
            async with self._client.stream(method, url, json=body, headers=self._headers()) as response:
                return _answer(response, await _read(response))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise Unavailable(f"the EdgeFlow runtime at {self.url} cannot be reached", reached=False) from error
        except httpx.TimeoutException as error:
            raise Unavailable(f"the EdgeFlow runtime did not answer {method} {path} in time", reached=True) from error
        except httpx.HTTPError as error:
            text = f"the EdgeFlow runtime broke off its answer to {method} {path}"
            raise Unavailable(text, reached=True) from error

    def _headers(self) -> dict[str, str]:
        try:
            token = self._token()
        except (OSError, ValueError) as error:
            raise CommandError(INTERNAL_ERROR, f"the runtime's access token cannot be read: {error}") from error
        if token is None:
            return {}
        return {"X-API-Key": token} if token.startswith(API_KEY) else {"Authorization": f"Bearer {token}"}


async def _read(response: httpx.Response) -> bytes:
    """The body, at most MAX_ANSWER: the runtime's history of executions grows without a bound of its own."""
    parts, size = [], 0
    async for part in response.aiter_bytes():
        parts.append(part)
        size += len(part)
        if size > MAX_ANSWER:
            raise Refusal(response.status_code, f"the runtime's answer is larger than {MAX_ANSWER // 2**20} MiB")
    return b"".join(parts)


def _answer(response: httpx.Response, body: bytes) -> JsonObject:
    try:
        answer: Any = httpx.Response(200, content=body).json()
    except (ValueError, RecursionError):
        answer = None
    status = response.status_code
    if response.is_success and isinstance(answer, dict):
        return answer
    if status in (502, 503, 504):
        raise Unavailable(f"the EdgeFlow runtime is not ready: {status}", reached=True)
    if status in (401, 403):
        raise Refusal(status, f"the EdgeFlow runtime refuses the access token: {status}")
    told = answer.get("error") if isinstance(answer, dict) else None
    raise Refusal(status, f"the EdgeFlow runtime answered {status}: {str(told or 'no JSON object')[:500]}")


def _objects(answer: JsonObject, key: str) -> list[JsonObject]:
    found = answer.get(key)
    if found is None:
        return []
    if not isinstance(found, list):
        raise Refusal(200, f"the EdgeFlow runtime's {key} are no list")
    return [item for item in found if isinstance(item, dict)]
