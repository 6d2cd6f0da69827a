"""Which requests reach a device's editor at all. Pure."""

from collections.abc import Mapping
from typing import Any

from app.edge_nodes.editor.origin import Place
from app.edge_nodes.editor.pages import Refused
from app.tunnel.streams import HEADERS_BYTES

READING = frozenset({"GET", "HEAD"})
METHODS = READING | {"POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
LISTENING = ("/comms",)
"""Ends of the paths of WebSockets that only tell what happens (Node-RED's), and so are open to viewers."""


def is_upgrade(environ: Mapping[str, Any]) -> bool:
    """Whether the browser asks for a WebSocket."""
    wanted = {token.strip().lower() for token in str(environ.get("HTTP_CONNECTION", "")).split(",")}
    protocol = str(environ.get("HTTP_UPGRADE", "")).strip().lower()
    return environ["REQUEST_METHOD"] == "GET" and protocol == "websocket" and "upgrade" in wanted


def target(environ: Mapping[str, Any]) -> str:
    """Path and query as the browser sent them. Raises Refused."""
    raw = str(environ.get("RAW_URI", "")).partition("#")[0]
    if not raw.startswith("/") or not all("!" <= char <= "~" for char in raw):
        raise Refused(400, "Bad request", "The address is not valid.", "address")
    return raw


def check(environ: Mapping[str, Any], place: Place) -> None:
    """Refuse what another site makes a browser ask, and what no editor needs. Raises Refused."""
    method, upgrade = environ["REQUEST_METHOD"], is_upgrade(environ)
    if method not in METHODS:
        raise Refused(405, "Not allowed", "Editors do not take such requests.", "method")
    if sum(len(key) + len(value) for key, value in environ.items() if key.startswith("HTTP_")) > HEADERS_BYTES:
        raise Refused(431, "Too much", "The request's head is too large.", "head")
    if environ.get("HTTP_SERVICE_WORKER"):
        raise Refused(403, "Not allowed", "Editors cannot install service workers.", "worker")
    origin = environ.get("HTTP_ORIGIN")
    if origin is None and (upgrade or method not in READING):
        raise _cross_site()
    if origin is not None and origin.lower() != place.origin:
        raise _cross_site()
    if environ.get("HTTP_SEC_FETCH_SITE") in ("same-site", "cross-site") and not _opens_a_page(environ):
        raise _cross_site()


def _opens_a_page(environ: Mapping[str, Any]) -> bool:
    """A person follows a link, and sees in the address bar where it leads."""
    return (
        environ["REQUEST_METHOD"] in READING
        and environ.get("HTTP_SEC_FETCH_MODE") == "navigate"
        and environ.get("HTTP_SEC_FETCH_DEST") == "document"
    )


def check_reading(environ: Mapping[str, Any]) -> None:
    """Refuse what a viewer may not. Raises Refused."""
    if writes(environ):
        raise Refused(403, "Read only", "Your role may look at this editor, and change nothing.", "viewer")


def writes(environ: Mapping[str, Any]) -> bool:
    """Whether a request may change something on the device, or is a socket that does more than tell."""
    if is_upgrade(environ):
        return not str(environ.get("RAW_URI", "")).partition("?")[0].endswith(LISTENING)
    return environ["REQUEST_METHOD"] not in READING or bool(has_body(environ))


def has_body(environ: Mapping[str, Any]) -> bool:
    return environ.get("CONTENT_LENGTH", "0") not in ("", "0") or "HTTP_TRANSFER_ENCODING" in environ


def _cross_site() -> Refused:
    return Refused(403, "Not allowed", "Another site asked for this.", "cross-site")
