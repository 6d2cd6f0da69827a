"""A browser, the cloud and a device's editor: requests and answers arrive as they were sent, whole and in pieces."""

import os
import time
from typing import Any

import pytest

from tests.e2e.conftest import until
from tests.edge_nodes.editor.conftest import CHUNK, WINDOW, Served, Setting, head_of
from tests.tunnel.conftest import V2, Device

pytestmark = pytest.mark.xdist_group("editors")


@pytest.mark.parametrize("web", [0, 1], ids=["the process with the tunnel", "another process"])
def test_a_page_comes_from_the_device(setting: Setting, web: int) -> None:
    seen: list[Any] = []

    def serve(served: Served) -> None:
        seen.append(served.request)
        served.answer(b"<h1>flows</h1>", 200, ("Content-Type", "text/html"), ("Content-Length", "14"))

    setting.connect(serve)
    browser = setting.browser(web=web)
    answer = browser("GET", "/red/%7Esettings?a=1&b=%20")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "<h1>flows</h1>", "text/html")
    assert (seen[0]["method"], seen[0]["target"], seen[0]["body"]) == ("GET", "/red/%7Esettings?a=1&b=%20", False)


@pytest.mark.parametrize("web", [0, 1], ids=["the process with the tunnel", "another process"])
def test_bodies_of_megabytes_pass_both_ways(setting: Setting, web: int) -> None:
    sent, wanted = os.urandom(3_000_001), os.urandom(3_000_001)

    def serve(served: Served) -> None:
        served.read()
        served.answer(wanted, 200, ("Content-Length", str(len(wanted))), ("X-Got", str(served.received == sent)))

    setting.connect(serve)
    answer = setting.browser(web=web)("POST", "/flows", content=sent)
    assert (answer.headers["x-got"], answer.content == wanted) == ("True", True)


def test_the_beginning_of_an_answer_is_there_before_its_end(setting: Setting) -> None:
    device = setting.connect()
    browser = setting.browser()
    with browser.dial("/events") as wire:
        served = device.requests.get(timeout=5)
        served.head(200, ("Content-Type", "text/event-stream"))
        served.chunk(b"data: 1\n\n")
        assert "text/event-stream" in head_of(wire)
        assert wire.recv(100) == b"9\r\ndata: 1\n\n\r\n"
        served.chunk(b"", end=True)
        assert wire.recv(100) == b"0\r\n\r\n"


def test_the_beginning_of_a_request_is_there_before_its_end(setting: Setting) -> None:
    device = setting.connect()
    with setting.browser().dial("/upload", method="POST", Content_Length=str(2 * CHUNK)) as wire:
        wire.sendall(b"a" * CHUNK)
        served = device.requests.get(timeout=5)
        assert served.headers["content-length"] == str(2 * CHUNK)
        assert len(served.next()["data"]) > CHUNK
        wire.sendall(b"b" * CHUNK)
        served.read()
        served.answer(b"taken")
        assert head_of(wire).startswith("HTTP/1.1 200")


def test_answers_without_bodies_and_the_next_request_on_the_connection(setting: Setting) -> None:
    def serve(served: Served) -> None:
        status = int(served.request["target"].strip("/"))
        served.answer(b"", status, *([("Content-Length", "7")] if served.request["method"] == "HEAD" else []))

    setting.connect(serve)
    browser = setting.browser()
    for method, status in (("GET", 204), ("GET", 304), ("HEAD", 200), ("DELETE", 204), ("GET", 404), ("GET", 500)):
        answer = browser(method, f"/{status}")
        assert (answer.status_code, answer.content) == (status, b"")


def test_an_answer_that_comes_before_the_body_has_ended(setting: Setting) -> None:
    device = setting.connect()
    with setting.browser().dial("/upload", method="POST", Content_Length="10000000") as wire:
        wire.sendall(b"a" * CHUNK)
        served = device.requests.get(timeout=5)
        served.answer(b"too large", 413, ("Content-Length", "9"))
        assert head_of(wire).startswith("HTTP/1.1 413")
        assert wire.recv(100) == b"too large"
        assert wire.recv(100) == b""  # nobody knows where a next request would begin
    frames = [served.next(), served.next()]
    assert frames[-1]["type"] == "cancel"


