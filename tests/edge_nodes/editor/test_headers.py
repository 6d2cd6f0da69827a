"""What passes between a browser and a device's editor, header by header."""

from uuid import UUID

import pytest

from app.edge_nodes.editor import headers, origin
from app.edge_nodes.editor.headers import BadHeaders
from config.settings import SettingsError, load, settings

DEVICE = "3f2b8c1e-5d0a-4b7e-9c55-0e6f3a1d2b4c"
ORIGIN = f"http://{DEVICE}.edit.localhost:8080"
ADDED = {name for name, _value in headers.ADDED}


def shown(*given: tuple[str, str]) -> list[tuple[str, str]]:
    return [pair for pair in headers.to_browser(list(given), ORIGIN) if pair not in headers.ADDED]


@pytest.mark.parametrize(
    "name",
    ["Connection", "Transfer-Encoding", "Upgrade", "Keep-Alive", "Strict-Transport-Security", "Public-Key-Pins",
     "Alt-Svc", "Clear-Site-Data", "Report-To", "NEL", "Reporting-Endpoints", "Service-Worker-Allowed", "Server",
     "Access-Control-Allow-Origin", "access-control-allow-credentials", "X-Accel-Redirect", "X-Sendfile", "Date",
     "Cross-Origin-Resource-Policy", "Origin-Agent-Cluster"],
)  # fmt: skip
def test_what_a_device_may_not_tell_a_browser(name: str) -> None:
    assert shown((name, "x"), ("X-Own", "1")) == [("X-Own", "1")]


def test_what_connection_names_is_of_the_connection() -> None:
    assert shown(("Connection", "close, X-Hop"), ("X-Hop", "1"), ("X-Own", "1")) == [("X-Own", "1")]


def test_the_devices_own_policy_stays_beside_ours() -> None:
    given = headers.to_browser([("Content-Security-Policy", "default-src 'self'")], ORIGIN)
    policies = [value for name, value in given if name == "Content-Security-Policy"]
    assert policies == ["default-src 'self'", "frame-ancestors 'self'"]


@pytest.mark.parametrize(
    "pair",
    [("X-A", "1\r\nSet-Cookie: a=b"), ("X-A", "1\n"), ("X-A", "a\0b"), ("X A", "1"), ("", "1"), ("X:A", "1"),
     ("X-A", "ł")],
)  # fmt: skip
def test_headers_that_are_none_are_refused(pair: tuple[str, str]) -> None:
    with pytest.raises(BadHeaders):
        headers.to_browser([pair], ORIGIN)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("a=b; Path=/; HttpOnly", "a=b; Path=/; HttpOnly"),
        ("a=b; Domain=edit.localhost; Path=/", "a=b; Path=/"),
        ("a=b;\tDOMAIN = .localhost", "a=b"),
        ("edgeflow_editor=x", None),
        (" EdgeFlow_Editor\t=x", None),
        ("__Host-edgeflow_editor=x; Path=/; Secure", None),
        ("__Secure-a=x; Secure", None),
        ("=edgeflow_editor=x", None),
        ("edgeflow_editor", None),
        ("", None),
    ],
)
def test_a_devices_cookies_are_its_own(given: str, kept: str | None) -> None:
    assert headers.set_cookies([("set-cookie", given)]) == ([("Set-Cookie", kept)] if kept else [])


def test_cookies_are_bounded() -> None:
    assert len(headers.set_cookies([("Set-Cookie", f"a{number}=b") for number in range(90)])) == headers.MAX_COOKIES


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("http://127.0.0.1:1880/red/?a=b#c", f"{ORIGIN}/red/?a=b#c"),
        ("http://localhost:1880", f"{ORIGIN}/"),
        ("http://[::1]:1880/x", f"{ORIGIN}/x"),
        ("/red/", "/red/"),
        ("https://nodered.org/docs", "https://nodered.org/docs"),
        ("http://127.0.0.1.evil.example/", "http://127.0.0.1.evil.example/"),
        ("http://[broken", "http://[broken"),
    ],
)
def test_redirects_to_the_devices_own_address_stay_on_its_origin(given: str, kept: str) -> None:
    assert shown(("Location", given)) == [("Location", kept)]


