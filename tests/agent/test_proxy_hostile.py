"""Local servers that are ill or hostile, and clouds that break the rules: a stream ends, all else goes on."""

import asyncio
import tracemalloc
from dataclasses import replace

import pytest

from agent.proxy import MIN_SHARE
from tests.agent.editors import WINDOW, edited, local_server, run, writing
from tests.agent.support import QUICK, until

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\n"


async def still_works(far):
    """The connection is the same, commands are answered, and no stream is left over."""
    assert (await far.link.ask("health_check"))["status"] == "success"
    assert len(far.cloud.history) == 1
    await until(lambda: far.device._editing.proxy.active == 0)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"", "CLOSED"),
        (b"HTTP/1.1 200 OK\r\nX: ", "CLOSED"),
        (b"nonsense\r\n\r\n", "PROTOCOL"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "CLOSED"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "PROTOCOL"),
        (b"HTTP/2 200 OK\r\n\r\n", "PROTOCOL"),
        (b"HTTP/1.1 999 Odd\r\n\r\n", "PROTOCOL"),
        (b"HTTP/1.1 20 Odd\r\n\r\n", "PROTOCOL"),
        (OK + b"X-A: " + b"a" * 70_000, "TOO_LARGE"),
        (OK + b"X-A: " + b"a" * 33_000 + b"\r\n\r\n", "TOO_LARGE"),
        (OK + b"".join(b"X-%d: 1\r\n" % number for number in range(101)) + b"\r\n", "TOO_LARGE"),
        (OK + b"X\x00: 1\r\n\r\n", "PROTOCOL"),
        (OK + b"X: a\x00b\r\n\r\n", "PROTOCOL"),
        (OK + b"X: a\rSet-Cookie: b=1\r\n\r\n", "PROTOCOL"),
        (OK + b"X: a\x0bb\r\n\r\n", "PROTOCOL"),
        (OK + b"X: a\x1b[2J\r\n\r\n", "PROTOCOL"),
        (OK + b"X Y: 1\r\n\r\n", "PROTOCOL"),
        (OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", "PROTOCOL"),
        (OK + b"Content-Length: -1\r\n\r\n", "PROTOCOL"),
        (OK + b"Transfer-Encoding: gzip\r\n\r\n", "PROTOCOL"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 100, "PROTOCOL"),
        (SWITCHING + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\nraw", "PROTOCOL"),
    ],
)
def test_a_head_that_is_none_never_reaches_the_cloud(answer, code):
    async def work():
        async with local_server(writing(answer)) as server, edited(server.url) as far:
            flow = await far.fetch()
            assert (flow.head, flow.cancel["code"]) == (None, code), flow
            await still_works(far)

    run(work)


