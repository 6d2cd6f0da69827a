"""A device with a real Node-RED, two web processes, and Chromium; without Chromium these tests are skipped."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from playwright.sync_api import Browser, sync_playwright

from tests import make
from tests.agent.nodered.conftest import nodered_home
from tests.agent.nodered.instance import NodeRed
from tests.browser.red import Red
from tests.edge_nodes.hostile import until
from tests.platform import ROOT, TLS, Platform

__all__ = ["nodered_home"]

FLAGS = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]  # fmt: skip
PASSWORD = "correct horse battery staple"


class House:
    """The platform, the agent beside Node-RED as its device, and people who open the editor at the second process.

    One ``beside`` another is a second device of the same organization, whose tunnel is at the second process.
    """

    def __init__(self, folder: Path, nodered: NodeRed, beside: "House | None" = None) -> None:
        self.folder, self.nodered, self._beside = folder, nodered, beside
        self.platform = beside.platform if beside else Platform(folder, web=2)
        self.email = f"{uuid4().hex[:12]}@example.com"
        self.api = httpx.Client(base_url=f"{self.platform.url(1)}/api/v1", timeout=30, verify=TLS)
        self._agent: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "House":
        try:
            self._move_in()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _move_in(self) -> None:
        if self._beside:
            self.org = self._beside.org
        else:
            self._found()
        self.api.headers["X-API-Key"] = make.api_key(self.org)
        made = self.api.post("/devices", json={"name": "pump"}).raise_for_status().json()
        self.device_id = made["id"]
        self._start_agent(made["provisioning_code"])
        self.ask("PUT", f"/devices/{self.device_id}/shadow", {"desired": {"report_interval": 1}})

    def _found(self) -> None:
        self.platform.__enter__()
        registered = self._post("/auth/register", {"email": self.email, "password": PASSWORD, "name": "Ada",
                                                   "organization_name": "Acme"})  # fmt: skip
        self.org = UUID(registered["organization"]["id"])

    def __exit__(self, *_error: object) -> None:
        self.api.close()
        if self._agent:
            self._agent.terminate()
            self._agent.wait(10)
        if not self._beside:
            self.platform.__exit__(None, None, None)

    def sign_in(self) -> str:
        """An access token of the owner, of a session of its own."""
        token: str = self._post("/auth/login", {"email": self.email, "password": PASSWORD})["access_token"]
        return token

    def editor_url(self, role: str = "operator", token: str = "") -> str:
        """Where the editor is, as an API key of that role, or a signed-in user, is told."""
        headers = {"Authorization": f"Bearer {token}"} if token else {"X-API-Key": make.api_key(self.org, role)}
        answer = httpx.get(
            f"{self.platform.url(1)}/api/v1/edge-nodes/{self.device_id}/editor-url", headers=headers, verify=TLS
        )
        url: str = answer.raise_for_status().json()["url"]
        return url

    def deploy(self, name: str, nodes: list[dict[str, Any]] | None = None) -> str:
        """A new flow, published and deployed to the device by the cloud; its id."""
        watch = {
            "id": "watch",
            "type": "inject",
            "name": "each minute",
            "config": {"repeat": "60"},
            "wires": [["show"]],
        }
        nodes = nodes or [watch, {"id": "show", "type": "debug"}]
        flow_id: str = self.ask("POST", "/flows", {"name": name, "definition": {"nodes": nodes}})["id"]
        self.ask("POST", f"/flows/{flow_id}/publish")
        target = {"device_ids": [self.device_id]}
        made = self.ask("POST", "/deployments", {"flow_id": flow_id, "target": target, "start": True})
        until(lambda: self.ask("GET", f"/deployments/{made['id']}")["status"] == "succeeded", 30)
        until(lambda: bool(self.running(flow_id)), 30)
        return flow_id

    def running(self, flow_id: str) -> Any:
        """What the device reports to run of a flow."""
        reported = self.ask("GET", f"/devices/{self.device_id}/shadow")["reported"]
        return reported.get("flows", {}).get(flow_id)

    def drift(self) -> Any:
        """Where the device runs something else than was deployed to it, as its detail says."""
        return self.ask("GET", f"/devices/{self.device_id}")["drift"]

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self.api.request(method, path, json=body)
        assert answer.is_success, answer.text
        return answer.json()

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return (
            httpx.post(f"{self.platform.url(0)}/api/v1{path}", json=body, timeout=30, verify=TLS)
            .raise_for_status()
            .json()
        )

    def _start_agent(self, code: str) -> None:
        url = self.platform.url(1 if self._beside else 0)
        command = [sys.executable, "-m", "agent", "run", "--url", url, "--provisioning-code", code,
                   "--state-dir", str(self.folder / "agent"), "--driver", "nodered",
                   "--runtime-url", self.nodered.url]  # fmt: skip
        with (self.folder / "agent.log").open("wb") as log:
            self._agent = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while self.api.get(f"/devices/{self.device_id}/status").json()["status"] != "online":
            if time.monotonic() > deadline or self._agent.poll() is not None:
                raise TimeoutError((self.folder / "agent.log").read_text())
            time.sleep(0.1)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """Debian's, or whatever is called so; Playwright's own download is not needed.

    No longer than for one module: its event loop runs in this thread, where tests after it want to run their own.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if not path:
        pytest.skip("no Chromium here (Debian: apt-get install chromium)")
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else FLAGS
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def house(
    chromium: Browser, app: object, nodered_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("browser")
    with NodeRed(nodered_home, folder / "nodered") as nodered, House(folder, nodered) as running:
        yield running


@pytest.fixture
def red(chromium: Browser, tmp_path: Path) -> Iterator[Red]:
    """A fresh profile, as another person's browser; its screenshots are in the test's folder."""
    with chromium.new_context(viewport={"width": 1280, "height": 800}) as context:
        yield Red(context.new_page(), tmp_path)
