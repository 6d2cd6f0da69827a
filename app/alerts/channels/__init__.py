"""Where alerts are told: a rule's channels as the database holds them, and as answers show them.

What a webhook's receiver trusts (its secret) and what lets anybody write to it (its address: a chat service's carries
the credential in its path, others in their query) are stored encrypted and shown once, in the answer that made them.
"""

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import structlog
from cryptography.fernet import Fernet, InvalidToken

from app.errors import ValidationFailed
from app.tokens import derive

log = structlog.get_logger(__name__)

MASK = "********"
FORMATS = ("edgeflow", "slack")
SECRET_LENGTH = (16, 200)
URL_LENGTH = 2_000

Stored = dict[str, Any]
Shown = dict[str, Any]


class Unreadable(Exception):
    """A stored channel was encrypted under another EDGEFLOW_SECRET_KEY."""


@dataclass(frozen=True)
class Webhook:
    """A webhook as its delivery needs it; ``secret`` is None for the formats that are not signed."""

    url: str = field(repr=False)
    secret: str | None = field(repr=False)
    format: str = "edgeflow"


def prepare(
    channels: Sequence[Mapping[str, Any]], previous: Sequence[Stored] | None = None
) -> tuple[list[Stored], list[Shown]]:
    """Channels of a request as they are stored, and as this one answer shows them, with newly made secrets in clear.

    A channel is ``{type: "webhook", url, format?: "edgeflow"|"slack", secret?}`` or ``{type: "email", to: [address]}``,
    either with an ``id``. ``previous``: what the rule has stored. A channel that names the ``id`` of one of those (or,
    without an id, its address) keeps what it does not give anew, and a masked value stands for what is stored; so what
    a rule's answer shows can be sent back. Raises ValidationFailed with ``channels.<n>.<field>``.
    """
    kept = {channel["id"]: channel for channel in previous or ()}  # each is taken once
    made = [_prepared(number, dict(channel), kept) for number, channel in enumerate(channels)]
    return [stored for stored, _shown in made], [shown for _stored, shown in made]


def masked(stored: Sequence[Stored]) -> list[Shown]:
    """Stored channels as every later answer shows them."""
    return [masked_one(channel) for channel in stored]


def masked_one(stored: Stored) -> Shown:
    """One stored channel without its secrets."""
    if stored["type"] == "email":
        return {"id": stored["id"], "type": "email", "to": list(stored["to"])}
    shown = {"id": stored["id"], "type": "webhook", "url": stored["shown_url"], "format": stored["format"]}
    return {**shown, "secret": MASK} if stored.get("secret") else shown


def opened(stored: Stored) -> Webhook:
    """A stored webhook with its secrets in clear. Raises Unreadable."""
    secret = stored.get("secret")
    return Webhook(_decrypted(stored["url"]), _decrypted(secret) if secret else None, stored["format"])


def _prepared(number: int, given: dict[str, Any], kept: dict[str, Stored]) -> tuple[Stored, Shown]:
    old = _predecessor(number, given, kept)
    identity = old["id"] if old else secrets.token_hex(4)
    if given["type"] == "email":
        if unfit := {"url", "secret", "format"} & given.keys():
            raise _invalid(number, min(unfit), "Only of a webhook.")
        email = {"id": identity, "type": "email", "to": list(dict.fromkeys(given["to"]))}
        return email, dict(email)
    if "to" in given:
        raise _invalid(number, "to", "Only of an email.")
    return _prepared_webhook(number, given, identity, old)


def _prepared_webhook(number: int, given: dict[str, Any], identity: str, old: Stored | None) -> tuple[Stored, Shown]:
    way = given.get("format") or (old["format"] if old else FORMATS[0])
    if way not in FORMATS:
        raise _invalid(number, "format", f"Must be one of: {', '.join(FORMATS)}.")
    url = _url(number, given["url"], old if old and old["format"] == way else None)
    was = old or {}
    stored = {"id": identity, "type": "webhook", "format": way, "url": _sealed(url, was.get("url"))}
    stored["shown_url"] = _masked_url(url, way)
    if way == "slack":
        if given.get("secret", MASK) != MASK:
            raise _invalid(number, "secret", "Only of the format edgeflow: chat services check no signature.")
        return stored, masked_one(stored)
    secret, is_new = _secret(number, given.get("secret"), old)
    stored["secret"] = _sealed(secret, was.get("secret"))
    return stored, {**masked_one(stored), **({"secret": secret} if is_new else {})}


