"""What passes between a browser and a device's editor, header by header. Pure.

To the device: nothing of ours and nothing of the connection. To the browser: nothing that reaches beyond the device's
own origin, now or later (cookies of a wider domain, lasting promises about the host, workers of its own).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

Headers = list[tuple[str, str]]

COOKIES = {False: "edgeflow_editor", True: "__Host-edgeflow_editor"}
"""The name of our cookie, by whether the origin is secure."""

MAX_COOKIES = 50
MAX_TRIED = 200
"""More cookies of our name than browsers keep for a site: a sibling's page may put that many before ours."""
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[ \t\x21-\x7e\x80-\xff]*")
_HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer",
     "transfer-encoding", "upgrade", "http2-settings"}
)  # fmt: skip
_NOT_TO_DEVICE = _HOP_BY_HOP | {
    "host", "cookie", "forwarded", "via", "expect", "x-organization-id", "x-api-key", "x-request-id", "x-real-ip",
}  # fmt: skip
_NOT_TO_BROWSER = _HOP_BY_HOP | {
    "set-cookie", "set-cookie2", "location", "content-length", "date", "server", "strict-transport-security",
    "public-key-pins", "public-key-pins-report-only", "expect-ct", "alt-svc", "clear-site-data", "report-to", "nel",
    "reporting-endpoints", "service-worker-allowed", "x-sendfile", "cross-origin-resource-policy", "referrer-policy",
    "origin-agent-cluster", "via", "x-request-id", "proxy-status",
}  # fmt: skip
_METHOD_OVERRIDES = frozenset({"x-http-method", "x-http-method-override", "x-method-override"})
_LOOPBACK = re.compile(r"localhost|127(\.\d{1,3}){3}|::1", re.IGNORECASE)
ADDED: Headers = [
    ("Content-Security-Policy", "frame-ancestors 'self'"),  # beside the device's own: both hold
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "same-origin"),
    ("Origin-Agent-Cluster", "?1"),
]


class BadHeaders(ValueError):
    """Headers of a device that cannot be passed on."""


def cookies_of(header: str) -> list[str]:
    """The values of our cookie among all; there may be several."""
    pairs = (part.strip().partition("=") for part in header.split(";"))
    return [value for name, _, value in pairs if name in COOKIES.values() and value][:MAX_TRIED]


def _without_ours(header: str) -> str:
    """Not by name alone: where two headers were joined by a comma, ours stands in the middle of a value."""
    return ";".join(part for part in header.split(";") if not any(name in part for name in COOKIES.values())).strip()


def to_device(environ: Mapping[str, Any], scheme: str, *, upgrade: bool, read_only: bool) -> list[list[str]]:
    """The request's headers as the device gets them."""
    named = {name.strip().lower() for name in str(environ.get("HTTP_CONNECTION", "")).split(",")}
    dropped = _NOT_TO_DEVICE | named | (_METHOD_OVERRIDES if read_only else frozenset())
    headers = [[name, value] for name, value in _of(environ) if _passes(name.lower(), dropped)]
    cookies = _without_ours(str(environ.get("HTTP_COOKIE", "")))
    if cookies:
        headers.append(["Cookie", cookies])
    forwarded = [["X-Forwarded-Host", str(environ.get("HTTP_HOST", ""))], ["X-Forwarded-Proto", scheme]]
    return [*([] if upgrade else _length(environ)), *headers, *forwarded]


def _passes(name: str, dropped: Iterable[str]) -> bool:
    return name not in dropped and not name.startswith(("x-edgeflow-", "x-forwarded-"))


def _of(environ: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if environ.get("CONTENT_TYPE"):
        yield "Content-Type", environ["CONTENT_TYPE"]
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield key[5:].replace("_", "-").title(), value


def _length(environ: Mapping[str, Any]) -> list[list[str]]:
    return [["Content-Length", environ["CONTENT_LENGTH"]]] if environ.get("CONTENT_LENGTH") else []


def to_browser(given: Headers, origin: str) -> Headers:
    """A device's headers as the browser gets them, without ``Content-Length``. Raises BadHeaders."""
    named: set[str] = set()
    for name, value in given:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise BadHeaders("a header that is none")
        if name.lower() == "connection":
            named |= {one.strip().lower() for one in value.split(",")}
    dropped = _NOT_TO_BROWSER | named
    passed = [(name, value) for name, value in given if _shown(name.lower(), dropped)]
    return [*passed, *_locations(given, origin), *set_cookies(given), *ADDED]


def _shown(name: str, dropped: Iterable[str]) -> bool:
    return name not in dropped and not name.startswith(("access-control-", "x-accel-", "x-edgeflow-"))


def length(given: Headers) -> int | None:
    """The length of the body that a device promises; None if it does not. Raises BadHeaders."""
    told = {value.strip() for name, value in given if name.lower() == "content-length"}
    if not told:
        return None
    if len(told) > 1 or not re.fullmatch(r"[0-9]{1,15}", next(iter(told))):
        raise BadHeaders("a length that is none")
    return int(told.pop())


def _locations(given: Headers, origin: str) -> Headers:
    """Redirects to the device's own loopback address lead to its origin; others stay as they are."""
    return [("Location", _relative(value, origin)) for name, value in given if name.lower() == "location"][:1]


def _relative(location: str, origin: str) -> str:
    try:
        parts = urlsplit(location)
        local = parts.scheme in ("http", "https") and _LOOPBACK.fullmatch(parts.hostname or "")
    except ValueError:
        return location
    if not local:
        return location
    return f"{origin}/{location.split('://', 1)[1].partition('/')[2]}"


def set_cookies(given: Headers) -> Headers:
    """The device's cookies, for its own host only, and none that could pass for ours."""
    values = (value for name, value in given if name.lower() == "set-cookie")
    cleaned = (_cookie(value) for value in values)
    return [("Set-Cookie", value) for value in cleaned if value][:MAX_COOKIES]


def _cookie(value: str) -> str | None:
    pair, *attributes = value.split(";")
    name, equals, _ = pair.partition("=")
    plain = name.strip(" \t").lower()
    # One without a name is sent as its value alone, which could read like ours.
    if not equals or not plain or plain.startswith(("__host-", "__secure-")) or plain in COOKIES.values():
        return None
    kept = [part for part in attributes if part.partition("=")[0].strip(" \t").lower() != "domain"]
    return ";".join([pair, *kept])