@pytest.mark.parametrize(
    ("told", "sent"), [("10", b"five!"), ("3", b"five!"), (None, None)], ids=["less", "more", "cancelled"]
)
def test_an_answer_that_breaks_off_does_not_look_whole(setting: Setting, told: str | None, sent: bytes | None) -> None:
    device = setting.connect()
    browser = setting.browser()
    with browser.dial("/file") as wire:
        served = device.requests.get(timeout=5)
        served.head(200, *([("Content-Length", told)] if told else []))
        served.chunk(sent or b"begins")
        if told:
            served.chunk(b"", end=True)
        else:
            served.send("cancel", code="CLOSED", error="gone")
        received = b""
        while part := wire.recv(1000):
            received += part
    head, _, content = received.partition(b"\r\n\r\n")
    whole = len(content) == int(told) if told else content.endswith(b"0\r\n\r\n")
    assert not whole, (head, content)


@pytest.mark.parametrize(
    ("code", "status"), [("UNREACHABLE", 502), ("REFUSED", 502), ("TIMEOUT", 504), ("nonsense", 502)]
)
def test_what_goes_wrong_at_the_device_is_a_page(setting: Setting, code: str, status: int) -> None:
    setting.connect(lambda served: served.send("cancel", code=code, error="<script>alert(1)</script>"))
    answer = setting.browser()("GET", "/")
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "<script" not in answer.text
    assert "http" not in answer.text


def test_a_device_that_is_offline_or_offers_no_editor(setting: Setting) -> None:
    device = setting.connect(lambda served: served.answer())
    browser = setting.browser()
    device.close()
    link = f"/edge-nodes/{setting.device.id}/editor-url"
    offline = until(lambda: (answer := setting.api("GET", link)).status_code != 200 and answer, timeout=5)
    assert (offline.status_code, offline.json()["code"]) == (503, "DEVICE_OFFLINE")
    answer = browser("GET", "/")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "30")
    plain = Device(setting.gateways.url(), setting.device.id, setting.key, **V2)
    assert setting.api("GET", link).json()["code"] == "NOT_SUPPORTED_BY_DEVICE"
    assert browser("GET", "/").status_code == 501
    plain.close()


def test_a_device_that_sends_beyond_the_window_loses_the_stream_and_not_the_tunnel(setting: Setting) -> None:
    device = setting.connect()
    browser = setting.browser()
    with browser.dial("/flood", receive_buffer=4096) as wire:
        served = device.requests.get(timeout=5)
        served.head()
        frames = []
        for _ in range(
            60 * WINDOW // CHUNK
        ):  # the browser reads nothing, so the kernels' buffers are all that is taken
            served.chunk(b"x" * CHUNK)
        while not frames or frames[-1]["type"] != "cancel":
            frames.append(served.next())
        assert frames[-1]["code"] == "PROTOCOL"
        assert wire.recv(10).startswith(b"HTTP/1.1 2")
    assert setting.api("GET", f"/edge-nodes/{setting.device.id}/health").status_code == 200


def test_a_slow_browser_holds_the_device_back(setting: Setting) -> None:
    device = setting.connect()
    with setting.browser().dial("/large", receive_buffer=4096) as wire:
        served = device.requests.get(timeout=5)
        served.head()
        sent = 0
        while True:
            if served.may_send < CHUNK:
                try:
                    served.may_send += served.next(timeout=1)["bytes"]
                except Exception:
                    break
            else:
                served.may_send -= CHUNK
                served.chunk(b"x" * CHUNK)
                sent += CHUNK
        assert WINDOW <= sent < 8 * 1024 * 1024  # what the kernel holds, and one window
        wire.recv(10)


def test_a_slow_device_holds_the_browser_back(setting: Setting) -> None:
    device = setting.connect()
    with setting.browser().dial("/upload", method="POST", Content_Length="50000000") as wire:
        wire.setblocking(False)
        pushed, quiet = 0, time.monotonic()
        while time.monotonic() - quiet < 1:
            try:
                pushed += wire.send(b"x" * 65536)
                quiet = time.monotonic()
            except BlockingIOError:
                time.sleep(0.02)
        served = device.requests.get(timeout=5)
        arrived = device.streams[served.id].qsize()
        assert arrived == WINDOW // CHUNK
        assert pushed < 12_000_000


def test_credit_that_was_not_earned_ends_the_stream(setting: Setting) -> None:
    device = setting.connect()
    with setting.browser().dial("/") as wire:
        served = device.requests.get(timeout=5)
        served.send("credit", bytes=10)
        assert served.next()["code"] == "PROTOCOL"
        assert head_of(wire).startswith("HTTP/1.1 502")
