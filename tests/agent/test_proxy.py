"""The editor's streams as they should be: requests, bodies, WebSockets, their windows, their end."""

import asyncio
import hashlib
import json
import os
from dataclasses import replace

import pytest
import websockets
from websockets.client import ClientProtocol
from websockets.frames import Opcode
from websockets.uri import parse_uri

from agent import proxy_stream
from tests.agent.cloud import Cloud
from tests.agent.editors import WINDOW, Far, edited, local_server, run, writing
from tests.agent.support import QUICK, until

OK = b"HTTP/1.1 200 OK\r\n"


def test_a_request_and_its_answer_cross_with_what_belongs_to_them_alone():
    answer = OK + b"Content-Type: text/html\r\nContent-Length: 5\r\nConnection: X-Hop, close\r\nX-Hop: 1\r\n"
    answer += b"Keep-Alive: 5\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Name: caf\xe9\r\n\r\nhello"

    async def work():
        async with local_server(answer) as server, edited(server.url) as far:
            sent = [["Accept", "*/*"], ["Cookie", "own=1"], ["Connection", "X-Drop"], ["X-Drop", "1"], ["TE", "x"]]
            sent += [["Host", "edge.example"], ["Expect", "100-continue"], ["X-Umlaut", "\xfc"], ["Upgrade", "h2c"]]
            flow = await far.fetch("GET", "/a%20b?c=d//e", sent)
            assert (flow.head["status"], flow.head["window"], bytes(flow.data)) == (200, WINDOW, b"hello")
            assert flow.header("content-length") == ["5"]
            assert flow.header("set-cookie") == ["a=1", "b=2"]
            assert flow.header("x-name") == ["caf\xe9"]
            assert not any(flow.header(name) for name in ("connection", "x-hop", "keep-alive"))
            [asked] = server.asked
            assert asked.line == "GET /a%20b?c=d//e HTTP/1.1"
            assert asked.get("host") == [server.url.removeprefix("http://")]
            assert (asked.get("cookie"), asked.get("x-umlaut")) == (["own=1"], ["\xfc"])
            assert asked.get("connection") == ["close"]
            assert not any(asked.get(name) for name in ("x-drop", "te", "expect", "upgrade", "transfer-encoding"))

    run(work)


@pytest.mark.parametrize(
    ("method", "answer", "body"),
    [
        (
            "GET",
            OK + b"Transfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
            b"abcde",
        ),
        ("GET", OK + b"\r\nuntil it closes", b"until it closes"),
        ("GET", b"HTTP/1.0 200 OK\r\n\r\nold", b"old"),
        ("GET", OK + b"Content-Length: 3\r\n\r\nabcdef", b"abc"),
        ("HEAD", OK + b"Content-Length: 1000\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", b""),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK + b"\r\nx", b"x"),
        ("GET", b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", b"no"),
    ],
)
def test_every_way_to_say_where_a_body_ends(method, answer, body):
    async def work():
        async with local_server(answer) as server, edited(server.url) as far:
            flow = await far.fetch(method)
            assert (bytes(flow.data), flow.ended, flow.cancel) == (body, True, None)
            assert not flow.header("transfer-encoding")
            if b"chunked" in answer:
                assert not flow.header("content-length")

    run(work)


@pytest.mark.parametrize("length", [True, False])
def test_a_body_streams_to_the_local_server(length):
    body = os.urandom(3_000_000)

    async def serve(asked, reader, writer):
        if asked.get("content-length"):
            data = await reader.readexactly(int(asked.get("content-length")[0]))
        else:
            assert asked.get("transfer-encoding") == ["chunked"]
            data = b""
            while size := int(await reader.readline(), 16):
                data += (await reader.readexactly(size + 2))[:-2]
        writer.write(OK + b"\r\n" + hashlib.sha256(data).hexdigest().encode())

    async def work():
        async with local_server(serve) as server, edited(server.url) as far:
            flow = far.open("POST", "/", [["Content-Length", str(len(body))]] if length else [], body=True)
            await far.upload(flow, body)
            await far.over(flow)
            assert flow.data.decode() == hashlib.sha256(body).hexdigest()
            assert flow.granted <= len(body)

    run(work)


def test_a_post_without_a_body_says_so():
    async def work():
        async with local_server(OK + b"\r\n") as server, edited(server.url) as far:
            await far.fetch("POST")
            assert server.asked[0].get("content-length") == ["0"]

    run(work)