def _predecessor(number: int, given: dict[str, Any], kept: dict[str, Stored]) -> Stored | None:
    """The stored channel that a given one changes."""
    if identity := given.get("id"):
        if identity not in kept or kept[identity]["type"] != given["type"]:
            raise _invalid(number, "id", "Not a channel of this rule, or named twice.")
        return kept.pop(identity)
    same = next((old["id"] for old in kept.values() if _is_same(old, given)), None)
    return kept.pop(same) if same else None


def _is_same(old: Stored, given: Mapping[str, Any]) -> bool:
    if old["type"] != given["type"]:
        return False
    return bool(old["to"] == given["to"]) if old["type"] == "email" else _address(old) == given["url"]


def _address(old: Stored) -> str | None:
    try:
        return _decrypted(old["url"])
    except Unreadable:  # what nobody can read is the same as no other
        return None


def _url(number: int, given: str, old: Stored | None) -> str:
    """The address in clear: the stored one where the masked one was sent back.

    ``old`` has the same format: under another one more of the stored address would be shown.
    """
    if MASK in given:
        if old is None or old["shown_url"] != given or (address := _address(old)) is None:
            raise _invalid(
                number, "url", "A masked address can only stand for the stored one of the same id and format."
            )
        return address
    if fault := url_fault(given):
        raise _invalid(number, "url", fault)
    return given


def url_fault(url: str) -> str:
    """Why a webhook cannot have this address; empty if it can. Where it leads is checked at each connect."""
    if len(url) > URL_LENGTH or not url.isprintable() or " " in url:
        return f"At most {URL_LENGTH} printable characters without blanks."
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "Not a valid URL."
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        return "Not a valid URL."
    if "@" in parts.netloc:
        return "User and password do not belong into the address; the signature tells who sends."
    return ""


def _masked_url(url: str, way: str) -> str:
    parts = urlsplit(url)
    if way == "slack":
        return f"{parts.scheme}://{parts.netloc}/{MASK}"
    return f"{url.partition('?')[0]}?{MASK}" if parts.query else url.partition("#")[0]


def _secret(number: int, given: str | None, old: Stored | None) -> tuple[str, bool]:
    """The secret in clear, and whether it is a new one, which the answer shows."""
    if given is None or given == MASK:
        if old is not None and old.get("secret"):
            try:
                return _decrypted(old["secret"]), False
            except Unreadable:
                log.warning("a channel's secret cannot be read any more and is replaced", channel=old["id"])
        elif given == MASK:
            raise _invalid(number, "secret", "A masked secret can only stand for the stored one of the same id.")
        return f"whsec_{secrets.token_urlsafe(32)}", True
    low, high = SECRET_LENGTH
    if not low <= len(given) <= high or not (given.isascii() and given.isprintable()):
        raise _invalid(number, "secret", f"{low} to {high} printable ASCII characters.")
    return given, True


def _invalid(number: int, name: str, message: str) -> ValidationFailed:
    return ValidationFailed(details={f"channels.{number}.{name}": [message]})


@cache
def _cipher() -> Fernet:
    return Fernet(base64.urlsafe_b64encode(derive("", "alert channels")))


def _sealed(plain: str, old: str | None) -> str:
    """Encrypted; what has not changed stays as it is stored, so that a channel sent back is no change."""
    try:
        if old is not None and _decrypted(old) == plain:
            return old
    except Unreadable:
        return _encrypted(plain)  # the key has changed since: under the one of now
    return _encrypted(plain)


def _encrypted(plain: str) -> str:
    return _cipher().encrypt(plain.encode()).decode()


def _decrypted(cipher: str) -> str:
    try:
        return _cipher().decrypt(cipher.encode()).decode()
    except InvalidToken:
        raise Unreadable("the channel cannot be read: EDGEFLOW_SECRET_KEY has changed; enter it again") from None