@pytest.mark.parametrize(
    ("answer", "body", "code"),
    [
        (OK + b"Content-Length: 10\r\n\r\nabc", b"abc", "CLOSED"),
        (CHUNKED + b"3\r\nabc\r\n", b"abc", "CLOSED"),
        (CHUNKED + b"3\r\nabc\r\nzz\r\n", b"abc", "PROTOCOL"),
        (CHUNKED + b"3\r\nabcde\r\n0\r\n\r\n", b"abc", "PROTOCOL"),
        (CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n", b"", "PROTOCOL"),
        (CHUNKED + b"1;" + b"x" * 100_000, b"", "TOO_LARGE"),
    ],
)
def test_a_body_that_breaks_off_is_never_taken_for_whole(answer, body, code):
    async def work():
        async with local_server(writing(answer)) as server, edited(server.url) as far:
            flow = await far.fetch()
            assert (flow.head["status"], flow.ended, flow.cancel["code"]) == (200, False, code)
            assert body.startswith(bytes(flow.data))
            await still_works(far)

    run(work)


@pytest.mark.parametrize("head", [b"", b"Upgrade: h2c\r\nConnection: Upgrade\r\n", b"Upgrade: tls/1.0\r\n"])
def test_a_switch_to_something_else_is_no_websocket(head):
    async def work():
        async with local_server(writing(SWITCHING + head + b"\r\nraw")) as server, edited(server.url) as far:
            flow = await far.fetch("GET", "/", upgrade=True)
            assert (flow.head, flow.cancel["code"]) == (None, "PROTOCOL")
            await still_works(far)

    run(work)


def test_a_reset_ends_the_stream_that_it_hits():
    async def serve(asked, reader, writer):
        writer.write(OK + b"Content-Length: 100\r\n\r\nabc")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.transport.abort()

    async def work():
        async with local_server(serve) as server, edited(server.url) as far:
            assert (await far.fetch()).cancel["code"] == "CLOSED"
            await still_works(far)

    run(work)


def test_an_endless_head_ends():
    async def serve(asked, reader, writer):
        while True:
            writer.write(b"HTTP/1.1 103 Early\r\nX: 1\r\n\r\n" if "hints" in asked.line else b"X: " + b"x" * 4000)
            await writer.drain()
            await asyncio.sleep(0.1)

    async def work():
        options = replace(QUICK, editor_timeout=0.5)
        async with local_server(serve) as server, edited(server.url, options=options) as far:
            assert (await far.fetch("GET", "/hints")).cancel["code"] == "TIMEOUT"
            assert (await far.fetch()).cancel["code"] in ("PROTOCOL", "TIMEOUT", "TOO_LARGE")
            await still_works(far)
            await until(lambda: server.open == 0)

    run(work)


def test_no_redirect_is_followed_and_only_the_own_origin_becomes_a_path():
    async def work():
        targets: dict[str, str] = {}

        async def serve(asked, reader, writer):
            writer.write(f"HTTP/1.1 302 Found\r\nLocation: {targets[asked.line.split()[1]]}\r\n\r\n".encode())

        async with local_server(serve) as server, edited(server.url) as far:
            host = server.url.removeprefix("http://")
            expected = {
                f"{server.url}/a?b#c": "/a?b#c",
                server.url: "/",
                f"HTTP://{host}/x": "/x",
                f"{server.url}?q": "/?q",
                "/relative": "/relative",
                "next": "next",
                f"{server.url}1/x": f"{server.url}1/x",
                f"{server.url}@evil.example/": f"{server.url}@evil.example/",
                f"{server.url}//evil.example/": f"{server.url}//evil.example/",
                "http://169.254.169.254/latest": "http://169.254.169.254/latest",
            }
            for number, (location, told) in enumerate(expected.items()):
                targets[f"/{number}"] = location
                flow = await far.fetch("GET", f"/{number}")
                assert (flow.head["status"], flow.header("location")) == (302, [told])
            assert len(server.asked) == len(expected)

    run(work)


SEEN = [["X-Forwarded-Host", "device.edit.example"], ["X-Forwarded-Proto", "https"]]


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("/red/login", "/login"),
        ("/red", "/"),
        ("/red?x", "/?x"),
        ("/redder/login", "/redder/login"),
        ("login", "login"),
        ("https://device.edit.example/red/login?x", "/login?x"),
        ("https://device.edit.example.evil/red/login", "https://device.edit.example.evil/red/login"),
        ("https://elsewhere.example/red/login", "https://elsewhere.example/red/login"),
        ("/red//evil.example/", "/red//evil.example/"),
    ],
)
def test_a_path_in_the_address_is_put_before_and_taken_off(location, told):
    async def work():
        answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\n\r\n".encode()
        async with local_server(answer) as server, edited(f"{server.url}/red/") as far:
            flow = await far.fetch("GET", "/x?y", SEEN)
            assert server.asked[0].line == "GET /red/x?y HTTP/1.1"
            assert flow.header("location") == [told]

    run(work)


@pytest.mark.parametrize(
    ("address", "given", "told"),
    [
        ("/red", "a=1; Path=/red; HttpOnly", "a=1; Path=/; HttpOnly"),
        ("/red", "a=1;path=/red/auth/; Max-Age=5", "a=1; Path=/auth/; Max-Age=5"),
        ("/red", "a=1; Path=/", "a=1; Path=/"),
        ("/red", "a=1; Path=/redder", "a=1; Path=/redder"),
        ("/red", "a=Path=/red; Secure", "a=Path=/red; Secure"),
        ("", "a=1;path=/red; Secure", "a=1;path=/red; Secure"),
    ],
)
def test_a_cookie_for_the_path_in_the_address_comes_back_to_it(address, given, told):
    async def work():
        answer = OK + f"Set-Cookie: {given}\r\nContent-Length: 0\r\n\r\n".encode()
        async with local_server(answer) as server, edited(f"{server.url}{address}") as far:
            assert (await far.fetch()).header("set-cookie") == [told]

    run(work)