def test_an_answer_may_come_before_the_body_has_gone():
    async def work():
        refusing = writing(b"HTTP/1.1 413 No\r\nContent-Length: 4\r\n\r\nlong", linger=0.3)
        async with local_server(refusing) as server, edited(server.url) as far:
            flow = far.open("PUT", "/", body=True)
            far.chunk(flow, b"x" * 1000)
            await far.over(flow)
            assert (flow.head["status"], bytes(flow.data)) == (413, b"long")
            far.chunk(flow, b"late", end=True)
            assert (await far.link.ask("health_check"))["status"] == "success"
            assert flow.cancel is None

    run(work)


def test_bytes_are_credited_only_when_the_local_server_has_taken_them():
    reads = asyncio.Event()

    async def serve(asked, reader, writer):
        await reads.wait()
        await reader.readexactly(6_000_000)
        writer.write(OK + b"\r\n")

    async def work():
        async with local_server(serve) as server, edited(server.url) as far:
            flow, sent = far.open("POST", "/", [["Content-Length", "6000000"]], body=True), 0
            while sent - flow.granted + 30_000 <= WINDOW:
                far.chunk(flow, bytes(30_000), end=(sent := sent + 30_000) == 6_000_000)
                await until_quiet(far, flow, sent)
            # What two sockets' buffers hold has been taken; the window behind them stays full.
            assert 0 < sent < 6_000_000
            assert sent - flow.granted > WINDOW - 30_000
            reads.set()
            while sent < 6_000_000:
                await far.until(lambda: sent - flow.granted + 30_000 <= WINDOW)
                far.chunk(flow, bytes(30_000), end=(sent := sent + 30_000) == 6_000_000)
            assert (await far.over(flow)).head["status"] == 200

    run(work)


async def until_quiet(far, flow, sent):
    """Wait for the credit of what was sent, or until none comes any more."""
    try:
        await far.until(lambda: sent - flow.granted + 30_000 <= WINDOW, 0.3)
    except TimeoutError:
        return


