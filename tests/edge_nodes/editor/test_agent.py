"""Browser, platform and the real agent: several people and devices, an editor below a path, and one that is slow."""

import asyncio
import base64
import hashlib
import os
import time
from asyncio import StreamReader, StreamWriter

import pytest

from agent import proxy_stream
from tests.agent.editors import Asked, Serve
from tests.edge_nodes.editor.agent import parts_of, real_agent
from tests.edge_nodes.editor.conftest import ACCEPT, Browser, Setting, head_of
from tests.edge_nodes.editor.several import OneBrowser, Talk, at_once, download, marked, upload

pytestmark = pytest.mark.xdist_group("editors")

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SIZE = 600_000


def shop(name: str) -> Serve:
    """An editor: ``/down/<who>`` gives marked bytes, ``/up/<who>`` says whether it got those, a socket is echoed."""

    async def serve(asked: Asked, reader: StreamReader, writer: StreamWriter) -> None:
        method, target = parts_of(asked)
        if asked.get("upgrade"):
            accept = base64.b64encode(hashlib.sha1((asked.get("sec-websocket-key")[0] + GUID).encode()).digest())
            writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                         b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n" + f"{name}\n".encode())  # fmt: skip
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
            return
        content = marked(f"{name}/{target.rpartition('/')[2]}", SIZE)
        if method == "POST":
            got = await reader.readexactly(int(asked.get("content-length")[0]))
            content = f"{name} {got == content}".encode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
        await writer.drain()

    return serve


def work(browser: Browser, name: str, who: str) -> list[bool]:
    """All at once in one browser; whether each part got its own bytes."""
    talk, said = Talk(browser), marked(f"{who}-talk", SIZE // 2)

    def fetched(number: int) -> bool:
        return download(browser, f"/down/{who}-{number}") == marked(f"{name}/{who}-{number}", SIZE)

    def sent(number: int) -> bool:
        return upload(browser, f"/up/{who}-{number}", marked(f"{name}/{who}-{number}", SIZE)) == f"{name} True"

    calls = [lambda: (talk.device, talk.say(said)) == (f"{name}\n".encode(), said)]
    calls += [lambda number=number: fetched(number) for number in (1, 2)]
    calls += [lambda number=number: sent(number) for number in (3, 4)]
    done = at_once(calls)
    talk.close()
    return done


def test_four_people_at_two_agents_get_each_devices_and_their_own_bytes(setting: Setting) -> None:
    """Each of them has both editors open; the agents are at different web processes."""
    beside = setting.beside()
    with real_agent(setting, shop("pump")), real_agent(beside, shop("fan"), web=1):
        places = [(setting, "pump"), (beside, "fan")]
        open_ones = [(place.browser(web=n % 2), name, f"p{n}") for n in range(4) for place, name in places]
        calls = [lambda one=one: work(*one) for one in open_ones]
        assert at_once(calls) == [[True] * 5] * 8


def test_an_editor_below_a_path_stands_at_the_root_for_the_browser(setting: Setting) -> None:
    """Pages, redirects of every form, cookies, sockets: all as if there were no path."""
    person = OneBrowser()

    async def serve(asked: Asked, reader: StreamReader, writer: StreamWriter) -> None:
        _, target = parts_of(asked)
        seen = f"{asked.get('x-forwarded-proto')[0]}://{asked.get('x-forwarded-host')[0]}"
        own = f"http://{asked.get('host')[0]}"
        answers = {
            "/admin/": ["200 OK", "Set-Cookie: sid=1; Path=/admin; HttpOnly"],
            "/admin/to/path": ["302 Found", "Location: /admin/whoami"],
            "/admin/to/own": ["302 Found", f"Location: {own}/admin/whoami"],
            "/admin/to/seen": ["302 Found", f"Location: {seen}/admin/whoami"],
            "/admin/whoami": ["200 OK"],
        }
        status, *lines = answers.get(target, ["404 Not Found"])
        if asked.get("upgrade") and target == "/admin/comms":
            status, lines = "101 Switching Protocols", [
                "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {ACCEPT}"
            ]  # fmt: skip
        body = "" if status.startswith("101") else ",".join(asked.get("cookie"))
        length = [] if status.startswith("101") else [f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([f"HTTP/1.1 {status}", *lines, *length, "", body]).encode())
        if status.startswith("101"):
            writer.write(b"listening")
            await reader.read()

    with real_agent(setting, serve, path="/admin") as server:
        origin = person.open(setting.link())
        assert person.http.get(f"{origin}/").status_code == 200
        for form in ("path", "own", "seen"):
            answer = person.http.get(f"{origin}/to/{form}", follow_redirects=True)
            assert (answer.status_code, answer.url, answer.text) == (200, f"{origin}/whoami", "sid=1")
        assert person.http.get(f"{origin}/admin/").status_code == 404  # /admin/admin/ over there
        with setting.browser(web=1).socket("/comms") as wire:
            assert head_of(wire).startswith("HTTP/1.1 101")
            assert wire.recv(100) == b"listening"
        assert {parts_of(one)[1] for one in server.asked} == {
            "/admin/", "/admin/to/path", "/admin/to/own", "/admin/to/seen", "/admin/whoami", "/admin/admin/",
            "/admin/comms",
        }  # fmt: skip
    person.close()


def late(seconds: float) -> Serve:
    """A server that reads the whole request, and begins its answer much later."""

    async def serve(asked: Asked, reader: StreamReader, writer: StreamWriter) -> None:
        await reader.readexactly(int((asked.get("content-length") or ["0"])[0]))
        await asyncio.sleep(seconds)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ninstalled")
        await writer.drain()

    return serve


@pytest.mark.parametrize("web", [0, 1], ids=["the process with the tunnel", "another process"])
def test_a_late_answer_arrives_and_one_too_late_is_told(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, web: int
) -> None:
    """The agent says that it waits, and it alone decides for how long."""
    monkeypatch.setattr(proxy_stream, "TELL_SECONDS", 0.1)
    with real_agent(setting, late(1.5), editor_timeout=3.0):
        assert setting.browser(web=web)("POST", "/nodes", content=b"{}").text == "installed"
    hasty = setting.beside()
    with real_agent(hasty, late(5), editor_timeout=0.5):
        answer = hasty.browser(web=web)("POST", "/nodes", content=b"{}")
        assert answer.status_code == 504
        assert "It may still be doing what it was asked" in answer.text


@pytest.mark.slow
@pytest.mark.skipif("EDGEFLOW_TEST_PATIENCE" not in os.environ, reason="waits minutes: EDGEFLOW_TEST_PATIENCE=1")
@pytest.mark.parametrize("web", [0, 1], ids=["the process with the tunnel", "another process"])
def test_an_installation_of_minutes_is_waited_for_with_the_real_limits(setting: Setting, web: int) -> None:
    """Longer than all that ends a stream which stands still: 30 s without a word, 120 s without a byte."""
    with real_agent(setting, late(135)):
        began = time.monotonic()
        answer = setting.browser(web=web)("POST", "/nodes", content=b"{}", timeout=200)
        assert (answer.status_code, answer.text) == (200, "installed")
        assert time.monotonic() - began > 130
