"""Invariant S11, from the browser's side: tickets, cookies, other sites, other hosts, and requests that are two.

What is not allowed must have no effect: the devices are asked, afterwards, what has reached them.
"""

import socket
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import text

from app import db
from tests import make
from tests.edge_nodes.conftest import Scene
from tests.edge_nodes.hostile import (
    COOKIE,
    WINDOW,
    WS_KEY,
    Tab,
    everything,
    names,
    polite,
    settled,
    switching,
    talk,
    ticket_url,
    until,
)

pytestmark = pytest.mark.xdist_group("gateways")

Headers = list[tuple[str, str]]


def untouched(scene: Scene) -> None:
    """Nothing has reached the devices: what would be under way has had its time, and others get through."""
    settled(0.15)
    for tab, device in ((scene.tab, scene.device), (scene.sibling_tab, scene.sibling)):
        assert tab.get("/barrier").status == 200
        assert [one["target"] for one in device.requests] == ["/barrier"]


# What reaches the device


def test_our_cookie_never_reaches_the_device_and_its_own_do(scene: Scene) -> None:
    cookie = f"a=1; {COOKIE}={scene.tab.cookie}; __Host-{COOKIE}={scene.tab.cookie}; b=2; {COOKIE}=old"
    assert scene.tab.get("/", ("Cookie", cookie)).status == 200
    (request,) = scene.device.requests
    sent = [value for name, value in request["headers"] if name.lower() == "cookie"]
    assert [pair.strip() for value in sent for pair in value.split(";")] == ["a=1", "b=2"]
    assert scene.tab.cookie not in str(request)


def test_the_editors_own_login_passes(scene: Scene) -> None:
    """It belongs to the device's origin, to which a browser never sends a token of ours."""
    scene.tab.get("/flows", ("Authorization", "Bearer of-the-editor"), ("X-Own", "yes"))
    (request,) = scene.device.requests
    assert {"authorization", "x-own"} <= names(request)


OURS: Headers = [
    ("X-API-Key", "edgeflow_key"), ("X-Organization-Id", "x"), ("X-EdgeFlow-Anything", "x"), ("Forwarded", "for=evil"),
    ("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-User", "root"), ("Via", "1.1 evil"), ("Keep-Alive", "1"),
    ("Proxy-Authorization", "Basic eA=="), ("TE", "trailers"), ("Trailer", "X-A"), ("Proxy-Connection", "close"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), OURS, ids=[name for name, _ in OURS])
def test_a_header_that_is_not_the_editors_stays_here(scene: Scene, name: str, value: str) -> None:
    assert scene.tab.get("/", (name, value)).status == 200
    (request,) = scene.device.requests
    assert value not in [given for key, given in request["headers"] if key.lower() == name.lower()]


def test_a_header_that_connection_names_stays_here(scene: Scene) -> None:
    scene.tab.get("/", ("Connection", "close, X-Hop"), ("X-Hop", "1"))
    (request,) = scene.device.requests
    assert "x-hop" not in names(request)


# Tickets


def page_of(scene: Scene, url: str, host: str | None = None) -> Any:
    address = urlsplit(url)
    return Tab(scene.tab.port, host or address.netloc).get(f"{address.path}?{address.query}")


def test_a_ticket_opens_once(scene: Scene) -> None:
    url = ticket_url(scene.operator, scene.device.device_id)
    assert page_of(scene, url).status == 303
    again = page_of(scene, url)
    assert again.status == 403
    assert not again.all("Set-Cookie")
    untouched(scene)


def test_a_ticket_opens_no_other_device_and_is_not_spent_by_the_try(scene: Scene) -> None:
    url = ticket_url(scene.operator, scene.device.device_id)
    refused = page_of(scene, url, scene.sibling_tab.host)
    assert refused.status == 403
    assert not refused.all("Set-Cookie")
    untouched(scene)


