"""The cloud's REST interface, as far as a device and the simulator need it."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from agent.hardware import Info

log = logging.getLogger("agent.rest")

RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
Json = dict[str, Any]
Result = TypeVar("Result")


class RestError(Exception):
    """The cloud answered with an error, or (`status` 0) not at all. `retry_after` in seconds."""

    def __init__(self, status: int, code: str, text: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {code}: {text}" if status else text)
        self.status, self.code, self.retry_after = status, code, retry_after

    @property
    def passing(self) -> bool:
        """Whether the same request may work a little later."""
        return self.status == 0 or self.status in RETRIED


@dataclass(frozen=True)
class Retry:
    """How often and how patiently; seconds. `tries` 0: for ever."""

    tries: int = 6
    base: float = 0.5
    cap: float = 30.0


async def retrying(call: Callable[[], Awaitable[Result]], retry: Retry, rng: random.Random, what: str) -> Result:
    """Call until it works, with full jitter and the server's Retry-After; raises the last RestError."""
    attempt = 0
    while True:
        try:
            return await call()
        except RestError as error:
            attempt += 1
            if not error.passing or attempt == retry.tries:
                raise
            pause = rng.uniform(0, min(retry.cap, retry.base * 2 ** min(attempt, 16))) + (error.retry_after or 0)
            log.log(logging.INFO if attempt > 2 else logging.DEBUG, "%s: %s; again in %.1f s", what, error, pause)
            await asyncio.sleep(pause)


class Rest:
    """One pool of connections; `concurrency` requests at once, the others wait here and not in the pool."""

    def __init__(self, base_url: str, concurrency: int = 16, timeout: float = 30.0) -> None:
        self.base_url = base_url
        self._turn = asyncio.Semaphore(concurrency)
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(timeout, pool=None),
            limits=httpx.Limits(max_connections=concurrency, max_keepalive_connections=concurrency),
            trust_env=not is_local(base_url),
        )

    async def close(self) -> None:
        """Close the pool."""
        await self._client.aclose()

    async def provision(self, code: str, hardware: Info, network: Info) -> Json:
        """Exchange a provisioning code for `{device_id, api_key, expires_at?}`."""
        body = {"provisioning_code": code, "hardware_info": hardware, "network_info": network}
        return await self.call("POST", "/devices/provision", body)

    async def shadow(self, device_id: str, api_key: str) -> Json:
        """The shadow document."""
        return await self.call("GET", f"/devices/{device_id}/shadow", headers={"X-API-Key": api_key})

    async def report(self, device_id: str, api_key: str, reported: Json) -> Json:
        """Merge into the reported state; answers the document."""
        headers = {"X-API-Key": api_key}
        return await self.call("PUT", f"/devices/{device_id}/shadow", {"reported": reported}, headers)

    async def call(self, method: str, path: str, body: Json | None = None, headers: Json | None = None) -> Json:
        """One request, one JSON object back; raises RestError."""
        url = f"{self.base_url.rstrip('/')}/api/v1{path}"
        async with self._turn:
            try:
                response = await self._client.request(method, url, json=body, headers=headers)
            except httpx.HTTPError as error:
                raise RestError(0, "UNREACHABLE", f"{url}: {error or type(error).__name__}") from error
        return _object(response)


def _object(response: httpx.Response) -> Json:
    try:
        answer = response.json()
    except ValueError:
        answer = None
    if response.is_success and isinstance(answer, dict):
        return answer
    told = answer if isinstance(answer, dict) else {}
    text = str(told.get("error") or response.reason_phrase or "no JSON object")
    status = response.status_code if not response.is_success else 502
    raise RestError(status, str(told.get("code") or "HTTP_ERROR"), text, retry_after(response.headers))


def retry_after(headers: Any) -> float | None:
    """Retry-After in seconds, at most an hour; None without one or when it is a date."""
    value = headers.get("Retry-After")
    try:
        return None if value is None else min(3600.0, max(0.0, float(value)))
    except ValueError:
        return None


def is_local(url: str) -> bool:
    """Whether a URL leads to this machine: such a request never goes through a proxy of the environment."""
    host = httpx.URL(url).host
    return host in ("localhost", "::1") or host.startswith("127.")
