"""Invariant S11, for those with time: what never comes does not hold a connection for ever.

The real waits, of up to two minutes: ``EDGEFLOW_TEST_PATIENCE=1`` runs them.
"""

import os
import socket
import time
from collections.abc import Callable

import pytest

from tests.edge_nodes.conftest import Scene
from tests.edge_nodes.hostile import Editor, Frame, read_page
from tests.tunnel.conftest import Later

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("gateways"),
    pytest.mark.skipif(
        "EDGEFLOW_TEST_PATIENCE" not in os.environ, reason="waits two minutes: EDGEFLOW_TEST_PATIENCE=1"
    ),
]


def _timed(call: Callable[[], object]) -> Later:
    """The answer, and the seconds that it took."""

    def run() -> tuple[object, float]:
        began = time.monotonic()
        return call(), time.monotonic() - began

    return Later(run)


def _by_path(device: Editor, request: Frame) -> None:
    """``/silent``: nothing. ``/endless``: a head and a first byte, and nothing more."""
    if request["target"] == "/endless":
        device.respond(request["id"])
        device.chunk(request["id"], b"a")


def test_what_never_comes_ends(scene: Scene) -> None:
    """A head within half a minute, a body's next byte within two; an upload that stands still is given up, too."""
    scene.device.script = _by_path
    silent = _timed(lambda: scene.tab.get("/silent", timeout=200))
    endless = _timed(lambda: scene.tab.get("/endless", timeout=200))

    def upload() -> object:
        with socket.create_connection(("127.0.0.1", scene.tab.port), 200) as sock:
            sock.sendall(scene.tab.head("POST", "/upload", length=1000) + b"half")
            return read_page(sock)

    stuck = _timed(upload)
    page, seconds = silent.result(60)
    assert page.status == 504
    assert 25 < seconds < 40
    page, seconds = endless.result(160)
    assert (page.status, page.whole) == (200, False)
    assert 110 < seconds < 140
    page, seconds = stuck.result(60)
    assert page.status in {0, 408, 502, 504}
    for request in scene.device.requests:
        assert scene.device.wait("cancel", request["id"], 15)
    scene.still_fine()