def test_a_ticket_ends_after_its_minute(scene: Scene) -> None:
    url = ticket_url(scene.operator, scene.device.device_id)
    with db.transaction(scene.org) as session:
        expired = session.execute(
            text("UPDATE editor_sessions SET ticket_expires_at = now() - interval '1 s' WHERE cookie_hash IS NULL")
        )
        assert expired.rowcount  # type: ignore[attr-defined]
    page = page_of(scene, url)
    assert page.status == 403
    assert not page.all("Set-Cookie")


@pytest.mark.parametrize(
    "query", ["ticket=", "", "ticket=%00", "ticket=" + "a" * 9000, "ticket=x&ticket=y", "ticket=%ff"]
)
def test_a_ticket_that_was_never_given_opens_nothing(scene: Scene, query: str) -> None:
    page = Tab(scene.tab.port, scene.tab.host).get(f"/__edgeflow/open?{query}")
    assert page.status in {400, 403, 414}
    assert not page.all("Set-Cookie")
    untouched(scene)


def test_another_organization_gets_no_ticket(scene: Scene) -> None:
    answer = scene.stranger("GET", f"/edge-nodes/{scene.device.device_id}/editor-url")
    assert answer.status_code == 404


def test_the_ticket_never_reaches_the_device_nor_lasts_in_the_address(scene: Scene) -> None:
    url = ticket_url(scene.operator, scene.device.device_id)
    page = page_of(scene, url)
    assert page.all("Location") == ["/"]
    assert page.all("Referrer-Policy")
    assert scene.device.requests == []


def test_a_ticket_is_for_get_alone(scene: Scene) -> None:
    """A link checker's HEAD, or a form of another site, does not spend it."""
    url = ticket_url(scene.operator, scene.device.device_id)
    address = urlsplit(url)
    for method in ("HEAD", "POST"):
        page = Tab(scene.tab.port, address.netloc).ask(method, f"{address.path}?{address.query}")
        assert page.status in {403, 404, 405}
        assert not page.all("Set-Cookie")
    assert page_of(scene, url).status == 303


@pytest.mark.parametrize("header", ["Sec-Purpose", "Purpose"])
def test_a_browser_that_fetches_links_ahead_does_not_spend_the_ticket(scene: Scene, header: str) -> None:
    url = ticket_url(scene.operator, scene.device.device_id)
    address = urlsplit(url)
    ahead = Tab(scene.tab.port, address.netloc).get(f"{address.path}?{address.query}", (header, "prefetch"))
    assert ahead.status == 403
    assert not ahead.all("Set-Cookie")
    assert page_of(scene, url).status == 303


# Cookies


def test_a_cookie_opens_its_own_device_alone(scene: Scene) -> None:
    page = Tab(scene.tab.port, scene.sibling_tab.host, scene.tab.cookie).get("/evil")
    assert page.status in {401, 403}
    untouched(scene)


COOKIES = ["", "x", "%00", "a" * 5000, "../../x", '"', "=", "\xff\xfe"]


@pytest.mark.parametrize("value", COOKIES, ids=[f"{value[:8]!r}" for value in COOKIES])
def test_a_cookie_that_was_never_given_opens_nothing(scene: Scene, value: str) -> None:
    page = Tab(scene.tab.port, scene.tab.host).get("/evil", ("Cookie", f"{COOKIE}={value}"))
    assert page.status in {400, 401, 403}
    untouched(scene)


def test_a_cookie_tossed_by_a_sibling_neither_opens_nor_locks_out(scene: Scene) -> None:
    """A sibling's script may set our name for the parent domain; browsers then send both, in either order."""
    mine, tossed = f"{COOKIE}={scene.tab.cookie}", f"{COOKIE}={scene.sibling_tab.cookie}"
    for cookie in (f"{tossed}; {mine}", f"{mine}; {tossed}", f"{COOKIE}=x; {tossed}; {mine}"):
        assert scene.tab.get("/both", ("Cookie", cookie)).status == 200
    assert scene.tab.get("/tossed", ("Cookie", tossed)).status in {401, 403}
    assert [one["target"] for one in scene.device.requests] == ["/both"] * 3
    assert scene.sibling.requests == []


