"""Invariant S11, from the device's side: whatever an editor answers, it reaches nothing of the platform.

The device is the test's own, on a real tunnel socket of one web process; its browser is raw HTTP to another one. After
each malice the same device must still serve its editor and take commands: one bad stream costs that stream and no more.
"""

import base64
import socket
from typing import Any

import pytest

from tests import make
from tests.edge_nodes.conftest import Scene
from tests.edge_nodes.hostile import (
    CHUNK,
    COOKIE,
    WINDOW,
    Editor,
    Frame,
    Page,
    Script,
    Tab,
    everything,
    polite,
    read_page,
    settled,
    switching,
    until,
)

pytestmark = pytest.mark.xdist_group("gateways")

Headers = list[tuple[str, str]]


def answering(status: Any = 200, headers: Any = (), body: bytes | None = b"hello") -> Script:
    return lambda device, request: device.respond(request["id"], status, headers, body)


def told(scene: Scene, headers: Headers) -> Page:
    """What the browser gets of an answer with these headers."""
    scene.device.script = answering(headers=headers)
    page = scene.tab.get("/told")
    assert (page.status, page.body) == (200, b"hello")
    return page


# Cookies

STOLEN_NAMES = {
    "our name": f"{COOKIE}=evil; Path=/",
    "our name in its form for https": f"__Host-{COOKIE}=evil; Path=/; Secure",
    "our name after a space": f" {COOKIE} =evil",
    "our name behind an empty name, which browsers send without its equals sign": f"={COOKIE}=evil",
    "our name behind an empty name and a space": f" = {COOKIE}=evil",
    "our name with a tab": f"\t{COOKIE}\t=evil",
    "the name of another cookie that only its host may set": "__Host-other=evil; Path=/; Secure",
    "the same prefix in small letters, which browsers treat alike": "__host-other=evil; Path=/; Secure",
    "the prefix of cookies of secure origins": "__Secure-other=evil; Secure",
    "that prefix behind an empty name": "=__Secure-other=evil; Secure",
}


@pytest.mark.parametrize("cookie", STOLEN_NAMES.values(), ids=STOLEN_NAMES)
def test_a_device_cannot_set_a_cookie_of_ours(scene: Scene, cookie: str) -> None:
    page = told(scene, [("Set-Cookie", cookie), ("Set-Cookie", "theme=dark")])
    assert [value.partition(";")[0] for value in page.all("Set-Cookie")] == ["theme=dark"]


WIDE = ["Domain=localhost", "domain=.edit.localhost", "DOMAIN = edit.localhost", "Domain=", "Path=/; Domain=localhost",
        "a=b;Domain=localhost;Domain=edit.localhost"]  # fmt: skip


@pytest.mark.parametrize("attributes", WIDE)
def test_a_cookie_does_not_widen_to_sibling_devices_or_the_api(scene: Scene, attributes: str) -> None:
    (kept,) = told(scene, [("Set-Cookie", f"theme=dark; {attributes}; Max-Age=60")]).all("Set-Cookie")
    assert kept.startswith("theme=dark")
    assert "max-age=60" in kept.lower()
    assert "domain" not in kept.lower()


def test_a_thousand_cookies_cannot_push_ours_out_of_the_jar(scene: Scene) -> None:
    scene.device.script = answering(headers=[("Set-Cookie", f"c{number}=1") for number in range(90)])
    page = scene.tab.get()
    assert len(page.all("Set-Cookie")) <= 50
    scene.still_fine()


# Headers that would reach beyond the answer

DROPPED = {
    "would force https on the origin": ("Strict-Transport-Security", "max-age=31536000; includeSubDomains"),
    "would pin keys": ("Public-Key-Pins", 'pin-sha256="x"; max-age=1000'),
    "would send the browser to another server for this origin": ("Alt-Svc", 'h3=":9443"; ma=86400'),
    "would sign our user out of the editor": ("Clear-Site-Data", '"cookies", "storage"'),
    "would report our user's errors elsewhere": ("Report-To", '{"endpoints": [{"url": "https://evil.test"}]}'),
    "would report network errors elsewhere": ("NEL", '{"report_to": "x", "max_age": 1000}'),
    "would report policies elsewhere": ("Reporting-Endpoints", 'x="https://evil.test"'),
    "would widen a service worker over our paths": ("Service-Worker-Allowed", "/"),
    "would let other origins read the editor": ("Access-Control-Allow-Origin", "*"),
    "would let them read it with cookies": ("Access-Control-Allow-Credentials", "true"),
    "would have a proxy serve another file": ("X-Accel-Redirect", "/internal/metrics"),
    "would have a server send a file": ("X-Sendfile", "/etc/passwd"),
    "is for one hop": ("Keep-Alive", "timeout=1000"),
    "is for one hop and asks for credentials": ("Proxy-Authenticate", "Basic realm=x"),
    "is for one hop and never comes": ("Trailer", "Set-Cookie"),
    "would switch protocols": ("Upgrade", "h2c"),
}