# Clouds that break the rules


@pytest.mark.parametrize(
    "wrong",
    [
        {"method": "GET / HTTP/1.1\r\nX: "},
        {"method": "CONNECT"},
        {"method": "TRACE"},
        {"method": 1},
        {"target": "http://169.254.169.254/"},
        {"target": "//x y"},
        {"target": "/a\r\nX: 1"},
        {"target": "/#fragment"},
        {"target": ""},
        {"target": "/" + "a" * 20_000},
        {"target": "*"},
        {"headers": "Host: x"},
        {"headers": [["A"]]},
        {"headers": [["A", 1]]},
        {"headers": [["A: 1\r\nB", "2"]]},
        {"headers": [["A", "1\r\nHost: x"]]},
        {"headers": [["A", "1\n"]]},
        {"headers": [["", "1"]]},
        {"headers": [["A", "\u20ac"]]},
        {"headers": [["A", "x" * 40_000]]},
        {"headers": [["A", "1"]] * 101},
        {"headers": [["Content-Length", "1"], ["Content-Length", "2"]], "body": True},
        {"headers": [["Content-Length", "1, 1"]], "body": True},
        {"headers": [["Content-Length", "+1"]], "body": True},
        {"window": 0},
        {"window": "all"},
        {"window": True},
        {"window": None},
        {"body": "yes"},
        {"upgrade": True, "body": True},
        {"upgrade": True, "method": "POST"},
    ],
)
def test_an_order_that_is_none_is_refused_before_anything_is_dialled(wrong):
    async def work():
        async with local_server(OK + b"\r\n") as server, edited(server.url) as far:
            flow = await far.fetch(**wrong)
            assert flow.cancel["code"] in ("PROTOCOL", "TOO_LARGE"), flow
            assert not server.asked
            await still_works(far)

    run(work)


def test_a_smuggled_second_request_stays_a_body():
    inner = b"GET /secret HTTP/1.1\r\nHost: x\r\n\r\n"

    async def serve(asked, reader, writer):
        writer.write(OK + b"\r\n" + await reader.readexactly(int(asked.get("content-length")[0])))

    async def work():
        async with local_server(serve) as server, edited(server.url) as far:
            headers = [["Transfer-Encoding", "chunked"], ["Content-Length", str(len(inner))]]
            flow = far.open("POST", "/", headers, body=True)
            far.chunk(flow, inner, end=True)
            await far.over(flow)
            assert (bytes(flow.data), len(server.asked)) == (inner, 1)
            assert not server.asked[0].get("transfer-encoding")

    run(work)


@pytest.mark.parametrize("sent", [b"12345", b"123"])
def test_a_body_of_another_length_than_promised_ends_the_stream(sent):
    async def serve(asked, reader, writer):
        await reader.read()

    async def work():
        async with local_server(serve) as server, edited(server.url) as far:
            flow = far.open("POST", "/", [["Content-Length", "4"]], body=True)
            far.chunk(flow, sent, end=True)
            assert (await far.over(flow)).cancel["code"] == "PROTOCOL"
            await still_works(far)

    run(work)


async def waiting(asked, reader, writer):
    """A server that answers a little and waits for the other side to go."""
    writer.write(OK + b"\r\nbeginning")
    while await reader.read(65536):
        pass


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "chunk", "data": "eA=="},  # no body was announced
        {"type": "chunk", "data": ""},
        {"type": "chunk"},
        {"type": "credit", "bytes": 1_000_000},
        {"type": "credit", "bytes": WINDOW},
        {"type": "credit", "bytes": -1},
        {"type": "credit", "bytes": 0},
        {"type": "credit", "bytes": 1.5},
        {"type": "credit", "bytes": True},
        {"type": "credit"},
        {"type": "http_request", "method": "GET", "target": "/", "headers": [], "window": WINDOW},  # the id is in use
    ],
)
def test_a_frame_against_the_rules_ends_its_stream_alone(wrong):
    async def work():
        async with local_server(waiting) as server, edited(server.url) as far:
            flow, other = far.open(), far.open()
            await far.until(lambda: flow.received and other.received)
            far.link.send({**wrong, "id": flow.id})
            assert (await far.over(flow)).cancel["code"] == "PROTOCOL"
            await until(lambda: far.device._editing.proxy.active == 1)
            assert not other.over
            far.cancel(other)
            await still_works(far)

    run(work)


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": "A" * 43_696},
        {"data": "A" * 4_000_000},
        {"data": "not base64!"},
        {"data": "QQ"},
        {"data": 7},
        {"data": "QQ==", "end": "yes"},
    ],
)
def test_a_chunk_that_is_none_ends_the_stream(wrong):
    async def work():
        async with local_server(waiting) as server, edited(server.url) as far:
            flow = far.open("POST", "/", body=True)
            far.link.send({"type": "chunk", "id": flow.id, **wrong})
            assert (await far.over(flow)).cancel["code"] == "PROTOCOL"
            await still_works(far)

    run(work)