def test_many_tossed_cookies_neither_open_nor_lock_out(scene: Scene) -> None:
    """Browsers send cookies of longer paths first: a sibling can put as many before ours as a jar holds for a site."""
    tossed = "; ".join(f"{COOKIE}={number}" for number in range(180))
    assert scene.tab.get("/many", ("Cookie", tossed)).status in {401, 403}
    assert scene.tab.get("/mine", ("Cookie", f"{tossed}; {COOKIE}={scene.tab.cookie}")).status == 200
    assert [one["target"] for one in scene.device.requests] == ["/mine"]


# Other sites

FOREIGN: dict[str, Headers] = {
    "another site": [("Origin", "https://evil.test")],
    "a sibling device": [("Origin", "http://11111111-1111-4111-8111-111111111111.edit.localhost")],
    "a sandbox, or a redirect": [("Origin", "null")],
    "the API": [("Origin", "http://127.0.0.1")],
    "our host on another port": [("Origin", "HOST:1")],
    "our host by https": [("Origin", "HTTPS")],
    "our host as the beginning of another": [("Origin", "HOST.evil.test")],
    "nobody says who": [("Origin", "")],
    "two origins, one of them right": [("Origin", "https://evil.test"), ("Origin", "OWN")],
    "a browser that says cross-site": [("Sec-Fetch-Site", "cross-site")],
    "a browser that says same-site, as for a sibling device": [("Sec-Fetch-Site", "same-site")],
}


def _filled(scene: Scene, headers: Headers) -> Headers:
    host = scene.tab.host.partition(":")[0]
    words = {"OWN": scene.tab.origin, "HTTPS": f"https://{scene.tab.host}"}
    return [(name, words.get(value, value.replace("HOST", f"http://{host}"))) for name, value in headers]


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_a_write_is_refused_that_comes_from(scene: Scene, headers: Headers) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert scene.tab.ask(method, "/flows", *_filled(scene, headers), body=b"[]").status == 403
    untouched(scene)


def test_a_method_that_no_editor_needs_is_refused(scene: Scene) -> None:
    for method in ("PROPFIND", "CONNECT", "TRACE", "X"):
        assert scene.tab.ask(method, "/flows").status in {400, 405}
    untouched(scene)


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_a_socket_is_refused_that_comes_from(scene: Scene, headers: Headers) -> None:
    page, sock = scene.tab.upgrade("/comms", *_filled(scene, headers))
    sock.close()
    assert page.status == 403
    untouched(scene)


def test_a_write_without_an_origin_is_refused(scene: Scene) -> None:
    raw = (
        scene.tab.head("GET", "/flows")
        .replace(b"GET", b"POST", 1)
        .replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n")
    )
    assert talk(scene.tab.port, raw).startswith(b"HTTP/1.1 403")
    untouched(scene)


READS = {
    "an image on another site": ("cross-site", "no-cors", "image", False),
    "a script on a sibling device": ("same-site", "no-cors", "script", False),
    "a fetch of a sibling device": ("same-site", "cors", "empty", False),
    "a frame on another site": ("cross-site", "navigate", "iframe", False),
    "a link on another site, which a person follows": ("cross-site", "navigate", "document", True),
    "the editor's own page": ("same-origin", "cors", "empty", True),
    "the address bar": ("none", "navigate", "document", True),
}


@pytest.mark.parametrize(("site", "mode", "destination", "allowed"), READS.values(), ids=READS)
def test_a_read_by(scene: Scene, site: str, mode: str, destination: str, allowed: bool) -> None:
    headers = [("Sec-Fetch-Site", site), ("Sec-Fetch-Mode", mode), ("Sec-Fetch-Dest", destination)]
    page = scene.tab.get("/read", *headers)
    if allowed:
        assert page.status == 200
    else:
        assert page.status == 403
        untouched(scene)