@pytest.mark.parametrize(("name", "value"), DROPPED.values(), ids=DROPPED)
def test_a_header_is_dropped_that(scene: Scene, name: str, value: str) -> None:
    page = told(scene, [(name, value), (name.upper(), value), ("X-Kept", "yes")])
    assert value not in page.all(name)
    assert page.all("X-Kept") == ["yes"]


def test_a_header_that_connection_names_is_for_one_hop(scene: Scene) -> None:
    page = told(scene, [("Connection", "X-Hop, close"), ("X-Hop", "evil"), ("X-Kept", "yes")])
    assert page.all("X-Hop") == []
    assert page.all("X-Kept") == ["yes"]


def test_what_keeps_other_sites_out_is_added_even_if_the_device_says_otherwise(scene: Scene) -> None:
    page = told(
        scene,
        [("Cross-Origin-Resource-Policy", "cross-origin"), ("Content-Security-Policy", "frame-ancestors *"),
         ("Referrer-Policy", "unsafe-url")],
    )  # fmt: skip
    assert page.all("Cross-Origin-Resource-Policy") == ["same-origin"]
    # Browsers enforce every policy that comes: the strictest holds.
    assert "frame-ancestors 'self'" in page.all("Content-Security-Policy")
    assert page.all("Referrer-Policy") == ["same-origin"]


@pytest.mark.parametrize(
    "target", ["/api/v1/devices", "//127.0.0.1/api/v1/devices", "http://127.0.0.1:1/api/v1/devices"]
)
def test_a_redirect_to_the_api_is_an_answer_and_nothing_that_the_platform_follows(scene: Scene, target: str) -> None:
    scene.device.script = answering(302, [("Location", target)], b"")
    page = scene.tab.get("/go")
    assert page.status == 302
    assert len(page.all("Location")) == 1
    settled(0.2)
    assert [one["target"] for one in scene.device.requests] == ["/go"]


# Heads that are none

MALFORMED: dict[str, tuple[Any, Any]] = {
    "CR LF in a value would begin a second header": (200, [["X-A", "b\r\nSet-Cookie: evil=1"]]),
    "LF alone does so for some servers": (200, [["X-A", "b\nSet-Cookie: evil=1"]]),
    "CR alone does so for some": (200, [["X-A", "b\rSet-Cookie: evil=1"]]),
    "CR LF in a name": (200, [["X-A: b\r\nSet-Cookie", "evil=1"]]),
    "NUL in a value": (200, [["X-A", "b\0c"]]),
    "a space in a name": (200, [["X A", "b"]]),
    "a colon in a name": (200, [["X:A", "b"]]),
    "an empty name": (200, [["", "b"]]),
    "a name beyond ASCII": (200, [["X-Ä", "b"]]),
    "a value that no header can carry": (200, [["X-A", "\u2028\U0001f4a5"]]),
    "a value that is no text": (200, [["X-A", 1]]),
    "a header that is no pair": (200, [["X-A"]]),
    "a header of three": (200, [["X-A", "b", "c"]]),
    "a header that is a text": (200, ["X-A: b"]),
    "headers that are an object": (200, {"X-A": "b"}),
    "headers that are nothing": (200, None),
    "101 headers": (200, [[f"X-{number}", "b"] for number in range(101)]),
    "33 KiB of headers": (200, [["X-A", "b" * 33 * 1024]]),
    "101 without an upgrade": (101, [["Upgrade", "websocket"], ["Connection", "Upgrade"]]),
    "100 is no answer": (100, []),
    "103 is none either": (103, []),
    "199": (199, []),
    "600": (600, []),
    "0": (0, []),
    "-200": (-200, []),
    "10 to the 30th": (10**30, []),
    "200.5": (200.5, []),
    "a status that is a text": ("200", []),
    "a status that would end its line": ("200 OK\r\nSet-Cookie: evil=1", []),
    "true, which is 1 in Python": (True, []),
    "no status": (None, []),
    "two lengths": (200, [["Content-Length", "5"], ["Content-Length", "6"]]),
    "a negative length": (200, [["Content-Length", "-5"]]),
    "a length with a sign": (200, [["Content-Length", "+5"]]),
}