@pytest.mark.parametrize("given", [["5", "6"], ["-1"], ["0x10"], ["5, 5"], [""]])
def test_lengths_that_are_none(given: list[str]) -> None:
    with pytest.raises(BadHeaders):
        headers.length([("Content-Length", value) for value in given])


def test_what_a_device_gets_of_a_request() -> None:
    environ = {
        "HTTP_HOST": f"{DEVICE}.edit.localhost", "HTTP_CONNECTION": "keep-alive, X-Hop", "HTTP_X_HOP": "1",
        "HTTP_COOKIE": "edgeflow_editor=secret; a=b; __Host-edgeflow_editor=secret;c=d,edgeflow_editor=secret",
        "HTTP_AUTHORIZATION": "Bearer of-the-editor", "HTTP_X_FORWARDED_FOR": "10.0.0.1",
        "HTTP_X_EDGEFLOW_ROLE": "owner",
        "HTTP_X_ORGANIZATION_ID": "1", "HTTP_X_API_KEY": "edgeflow_x", "HTTP_FORWARDED": "for=1", "HTTP_VIA": "x",
        "HTTP_TRANSFER_ENCODING": "chunked", "HTTP_ACCEPT": "*/*", "CONTENT_TYPE": "text/plain", "CONTENT_LENGTH": "5",
        "HTTP_X_HTTP_METHOD_OVERRIDE": "DELETE", "REMOTE_ADDR": "10.0.0.1",
    }  # fmt: skip
    got = headers.to_device(environ, "http", upgrade=False, read_only=True)
    assert sorted(map(tuple, got)) == [
        ("Accept", "*/*"), ("Authorization", "Bearer of-the-editor"), ("Content-Length", "5"),
        ("Content-Type", "text/plain"), ("Cookie", "a=b"), ("X-Forwarded-Host", f"{DEVICE}.edit.localhost"),
        ("X-Forwarded-Proto", "http"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("host", "found"),
    [
        (f"{DEVICE}.edit.localhost:8080", True),
        (f"{DEVICE}.edit.localhost", True),
        (f"{DEVICE.upper()}.EDIT.localhost:8080", True),
        (f"{DEVICE}.edit.localhost.", True),
        ("edit.localhost:8080", False),
        (f"{DEVICE}.edit.localhost.evil.example", False),
        (f"x{DEVICE}.edit.localhost", False),
        (f"{DEVICE}.edit.localhost:80:80", False),
        (f"{DEVICE}xeditxlocalhost", False),
        ("127.0.0.1:8080", False),
        ("", False),
    ],
)
def test_whose_editor_a_host_names(host: str, found: bool) -> None:
    place = origin.place_of(host)
    assert (place.device_id if place else None) == (UUID(DEVICE) if found else None)


@pytest.mark.parametrize(
    "raw",
    ["https://edit.example.com", "https://{device}", "ftp://{device}.edit.example.com", "https://{device}.example.com/x",
     "https://a.{device}.example.com", "https://{device}.{device}.example.com", "https://u@{device}.example.com"],
)  # fmt: skip
def test_an_editor_url_that_cannot_be_used_stops_the_start(raw: str) -> None:
    with pytest.raises(SettingsError, match=r"^EDGEFLOW_EDITOR_URL"):
        load({"EDGEFLOW_EDITOR_URL": raw})


def test_a_production_that_was_not_told_has_no_editors() -> None:
    told = {"EDGEFLOW_ENV": "production", "EDGEFLOW_SECRET_KEY": "s" * 40, "EDGEFLOW_JWT_SECRET_KEY": "j" * 40,
            "DATABASE_URL": "postgresql://db.example.com/edgeflow", "REDIS_URL": "redis://r.example.com"}  # fmt: skip
    assert load(told).editors == ""
    given = load({**told, "EDGEFLOW_EDITOR_URL": "https://{device}.edit.example.com"})
    assert given.editors == "https://{device}.edit.example.com"
    assert settings().editors.startswith("http://{device}.edit.localhost:")