def test_a_service_worker_that_would_outlive_the_session_is_not_fetched(scene: Scene) -> None:
    assert scene.tab.get("/worker.js", ("Service-Worker", "script"), ("Sec-Fetch-Dest", "serviceworker")).status == 403
    untouched(scene)


# Other hosts


@pytest.mark.parametrize("path", ["/api/v1/devices", "/healthz", "/tunnel", "/internal/metrics", "/api/v1/auth/login"])
def test_on_the_editors_host_a_path_of_the_api_is_the_devices(scene: Scene, path: str) -> None:
    scene.device.script = lambda device, request: device.respond(request["id"], 418, [], b"device")
    page = scene.tab.get(path, ("X-API-Key", make.api_key(scene.org)))
    assert (page.status, page.body) == (418, b"device")
    assert [one["target"] for one in scene.device.requests] == [path]


@pytest.mark.parametrize("path", ["/", "/flows", "/comms", "/red/red.min.js", "/__edgeflow/open?ticket=x", "//flows"])
def test_on_the_apis_host_a_path_of_an_editor_is_nobodys(scene: Scene, path: str) -> None:
    api = Tab(scene.tab.port, f"127.0.0.1:{scene.tab.port}", scene.tab.cookie)
    assert api.get(path).status in {404, 308, 302}
    untouched(scene)


def test_on_the_apis_host_the_editors_cookie_is_no_credential(scene: Scene) -> None:
    api = Tab(scene.tab.port, f"127.0.0.1:{scene.tab.port}", scene.tab.cookie)
    assert api.get("/api/v1/devices").status == 401
    bearer = api.get(
        "/api/v1/devices", ("Authorization", f"Bearer {scene.tab.cookie}"), ("X-API-Key", scene.tab.cookie)
    )
    assert bearer.status == 401


HOSTS = {
    "a device that there is not": "11111111-1111-4111-8111-111111111111.edit.localhost:{port}",
    "our domain as the beginning of another": "{own}.edit.localhost.evil.test:{port}",
    "our domain as the end of another": "{own}.evil-edit.localhost:{port}",
    "a label before the device": "x.{own}.edit.localhost:{port}",
    "letters before the device": "x{own}.edit.localhost:{port}",
    "no device": "edit.localhost:{port}",
    "an empty device": ".edit.localhost:{port}",
    "a device without its dashes": "{bare}.edit.localhost:{port}",
    "user information": "{own}.edit.localhost:{port}@127.0.0.1",
    "a port that is none": "{own}.edit.localhost:x",
    "a path": "127.0.0.1/{own}.edit.localhost:{port}",
    "a comma": "127.0.0.1, {own}.edit.localhost:{port}",
    "nothing": "",
}


@pytest.mark.parametrize("host", HOSTS.values(), ids=HOSTS)
def test_a_host_leads_to_no_editor_that_is(scene: Scene, host: str) -> None:
    own = scene.device.device_id
    filled = host.format(own=own, bare=own.replace("-", ""), port=scene.tab.port)
    page = Tab(scene.tab.port, filled, scene.tab.cookie).get("/evil")
    assert page.status >= 400 or page.status == 0
    untouched(scene)


@pytest.mark.parametrize("spelling", ["upper case", "a trailing dot", "without its port"])
def test_a_host_spelled_otherwise_is_the_same_device_or_none(scene: Scene, spelling: str) -> None:
    """Never the API: what a browser shows as the editor's host must not serve it."""
    name, _, port = scene.tab.host.partition(":")
    host = {"upper case": scene.tab.host.upper(), "a trailing dot": f"{name}.:{port}", "without its port": name}[
        spelling
    ]
    page = Tab(scene.tab.port, host, scene.tab.cookie).get("/api/v1/openapi.json")
    assert b'"openapi"' not in page.body
    assert page.status in {200, 400, 401, 403, 404, 421}
    assert not scene.sibling.requests