@pytest.mark.parametrize(("status", "headers"), MALFORMED.values(), ids=MALFORMED)
def test_a_head_is_refused_as_a_whole(scene: Scene, status: Any, headers: Any) -> None:
    scene.device.script = answering(status, headers)
    page = scene.tab.get("/malformed")
    assert page.status == 502, page
    assert b"hello" not in page.body
    assert not [value for value in page.all("Set-Cookie") if "evil" in value]
    scene.still_fine()


# Streams


def test_a_chunk_of_a_stream_that_there_is_not_reaches_nobody(scene: Scene) -> None:
    for stream in ("11111111-1111-4111-8111-111111111111", "", "x" * 200, None, 7, ["a"], {"a": 1}):
        scene.device.send({"type": "chunk", "id": stream, "data": "aGVsbG8=", "end": True})
        scene.device.send({"type": "credit", "id": stream, "bytes": 1})
        scene.device.send({"type": "cancel", "id": stream, "error": "x", "code": "CLOSED"})
        scene.device.send({"type": "http_response", "id": stream, "status": 200, "headers": [], "window": WINDOW})
    scene.still_fine()


def test_another_device_cannot_answer_a_stream_that_is_not_its_own(scene: Scene) -> None:
    def overheard(device: Editor, request: Frame) -> None:
        scene.sibling.respond(request["id"], 200, [("X-From", "sibling")], b"evil")
        scene.sibling.send({"type": "cancel", "id": request["id"], "error": "no", "code": "CLOSED"})
        settled()
        polite(device, request)

    scene.device.script = overheard
    page = scene.tab.get("/mine")
    assert (page.status, page.body, page.all("X-From")) == (200, b"hello", [])


def test_another_device_cannot_write_into_a_body_under_way(scene: Scene) -> None:
    def overheard(device: Editor, request: Frame) -> None:
        device.respond(request["id"])
        device.chunk(request["id"], b"he")
        scene.sibling.chunk(request["id"], b"evil", end=True)
        settled()
        device.chunk(request["id"], b"llo", end=True)

    scene.device.script = overheard
    assert scene.tab.get("/mine").body == b"hello"


def _chunk(data: Any, *, end: Any = False) -> Script:
    def run(device: Editor, request: Frame) -> None:
        device.respond(request["id"])
        device.send({"type": "chunk", "id": request["id"], "data": data, "end": end})

    return run


def _before_its_head(device: Editor, request: Frame) -> None:
    device.chunk(request["id"], b"evil", end=True)


def _twice(device: Editor, request: Frame) -> None:
    device.respond(request["id"])
    device.respond(request["id"], 200, [("Set-Cookie", "evil=1")], b"evil")