def test_a_chunk_after_the_last_ends_the_stream():
    async def work():
        async with local_server(waiting) as server, edited(server.url) as far:
            flow = far.open("POST", "/", body=True)
            far.chunk(flow, b"all", end=True)
            far.chunk(flow, b"", end=True)
            assert (await far.over(flow)).cancel["code"] == "PROTOCOL"

    run(work)


def test_unknown_streams_and_frames_without_an_id_are_passed_over():
    async def work():
        async with local_server(OK + b"\r\nx") as server, edited(server.url) as far:
            for kind in ("chunk", "credit", "cancel"):
                far.link.send({"type": kind, "id": "nobody's", "data": "", "bytes": 5})
            for wrong in (None, "", 5, ["x"], "x" * 101):
                far.link.send({"type": "http_request", "id": wrong})
                far.link.send({"type": "chunk", "id": wrong})
            assert (await far.fetch()).data == b"x"
            assert not [frame for frame in far.link.frames if frame["type"] == "cancel"]

    run(work)


def test_the_window_to_the_device_is_enforced():
    async def deaf(asked, reader, writer):
        reader._transport.pause_reading()  # what has come stays in the system's buffers
        await asyncio.sleep(30)

    async def work():
        async with local_server(deaf) as server, edited(server.url) as far:
            flow = far.open("POST", "/", body=True)
            for _ in range(1000):
                far.chunk(flow, bytes(32_000))
                await asyncio.sleep(0)
                if flow.over:
                    break
            await far.over(flow)
            assert flow.cancel["code"] == "PROTOCOL"
            assert "credited" in flow.cancel["error"]
            await still_works(far)

    run(work)


def test_there_are_never_more_streams_than_are_allowed():
    async def work():
        async with local_server(waiting) as server, edited(server.url) as far:
            flows = [far.open() for _ in range(64)]
            await far.until(lambda: all(flow.received for flow in flows))
            assert (await far.fetch()).cancel["code"] == "BUSY"
            far.cancel(flows.pop())
            await until(lambda: far.device._editing.proxy.active == 63)
            flow = far.open()
            await far.until(lambda: flow.received)
            for other in [*flows, flow]:
                far.cancel(other)
            await still_works(far)
            await until(lambda: server.open == 0)

    run(work)


def test_a_storm_of_streams_that_are_cancelled_at_once_leaves_nothing():
    async def work():
        async with local_server(waiting) as server, edited(server.url) as far:
            flows = [far.open() for _ in range(2)]  # at least these have reached the server before they end
            await until(lambda: server.open == 2)
            for _ in range(300):
                flows.append(far.open())
                far.cancel(flows[-1])
            for flow in flows[:2]:
                far.cancel(flow)
            await still_works(far)
            await until(lambda: server.open == 0)
            await until(lambda: not far.device._editing.proxy._tasks)
            assert not any(flow.ended for flow in flows)

    run(work)


def test_memory_is_bounded_with_a_slow_cloud():
    """64 endless downloads whose bytes nobody credits, and then not even the tunnel's socket is read."""

    async def endless(asked, reader, writer):
        writer.write(OK + b"\r\n")
        while True:
            writer.write(bytes(65_536))
            await writer.drain()

    async def work():
        async with local_server(endless) as server, edited(server.url) as far:
            far.credits = far.keeps = False
            await far.fetch("", "/")
            tracemalloc.start()
            far.link._writer.transport.pause_reading()
            flows = [far.open() for _ in range(64)]
            await asyncio.sleep(1.0)
            held = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
            assert held < 24_000_000, held
            far.link._writer.transport.resume_reading()
            await far.until(lambda: all(flow.received >= MIN_SHARE for flow in flows))
            assert (await far.link.ask("health_check"))["status"] == "success"

    run(work)