@pytest.mark.parametrize("header", ["X-Forwarded-Host", "X-Host", "X-Original-Host", "Forwarded"])
def test_a_forwarded_host_leads_nowhere_without_a_proxy(scene: Scene, header: str) -> None:
    value = f"host={scene.tab.host}" if header == "Forwarded" else scene.tab.host
    page = Tab(scene.tab.port, f"127.0.0.1:{scene.tab.port}", scene.tab.cookie).get("/flows", (header, value))
    assert page.status == 404
    untouched(scene)


def test_two_hosts_are_a_bad_request(scene: Scene) -> None:
    raw = scene.tab.head("GET", "/evil").replace(b"\r\n", f"\r\nHost: {scene.sibling_tab.host}\r\n".encode(), 1)
    assert b" 200 " not in talk(scene.tab.port, raw, 3).split(b"\r\n")[0]
    assert not [one for one in scene.sibling.requests if one["target"] == "/evil"]


# Viewers


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_viewer_changes_nothing(scene: Scene, method: str) -> None:
    tab = Tab.open(scene.viewer, scene.device.device_id)
    assert tab.get("/flows").status == 200
    scene.device.requests.clear()
    assert tab.ask(method, "/flows", body=b"[]").status == 403
    untouched(scene)


def test_a_viewer_cannot_change_by_a_read_that_says_it_is_a_write(scene: Scene) -> None:
    tab = Tab.open(scene.viewer, scene.device.device_id)
    tab.get("/flows", ("X-HTTP-Method-Override", "DELETE"), ("X-Method-Override", "PUT"), ("X-HTTP-Method", "POST"))
    (request,) = scene.device.requests
    assert request["method"] == "GET"
    assert not names(request) & {"x-http-method-override", "x-method-override", "x-http-method"}


def test_a_viewer_listens_to_the_editors_events_and_opens_no_other_socket(scene: Scene) -> None:
    tab = Tab.open(scene.viewer, scene.device.device_id)
    scene.device.script = lambda device, request: device.respond(request["id"], 101, switching(request))
    page, sock = tab.upgrade("/comms")
    sock.close()
    assert page.status == 101
    for path in ("/shell", "/comms/../shell", "/comms/x", "/COMMS", "/xcomms", "/%63omms/../shell"):
        page, sock = tab.upgrade(path)
        sock.close()
        assert page.status in {400, 403}, path
    assert [one["target"] for one in scene.device.requests] == ["/comms"]


# Requests that are two


SHAPES = {
    "both lengths": "Content-Length: {more}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two different lengths": "Content-Length: 0\r\nContent-Length: {length}\r\n\r\n",
    "a list of lengths": "Content-Length: 0, {length}\r\n\r\n",
    "a length with a sign": "Content-Length: +0\r\n\r\n",
    "a length in hexadecimal": "Content-Length: 0x0\r\n\r\n",
    "an unknown coding": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a coding after a vertical tab": "Transfer-Encoding:\x0bchunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "chunked twice": "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "a folded coding": "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a folded header": "X-A: b\r\n Content-Length: 0\r\n\r\n",
    "a space before the colon": "Content-Length : 0\r\n\r\n",
    "a header without a colon": "Evil\r\n\r\n",
    "a chunk size that is none": "Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "a chunk size in another base": "Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n",
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_request_that_hides_a_second_one_by(scene: Scene, shape: str) -> None:
    """What two servers might read differently is refused: no second request comes of it."""
    second = scene.tab.head("GET", "/second")
    filled = shape.format(length=len(second), more=len(second) + 5).encode()
    first = scene.tab.head("POST", "/first", close=False).replace(b"Content-Length: 0\r\n\r\n", b"")
    answer = talk(scene.tab.port, first + filled + second, 3)
    settled(0.2)
    assert "/second" not in [one["target"] for one in scene.device.requests]
    assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")) or not answer


def test_two_requests_on_a_connection_are_two(scene: Scene) -> None:
    """The control of the shapes above: without a trick the first one does reach the device."""
    first = scene.tab.head("POST", "/first", close=False)
    talk(scene.tab.port, first + scene.tab.head("GET", "/second"), 3)
    assert {"/first"} <= {one["target"] for one in scene.device.requests} <= {"/first", "/second"}


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1/api/v1/devices", "//evil.test/x", "*", "flows", "/a\x01b", "/a#b"]
)
def test_a_target_that_names_another_place_stays_with_this_device(scene: Scene, target: str) -> None:
    page = scene.tab.get(target)
    assert page.status in {0, 200, 400, 403, 404}
    for one in scene.device.requests:
        assert one["target"].startswith("/")
        assert not set(one["target"]) & {" ", "\r", "\n", "\x01"}
    assert not scene.sibling.requests