def test_a_slow_cloud_is_never_ahead_of_its_window():
    size = 5_000_000

    async def serve(asked, reader, writer):
        writer.write(OK + f"Content-Length: {size}\r\n\r\n".encode())
        for _ in range(size // 50_000):
            writer.write(b"x" * 50_000)
            await writer.drain()
            server.written += 50_000

    server = None

    async def work():
        nonlocal server
        async with local_server(serve) as server, edited(server.url) as far:
            server.written, far.credits = 0, False
            flow = far.open()
            await far.until(lambda: flow.received == WINDOW)
            await asyncio.sleep(0.2)
            assert flow.received == WINDOW
            paused = server.written
            await asyncio.sleep(0.2)
            assert server.written == paused < size  # the pressure reaches the local server
            far.credit(flow, 1000)
            await far.until(lambda: flow.received == WINDOW + 1000)
            far.credits = True
            far.credit(flow, WINDOW)
            await far.over(flow)
            assert flow.received == size

    run(work)


def test_streams_take_turns():
    async def work():
        async with local_server(OK + b"\r\n" + b"x" * 2_000_000) as server, edited(server.url) as far:
            flows = [far.open() for _ in range(4)]
            for flow in flows:
                await far.over(flow)
            middle = far.order[len(far.order) // 4 : len(far.order) // 2]
            shares = [middle.count(flow.id) / len(middle) for flow in flows]
            assert min(shares) > 0.15, shares

    run(work)


def test_a_small_answer_does_not_wait_for_large_ones():
    async def serve(asked, reader, writer):
        writer.write(OK + b"\r\n" + (b"small" if "small" in asked.line else b"x" * 20_000_000))
        await writer.drain()

    async def work():
        async with local_server(serve) as server, edited(server.url) as far:
            far.keeps = False
            large = [far.open() for _ in range(3)]
            await far.until(lambda: all(flow.received > 500_000 for flow in large))
            flow = await far.fetch("GET", "/small")
            assert flow.received == 5
            assert not any(other.over for other in large)

    run(work)


# WebSockets


class Browser:
    """The browser's end of a WebSocket through the tunnel: real frames by the library, no socket."""

    def __init__(self, far, path="/comms"):
        self.protocol = ClientProtocol(parse_uri(f"ws://edge.example{path}"))
        request = self.protocol.connect()
        self.far, self.messages, self._seen = far, [], 0
        headers = [[key, value] for key, value in request.headers.raw_items()]
        self.flow = far.open("GET", path, headers, upgrade=True)
        self._handshake = request

    async def opened(self):
        await self.far.until(lambda: self.flow.head or self.flow.over)
        status, headers = self.flow.head["status"], self.flow.head["headers"]
        lines = [f"HTTP/1.1 {status} X", "Connection: Upgrade", "Upgrade: websocket"]
        lines += [f"{key}: {value}" for key, value in headers]
        self.protocol.send_request(self._handshake)
        self.protocol.data_to_send()
        self.protocol.receive_data("\r\n".join([*lines, "", ""]).encode())
        self.protocol.events_received()
        assert self.protocol.handshake_exc is None
        return self

    def send(self, text):
        self.protocol.send_text(text.encode())
        self.flush()

    def flush(self):
        for data in self.protocol.data_to_send():
            for start in range(0, len(data), 32768):
                self.far.chunk(self.flow, data[start : start + 32768])

    async def recv(self):
        while not self.messages:
            await self.far.until(lambda: len(self.flow.data) > self._seen or self.flow.over)
            assert len(self.flow.data) > self._seen, "closed"
            self.protocol.receive_data(bytes(self.flow.data[self._seen :]))
            self._seen = len(self.flow.data)
            events = self.protocol.events_received()
            self.messages += [event for event in events if event.opcode in (Opcode.TEXT, Opcode.CLOSE)]
            self.flush()
        return self.messages.pop(0)


async def echoing(socket):
    await socket.send(json.dumps({"path": socket.request.path, "host": socket.request.headers["Host"]}))
    async for message in socket:
        await socket.send(message)
        if message == "bye":
            await socket.close(4000, "bye")


def websocket_server(**more):
    return websockets.serve(echoing, "127.0.0.1", 0, compression=None, **more)


def address(server):
    return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def test_a_websocket_goes_both_ways_and_ends_with_either_side():
    async def work():
        async with websocket_server() as server, edited(address(server)) as far:
            browser = await Browser(far).opened()
            first = json.loads((await browser.recv()).data)
            assert first == {"path": "/comms", "host": address(server).removeprefix("http://")}
            for text in ("hello", "ü" * 100_000):
                browser.send(text)
                assert (await browser.recv()).data.decode() == text
            other = await Browser(far).opened()
            await other.recv()
            browser.send("bye")
            assert (await browser.recv()).data == b"bye"
            assert (await browser.recv()).opcode is Opcode.CLOSE
            browser.flush()
            await far.until(lambda: browser.flow.over)
            assert browser.flow.cancel is None
            far.chunk(other.flow, b"", end=True)
            await until(lambda: not server.connections)
            await until(lambda: far.device._editing.proxy.active == 0)
            assert not other.flow.over

    run(work)


def test_a_server_that_compares_origin_and_host_finds_them_alike():
    def same_origin(connection, request):
        """As the gorilla/websocket library does unless it is told otherwise."""
        same = request.headers["Origin"] == f"http://{request.headers['Host']}"
        return None if same else connection.respond(403, "another origin")

    async def work():
        async with websocket_server(process_request=same_origin) as server, edited(address(server)) as far:
            sent = [["X-Forwarded-Proto", "https"], ["X-Forwarded-Host", "d.edit.example"]]
            sent += [["Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="], ["Sec-WebSocket-Version", "13"]]
            origins = ("https://d.edit.example", "https://evil.example", "http://d.edit.example")
            flows = [far.open("GET", "/", [*sent, ["Origin", origin]], upgrade=True) for origin in origins]
            await far.until(lambda: all(flow.head for flow in flows))
            assert [flow.head["status"] for flow in flows] == [101, 403, 403]

    run(work)


def test_a_refused_upgrade_is_an_ordinary_answer():
    async def work():
        async with local_server(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno") as server, edited(server.url) as far:
            flow = await far.fetch("GET", "/", upgrade=True)
            assert (flow.head["status"], bytes(flow.data), flow.cancel) == (403, b"no", None)
            assert server.asked[0].get("upgrade") == ["websocket"]
            assert server.asked[0].get("connection") == ["Upgrade"]

    run(work)


# Beginning and end


def test_only_a_device_with_an_editor_offers_one():
    async def work():
        async with Cloud() as cloud:
            for url in (None, "http://127.0.0.1:1880", "http://169.254.1.1"):
                async with edited(url, cloud):
                    pass
            assert ["http_proxy" in connect["capabilities"] for connect in cloud.connects] == [False, True, True]

    run(work)


def test_a_device_without_an_editor_pays_nothing_and_refuses_streams():
    async def work():
        async with edited(None) as far:
            assert far.device._editing.proxy is None
            assert (await far.fetch()).cancel["code"] == "REFUSED"

    run(work)


def test_the_cloud_may_move_the_editor():
    """A first address offers the capability by a new connection; another ends the streams that lead to the former."""

    async def serve(asked, reader, writer):
        writer.write(OK + b"\r\nfirst")
        await reader.read()

    async def work():
        async with Cloud() as cloud, local_server(serve) as first, local_server(OK + b"\r\nsecond") as second:  # noqa: SIM117
            async with edited(None, cloud) as far:
                answer = await far.link.ask("configure", {"settings": {"local_url": first.url}})
                assert answer["data"]["settings"] == {"local_url": first.url}
                far = Far(await cloud.link(nth=2))
                assert ["http_proxy" in connect["capabilities"] for connect in cloud.connects] == [False, True]
                flow = far.open()
                await far.until(lambda: flow.received)
                await far.link.ask("configure", {"settings": {"local_url": second.url}})
                await far.over(flow)
                assert flow.cancel["code"] == "CLOSED"
                assert (await far.fetch()).data == b"second"
                await far.link.ask("configure", {"settings": {"local_url": None}})
                await cloud.link(nth=3)
                assert "http_proxy" not in cloud.connects[2]["capabilities"]

    run(work)


def test_everything_ends_with_the_connection():
    async def serve(asked, reader, writer):
        writer.write(OK + b"\r\nbeginning")
        await reader.read()  # until the other side goes

    async def work():
        async with Cloud() as cloud, local_server(serve) as server, edited(server.url, cloud) as far:
            flows = [far.open() for _ in range(5)] + [far.open("POST", "/", body=True)]
            await far.until(lambda: all(flow.received for flow in flows))
            assert (server.open, far.device._editing.proxy.active) == (6, 6)
            far.link.cut()
            await until(lambda: server.open == 0)
            await cloud.link(nth=2)
            assert far.device._editing.proxy is None
            tasks = [task for task in asyncio.all_tasks() if "Stream." in repr(task.get_coro())]
            assert not tasks

    run(work)


def test_a_cancel_closes_the_local_connection_and_is_not_answered():
    async def serve(asked, reader, writer):
        writer.write(OK + b"\r\nbeginning")
        await reader.read()

    async def work():
        async with local_server(serve) as server, edited(server.url) as far:
            flow, other = far.open(), far.open()
            await far.until(lambda: flow.received and other.received)
            far.cancel(flow)
            await until(lambda: server.open == 1)
            assert (await far.link.ask("health_check"))["status"] == "success"
            assert flow.cancel is None
            assert not other.over

    run(work)


def test_silence_is_waited_for_only_so_long(monkeypatch):
    monkeypatch.setattr(proxy_stream, "IDLE_SECONDS", 0.5)
    options = replace(QUICK, editor_timeout=0.2)

    async def serve(asked, reader, writer):
        if "body" in asked.line:
            writer.write(OK + b"\r\nbeginning")
        if "dribble" in asked.line:
            for byte in OK + b"X: " + b"x" * 100:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0.05)
        await reader.read()

    async def work():
        async with local_server(serve) as server, edited(server.url, options=options) as far:
            flows = [far.open("GET", path) for path in ("/head", "/dribble", "/body")]
            flows.append(far.open("POST", "/head", body=True))
            for flow in flows:
                await far.over(flow)
                assert flow.cancel["code"] == "TIMEOUT"
            monkeypatch.setattr(proxy_stream, "IDLE_SECONDS", 30)  # a body has gone: what is waited for is the head
            flow = far.open("POST", "/head", body=True)
            far.chunk(flow, b"all", end=True)
            assert (await far.over(flow)).cancel["code"] == "TIMEOUT"
            await until(lambda: server.open == 0)

    run(work)


def test_an_answer_that_begins_late_is_awaited_and_the_cloud_told_so_once_the_request_is_there(monkeypatch):
    monkeypatch.setattr(proxy_stream, "TELL_SECONDS", 0.1)

    async def serve(asked, reader, writer):
        if asked.line.startswith("POST"):
            await reader.readuntil(b"all\r\n0\r\n\r\n")
        await asyncio.sleep(0.55)
        writer.write(OK + b"Content-Length: 9\r\n\r\ninstalled")
        await writer.drain()

    async def work():
        async with local_server(serve) as server, edited(server.url) as far:
            flow, posted = far.open("GET", "/nodes"), far.open("POST", "/nodes", body=True)
            await far.over(flow)
            assert (bytes(flow.data), flow.cancel, flow.head["status"]) == (b"installed", None, 200)
            assert 3 <= flow.waits <= 6
            assert (posted.waits, posted.over) == (0, False)  # its body is still to come: the cloud knows that itself
            far.chunk(posted, b"all", end=True)
            await far.over(posted)
            assert (bytes(posted.data), posted.cancel) == (b"installed", None)
            assert 3 <= posted.waits <= 6

    run(work)


def test_nobody_at_the_address_is_said_at_once():
    async def work():
        async with local_server(b"") as server:
            url = server.url
        async with edited(url) as far:
            assert (await far.fetch()).cancel["code"] == "UNREACHABLE"

    run(work)
