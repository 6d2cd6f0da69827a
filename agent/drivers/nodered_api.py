"""Node-RED's Admin API (version 2), as far as a driver needs it: https://nodered.org/docs/api/admin/methods/."""

import json
from collections.abc import Callable
from typing import Any

import httpx

from agent.protocol import INTERNAL_ERROR, INVALID_FLOW, RUNTIME_UNAVAILABLE, CommandError

JsonObject = dict[str, Any]
TIMEOUT = httpx.Timeout(10, read=40)
"""Seconds. A deployment waits for the old nodes to close, each of which Node-RED gives 15."""


class RevisionConflict(Exception):
    """Somebody else has deployed since the revision was read (409 version_mismatch)."""


class NodeRedApi:
    """One Node-RED at `url`; `token` gives the access token at each request, None: it wants none.

    Everything raises CommandError: RUNTIME_UNAVAILABLE when Node-RED does not answer, INVALID_FLOW for what it refuses
    (400), INTERNAL_ERROR for the rest.
    """

    def __init__(self, url: str, token: Callable[[], str | None]) -> None:
        self.url, self._token = url, token
        # A proxy in the environment is for the world outside: the runtime is a neighbour.
        self._client = httpx.AsyncClient(base_url=url, timeout=TIMEOUT, trust_env=False)

    async def close(self) -> None:
        """Give the connections back."""
        await self._client.aclose()

    async def flows(self) -> tuple[str, list[JsonObject]]:
        """The revision, and all objects of the deployment, without credentials."""
        found = await self._ask("GET", "/flows")
        return str(found["rev"]), list(found["flows"])

    async def deploy(self, flows: list[JsonObject], rev: str, kind: str = "flows") -> str:
        """Replace the deployment of revision `rev`; the new revision. Raises RevisionConflict.

        `kind`: what restarts: `flows` that were modified, or only their modified `nodes`.
        """
        body = json.dumps({"rev": rev, "flows": flows}).encode()
        found = await self._ask("POST", "/flows", body, {"Node-RED-Deployment-Type": kind})
        return str(found["rev"])

    async def node_sets(self) -> list[JsonObject]:
        """The installed node sets: `{"module", "version", "types", "enabled", "err"?}`."""
        found = await self._ask("GET", "/nodes")
        return list(found)

    async def version(self) -> str:
        """Node-RED's version."""
        return str((await self._ask("GET", "/settings")).get("version", ""))

    async def state(self) -> str:
        """`start`, `stop` or `safe`; `start` for a version that does not tell."""
        response = await self._send("GET", "/flows/state")
        if response.status_code == 404:
            return "start"
        return str(_read(response)["state"])

    async def has_credentials(self, kind: str, node: str) -> bool:
        """Whether Node-RED keeps credentials for a node; True also when it may not be asked."""
        kind = kind.replace(" ", "-").replace("/", "%2F")
        response = await self._send("GET", f"/credentials/{kind}/{node}")
        if response.status_code != 200:
            return response.status_code != 404
        return any(response.json().values())

    async def _ask(self, method: str, path: str, body: bytes | None = None, headers: Any = None) -> Any:
        return _read(await self._send(method, path, body, headers))

    async def _send(self, method: str, path: str, body: bytes | None = None, headers: Any = None) -> httpx.Response:
        sent = {"Accept": "application/json", "Node-RED-API-Version": "v2", **(headers or {})}
        if body is not None:
            sent["Content-Type"] = "application/json"
        try:
            return await self._client.request(method, path, content=body, headers={**sent, **self._authorization()})
        except (httpx.HTTPError, OSError) as error:
            text = f"Node-RED at {self.url} cannot be reached: {error or type(error).__name__}"
            raise CommandError(RUNTIME_UNAVAILABLE, text) from error

    def _authorization(self) -> dict[str, str]:
        try:
            token = self._token()
        except (OSError, ValueError) as error:
            raise CommandError(INTERNAL_ERROR, f"Node-RED's access token cannot be read: {error}") from error
        return {"Authorization": f"Bearer {token}"} if token else {}


def _read(response: httpx.Response) -> Any:
    if response.status_code == 409:
        raise RevisionConflict
    if response.status_code in (401, 403):
        raise CommandError(INTERNAL_ERROR, "Node-RED refuses: its access token is missing, wrong or may not do this")
    if response.status_code == 413:
        raise CommandError(INVALID_FLOW, "Node-RED refuses: larger than its apiMaxLength")
    try:
        answer = response.json() if response.content else {}
    except ValueError:
        answer = {}
    if response.is_success:
        return answer
    told = answer.get("message") or answer.get("code") if isinstance(answer, dict) else None
    code = INVALID_FLOW if response.status_code == 400 else INTERNAL_ERROR
    raise CommandError(code, f"Node-RED refuses: {told or response.status_code}")