def _beyond_its_window(device: Editor, request: Frame) -> None:
    """More than was credited, though the browser does read: what counts is what was granted when it was sent."""
    device.respond(request["id"])
    for _ in range(4 * request["window"] // CHUNK):
        device.chunk(request["id"], bytes(CHUNK))


def _credit(value: Any) -> Script:
    def run(device: Editor, request: Frame) -> None:
        device.send({"type": "credit", "id": request["id"], "bytes": value})
        device.respond(request["id"])
        device.send({"type": "credit", "id": request["id"], "bytes": value})

    return run


BROKEN: dict[str, Script] = {
    "a chunk before its head": _before_its_head,
    "a second head": _twice,
    "base64 with letters that are none": _chunk("aGVs!!bG8="),
    "base64 that ends too early": _chunk("aGVsbG8"),
    "data that are no text": _chunk(12),
    "data that are nothing": _chunk(None),
    "a chunk of more than 32 KiB": _chunk(base64.b64encode(bytes(CHUNK + 1)).decode()),
    "a credit of 10 to the 30th": _credit(10**30),
    "a negative credit": _credit(-1),
    "a credit that is a text": _credit("1"),
    "a credit that is true": _credit(True),
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN)
def test_the_protocol_broken_ends_the_stream_and_not_the_connection(scene: Scene, script: Script) -> None:
    scene.device.script = script
    page = scene.tab.get("/broken", timeout=15)
    stream = scene.device.requests[0]["id"]
    assert scene.device.wait("cancel", stream)["code"] == "PROTOCOL"
    assert page.status == 502 or not page.whole, page
    assert b"evil" not in page.body
    assert not page.all("Set-Cookie")
    scene.still_fine()


@pytest.mark.parametrize("window", [-1, 0, 10**30, "many", None, True, []])
def test_a_window_that_a_device_claims_changes_no_window_of_ours(scene: Scene, window: Any) -> None:
    def claiming(device: Editor, request: Frame) -> None:
        device.respond(request["id"], body=b"hello", window=window)

    scene.device.script = claiming
    page = scene.tab.ask("POST", "/claim", body=bytes(2 * WINDOW), timeout=5)
    assert page.status == 502 or page.body == b"hello"
    (request,) = scene.device.requests
    assert len(scene.device.body(request["id"])) <= WINDOW
    scene.still_fine()


def test_chunks_after_the_end_are_not_the_beginning_of_another_answer(scene: Scene) -> None:
    def longer(device: Editor, request: Frame) -> None:
        polite(device, request)
        device.chunk(request["id"], b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", end=True)

    scene.device.script = longer
    with socket.create_connection(("127.0.0.1", scene.tab.port), 10) as sock:
        for path in ("/one", "/two"):
            sock.sendall(scene.tab.head("GET", path, close=False))
            page = read_page(sock)
            assert (page.status, page.body) == (200, b"hello")
            if "close" in page.all("Connection"):
                break
    scene.still_fine()


def test_more_than_the_window_is_cut_while_nobody_reads(scene: Scene) -> None:
    """A browser that does not read: the window is never credited, so nothing of 24 MB may be kept for it."""
    scene.device.script = lambda device, request: device.respond(request["id"])
    before = scene.memory()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", scene.tab.port))
        sock.sendall(scene.tab.head("GET", "/flood"))
        until(lambda: bool(scene.device.requests))
        stream = scene.device.requests[0]["id"]
        for _ in range(24 * 1024 * 1024 // CHUNK):
            scene.device.chunk(stream, bytes(CHUNK))
        assert scene.device.wait("cancel", stream)["code"] == "PROTOCOL"
    assert scene.memory() - before < 12_000_000
    scene.still_fine()


def test_streams_that_never_answer_do_not_pile_up(scene: Scene) -> None:
    """At most 48 of one person; each that the browser gives up is told to the device, and its place is free again."""
    scene.device.script = lambda device, request: None
    socks = []
    try:
        for _ in range(54):
            sock = socket.create_connection(("127.0.0.1", scene.tab.port), 10)
            sock.sendall(scene.tab.head("GET", "/never"))
            socks.append(sock)
        settled(1.5)
        assert len(scene.device.requests) == 48
    finally:
        for sock in socks:
            sock.close()
    for request in scene.device.requests:
        scene.device.wait("cancel", request["id"], timeout=15)
    scene.still_fine()


def test_a_device_cannot_ask_the_cloud_for_a_stream(scene: Scene) -> None:
    stream = "22222222-2222-4222-8222-222222222222"
    asked = {"method": "GET", "target": "/api/v1/devices", "headers": [], "body": False, "upgrade": False}
    scene.device.send({"type": "http_request", "id": stream, "window": WINDOW, **asked})
    settled()
    assert not [frame for frame in scene.device.heard if frame["type"] in {"http_response", "chunk"}]
    scene.still_fine()


# Bodies


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_an_answer_that_has_no_body_gets_none(scene: Scene, method: str, status: int) -> None:
    """Else the body would be read as the head of the next answer."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
    scene.device.script = lambda device, request: device.respond(request["id"], status, (), evil)
    with socket.create_connection(("127.0.0.1", scene.tab.port), 10) as sock:
        sock.sendall(scene.tab.head(method, "/none", close=False))
        raw = everything(sock, 1.0)
    assert raw.count(b"HTTP/1.1 ") == 1, raw
    assert b"evil" not in raw
    scene.still_fine()


@pytest.mark.parametrize("length", [2, 3000])
def test_a_length_that_lies_cannot_move_the_border_between_two_answers(scene: Scene, length: int) -> None:
    """Shorter than the body: no more than said is sent. Longer: the connection ends, so that nothing fills the gap."""
    scene.device.script = answering(headers=[("Content-Length", str(length))], body=b"helloHTTP/1.1 200 OK")
    with socket.create_connection(("127.0.0.1", scene.tab.port), 10) as sock:
        sock.sendall(scene.tab.head("GET", "/lie", close=False))
        page = read_page(sock)
        assert page.status == 502 or not page.whole or page.body == b"helloHTTP/1.1 200 OK"[:length]
        assert sock.recv(100) == b"", "the connection went on"
    scene.still_fine()


def test_a_transfer_encoding_of_the_device_does_not_frame_our_answer(scene: Scene) -> None:
    body = b"5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"
    scene.device.script = answering(headers=[("Transfer-Encoding", "chunked"), ("Content-Length", "5")], body=body)
    page = scene.tab.get()
    assert page.status == 502 or not page.whole or page.body in (body, body[:5])
    scene.still_fine()


# WebSockets


@pytest.mark.parametrize("accept", ["", "bm9uc2Vuc2Vub25zZW5zZTA=", "twice"])
def test_a_switch_that_does_not_fit_the_key_is_none(scene: Scene, accept: str) -> None:
    def switch(device: Editor, request: Frame) -> None:
        upgrade, connection, right = switching(request)
        accepts = [right, right] if accept == "twice" else [("Sec-WebSocket-Accept", accept)]
        device.respond(request["id"], 101, [upgrade, connection, *accepts])

    scene.device.script = switch
    page, sock = scene.tab.upgrade()
    sock.close()
    assert page.status == 502
    scene.still_fine()


def test_a_switch_to_something_else_is_told_to_the_browser_as_a_websocket_or_not_at_all(scene: Scene) -> None:
    def switch(device: Editor, request: Frame) -> None:
        device.respond(request["id"], 101, [("Upgrade", "h2c"), ("X-Evil", "1"), *switching(request)[1:]])

    scene.device.script = switch
    page, sock = scene.tab.upgrade()
    sock.close()
    assert page.status == 502 or page.all("Upgrade") == ["websocket"]
    assert not page.all("X-Evil")
    scene.still_fine()


def test_a_socket_carries_bytes_both_ways_and_ends_with_the_device(scene: Scene) -> None:
    """The control of the refusals around it: a right answer opens the socket."""
    scene.device.script = lambda device, request: device.respond(request["id"], 101, switching(request))
    page, sock = scene.tab.upgrade()
    with sock:
        assert page.status == 101
        stream = scene.device.requests[0]["id"]
        scene.device.chunk(stream, b"\x81\x02hi")
        assert sock.recv(100) == b"\x81\x02hi"
        sock.sendall(b"\x81\x80\0\0\0\0")
        until(lambda: scene.device.body(stream) == b"\x81\x80\0\0\0\0")
        scene.device.send({"type": "cancel", "id": stream, "error": "gone", "code": "CLOSED"})
        assert sock.recv(100) == b""
    scene.still_fine()


def test_a_device_that_goes_takes_its_streams_along(scene: Scene, gateways: Any) -> None:
    """Of a device that is not the others': it is disconnected in the middle of an answer."""
    device, key = make.device(scene.org)
    editor = Editor(gateways.url(0), device.id, key)
    tab = Tab.open(scene.operator, device.id)
    editor.script = lambda one, request: (one.respond(request["id"]), one.chunk(request["id"], b"he"), one.close())[0]
    page = tab.get("/half", timeout=15)
    assert not page.whole
    assert tab.get("/after").status == 503


def test_no_secret_of_the_editor_is_in_the_logs(scene: Scene) -> None:
    scene.tab.get("/logged")
    text = scene.platform.logs()
    assert scene.tab.cookie not in text
    assert "ticket=" not in text