def test_a_head_of_40_kib_is_refused(scene: Scene) -> None:
    assert scene.tab.get("/", *[(f"X-{number}", "b" * 4000) for number in range(10)]).status in {400, 431}
    untouched(scene)


def test_a_body_streams_within_the_devices_window_and_no_further(scene: Scene) -> None:
    """A device that gives no credit gets a window of 64 MB, and the rest is not read; credit lets more follow."""
    scene.device.script = lambda device, request: None
    before = scene.memory()
    with socket.create_connection(("127.0.0.1", scene.tab.port), 10) as sock:
        sock.sendall(scene.tab.head("POST", "/upload", length=64 * 1024 * 1024))
        sock.settimeout(1)
        with pytest.raises(TimeoutError):
            sock.sendall(bytes(64 * 1024 * 1024))
        (request,) = scene.device.requests
        assert len(scene.device.body(request["id"])) == WINDOW
        assert scene.memory() - before < 24_000_000
        scene.device.send({"type": "credit", "id": request["id"], "bytes": 1000})
        until(lambda: len(scene.device.body(request["id"])) == WINDOW + 1000)
    scene.still_fine()


def test_a_body_cut_short_is_never_told_as_whole(scene: Scene) -> None:
    scene.device.script = lambda device, request: None
    with socket.create_connection(("127.0.0.1", scene.tab.port), 10) as sock:
        sock.sendall(scene.tab.head("POST", "/upload", length=1000) + b"half")
        settled(0.5)
    (request,) = scene.device.requests
    assert scene.device.wait("cancel", request["id"], 15)
    ends = [frame for frame in scene.device.heard if frame["type"] == "chunk" and frame.get("end")]
    assert not ends


def test_a_slow_head_of_one_browser_holds_nobody_up(scene: Scene) -> None:
    socks = [socket.create_connection(("127.0.0.1", scene.tab.port), 10) for _ in range(100)]
    try:
        for sock in socks:
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {scene.tab.host}\r\nX-Slow: ".encode())
        scene.device.script = polite
        assert scene.tab.get("/quick", timeout=3).status == 200
    finally:
        for sock in socks:
            sock.close()


def test_an_upgrade_to_something_else_is_no_socket(scene: Scene) -> None:
    headers = [("Connection", "Upgrade"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA")]
    scene.tab.get("/", *headers)
    assert not [one for one in scene.device.requests if one["upgrade"] or "upgrade" in names(one)]


def test_a_post_with_an_upgrade_is_no_socket(scene: Scene) -> None:
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]
    raw = scene.tab.head("GET", "/comms", *upgrade, ("Sec-WebSocket-Key", WS_KEY), ("Origin", scene.tab.origin))
    with socket.create_connection(("127.0.0.1", scene.tab.port), 10) as sock:
        sock.sendall(raw.replace(b"GET", b"POST", 1))
        assert b" 101 " not in everything(sock, 2).split(b"\r\n")[0]
    assert not [one for one in scene.device.requests if one["upgrade"]]
