"""WebSockets of editors: the handshake is checked, what follows are bytes, and each end learns of the other's."""

import os
import time

import pytest
import redis

from app.tunnel.link import NAME
from config.settings import settings
from tests.edge_nodes.editor.conftest import CHUNK, SWITCH, Setting, ended, head_of
from tests.edge_nodes.editor.test_sessions import echo

pytestmark = pytest.mark.xdist_group("editors")


@pytest.mark.parametrize("web", [0, 1], ids=["the process with the tunnel", "another process"])
def test_bytes_pass_as_they_are(setting: Setting, web: int) -> None:
    setting.connect(echo)
    sent, received = os.urandom(700_000), b""
    with setting.browser(web=web).socket() as wire:
        head = head_of(wire)
        assert head.startswith("HTTP/1.1 101")
        assert "sec-websocket-accept" in head.lower()
        for start in range(0, len(sent), 50_000):
            wire.sendall(sent[start : start + 50_000])
            while len(received) < min(start + 50_000, len(sent)) - 100_000:
                received += wire.recv(65536)
        while len(received) < len(sent):
            received += wire.recv(65536)
    assert received == sent


def test_the_device_gets_the_handshake_without_our_cookie(setting: Setting) -> None:
    device = setting.connect(echo)
    browser = setting.browser()
    with browser.socket("/comms", Cookie=f"a=b; {browser.cookie}", Sec_WebSocket_Protocol="x") as wire:
        head_of(wire)
    served = device.requests.get(timeout=5)
    assert served.request["upgrade"] is True
    assert served.headers["sec-websocket-version"] == "13"
    assert served.headers["cookie"] == "a=b"
    assert not {"upgrade", "connection", "host"} & served.headers.keys()


def test_a_handshake_that_does_not_fit_is_refused(setting: Setting) -> None:
    device = setting.connect()
    with setting.browser().socket() as wire:
        served = device.requests.get(timeout=5)
        served.head(101, *SWITCH[:2], ("Sec-WebSocket-Accept", "d3Jvbmc="))
        assert head_of(wire).startswith("HTTP/1.1 502")
        assert served.next()["type"] == "cancel"


def test_an_upgrade_that_the_device_declines_is_an_answer(setting: Setting) -> None:
    setting.connect(lambda served: served.answer(b"no", 400, ("Content-Length", "2")))
    with setting.browser().socket() as wire:
        assert head_of(wire).startswith("HTTP/1.1 400")
        assert wire.recv(10) == b"no"


def test_a_plain_request_cannot_be_switched(setting: Setting) -> None:
    device = setting.connect()
    with setting.browser().dial("/") as wire:
        served = device.requests.get(timeout=5)
        served.head(101, *SWITCH)
        assert served.next()["code"] == "PROTOCOL"
        assert head_of(wire).startswith("HTTP/1.1 502")


def test_each_end_learns_that_the_other_has_gone(setting: Setting) -> None:
    device = setting.connect()
    browser = setting.browser()
    with browser.socket() as wire:
        served = device.requests.get(timeout=5)
        served.head(101, *SWITCH)
        head_of(wire)
        served.chunk(b"bye", end=True)
        assert wire.recv(10) == b"bye"
        assert wire.recv(10) == b""
    with browser.socket() as wire:
        served = device.requests.get(timeout=5)
        served.head(101, *SWITCH)
        head_of(wire)
    frame = served.next()
    assert frame["type"] == "cancel" or frame["end"] is True


def test_a_tunnel_that_ends_ends_its_sockets(setting: Setting) -> None:
    device = setting.connect(echo)
    with setting.browser(web=1).socket() as wire:
        head_of(wire)
        device.close()
        assert ended(wire, 3)


def test_a_link_that_is_cut_ends_what_went_over_it_and_nothing_else(setting: Setting) -> None:
    setting.connect(echo)
    with setting.browser(web=1).socket() as over, setting.browser(web=0).socket() as here:
        head_of(over), head_of(here)
        with redis.Redis.from_url(settings().redis_url) as bus:
            for one in bus.client_list():
                if one["name"] == NAME:
                    bus.client_kill_filter(_id=one["id"])
        assert ended(over, 3)
        here.sendall(b"still here")
        assert here.recv(100) == b"still here"


@pytest.mark.parametrize("dies", ["web0", "web1"], ids=["with the tunnel", "with the browser"])
def test_a_process_that_is_killed_ends_what_went_through_it(setting: Setting, dies: str) -> None:
    device = setting.connect()
    browser = setting.browser(web=1)
    with browser.dial("/large") as wire:
        served = device.requests.get(timeout=5)
        served.head()
        served.chunk(b"x" * CHUNK)
        head_of(wire)
        setting.gateways.kill(dies)
        try:
            if dies == "web0":
                content = b""
                wire.settimeout(6)
                while part := wire.recv(65536):
                    content += part
                assert not content.endswith(b"0\r\n\r\n")
            else:
                began = time.monotonic()
                assert served.next(timeout=8)["type"] == "cancel"
                assert time.monotonic() - began < 6
        finally:
            setting.gateways.start(dies)
            setting.gateways.wait_ready()
