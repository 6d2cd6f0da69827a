"""Node-RED's editor as a person uses it: import, drag, *Deploy*, and what the debug sidebar shows."""

import json
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

from playwright.sync_api import Page, WebSocket, expect

LOAD_MS, CLICK_MS = 20_000, 10_000


class Red:
    """One tab with the editor. ``shots``: where screenshots go, numbered."""

    def __init__(self, page: Page, shots: Path) -> None:
        self.page, self._shots, self._number = page, shots, 0
        self._sockets: list[WebSocket] = []
        page.set_default_timeout(CLICK_MS)
        page.on("websocket", lambda made: self._sockets.append(made))  # Playwright marks what it calls

    def open(self, url: str) -> None:
        self.page.goto(url, timeout=LOAD_MS)
        self.loaded()

    def loaded(self) -> None:
        """The editor is there: its palette is filled, and nothing covers it."""
        expect(self.page.locator("#red-ui-palette .red-ui-palette-node").first).to_be_visible(timeout=LOAD_MS)
        expect(self.page.locator("#red-ui-loading-progress")).to_be_hidden(timeout=LOAD_MS)

    def import_flow(self, nodes: list[dict[str, Any]]) -> None:
        """Ctrl-I, paste, *Import*."""
        self.page.keyboard.press("Control+i")
        self.page.fill("#red-ui-clipboard-dialog-import-text", json.dumps(nodes))
        self.page.dispatch_event("#red-ui-clipboard-dialog-import-text", "keyup")
        self.page.click("#red-ui-clipboard-dialog-ok")

    def drag(self, kind: str, x: int, y: int) -> None:
        """A node from the palette onto the open tab, at pixels of its chart."""
        node = self.page.locator(f'.red-ui-palette-node[data-palette-type="{kind}"]')
        node.drag_to(self.page.locator("#red-ui-workspace-chart"), target_position={"x": x, "y": y})

    def rename(self, old: str, new: str) -> None:
        """Open a node's dialog, give it another name, *Done*."""
        self.page.locator(".red-ui-flow-node").filter(has_text=old).first.dblclick()
        self.page.fill("#node-input-name", new)
        self.page.click("#node-dialog-ok")
        expect(self.page.locator(".red-ui-flow-node").filter(has_text=new).first).to_be_visible()

    def show_tab(self, label: str) -> None:
        self.page.locator("#red-ui-workspace-tabs .red-ui-tab-label").filter(has_text=label).first.click()

    def deploy(self) -> None:
        self.page.click("#red-ui-header-button-deploy")

    def told(self, text: str) -> None:
        """A notification says so."""
        expect(self.page.locator(".red-ui-notification").filter(has_text=text).first).to_be_visible()

    def show_debug(self) -> None:
        self.page.keyboard.press("Control+g")
        self.page.keyboard.press("d")

    def debug_messages(self, text: str) -> int:
        return self.page.locator(".red-ui-debug-msg").filter(has_text=text).count()

    def hears(self, text: str, more_than: int = 0, timeout_ms: int = CLICK_MS) -> None:
        """More than so many messages with that text have come to the sidebar."""
        messages = self.page.locator(".red-ui-debug-msg").filter(has_text=text)
        expect(messages.nth(more_than)).to_be_attached(timeout=timeout_ms)

    def socket_closes(self, timeout: float) -> None:
        """The newest socket of the page is closed within so many seconds, by the other side."""
        deadline = time.monotonic() + timeout
        while not self._sockets[-1].is_closed():
            assert time.monotonic() < deadline, "the socket is still open"
            self.page.wait_for_timeout(50)  # lets Playwright hear of it

    def shot(self, name: str) -> Path:
        self._number += 1
        self.page.wait_for_timeout(400)  # notifications slide in
        path = self._shots / f"{self._number}-{name}.png"
        self.page.screenshot(path=path)
        return path


def ticking(label: str) -> list[dict[str, Any]]:
    """A tab that sends its label to the debug sidebar each second; ids are fresh."""
    tab, tick, show = (uuid4().hex[:16] for _ in range(3))
    return [
        {"id": tab, "type": "tab", "label": label},
        {"id": tick, "type": "inject", "z": tab, "name": "each second", "props": [{"p": "payload"}], "repeat": "1",
         "once": True, "onceDelay": 0.1, "payload": label, "payloadType": "str", "x": 200, "y": 120, "wires": [[show]]},
        {"id": show, "type": "debug", "z": tab, "name": "show", "active": True, "tosidebar": True,
         "complete": "payload", "targetType": "msg", "x": 460, "y": 120, "wires": []},
    ]  # fmt: skip
