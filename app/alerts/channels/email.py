"""Email: one message to all addresses of a channel, through the mail server of ``EDGEFLOW_SMTP_URL``."""

import smtplib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from app import clock
from app.alerts.channels import words
from app.alerts.channels.outcome import Outcome
from config.settings import settings

SECONDS = 10.0  # for each step of the conversation
MOST_SECONDS = 40.0  # for all of it, so that it ends before the lease of its message does
PORTS = {"smtp": 25, "smtps": 465}


@dataclass(frozen=True)
class Server:
    """A mail server. ``starttls``: always, never, or auto: if it offers it, and always before a password is sent."""

    host: str
    port: int
    implicit_tls: bool
    starttls: str
    user: str | None
    password: str | None = field(repr=False)

    @classmethod
    def of(cls, url: str) -> "Server":
        """Of ``smtp[s]://[user:password@]host[:port][?starttls=always|never|auto]``; the settings have checked it."""
        parts = urlsplit(url)
        ways = parse_qs(parts.query).get("starttls", ["auto"])
        secret = unquote(parts.password) if parts.password is not None else None
        user = unquote(parts.username) if parts.username else None
        port = parts.port or PORTS[parts.scheme]
        return cls(parts.hostname or "localhost", port, parts.scheme == "smtps", ways[0], user, secret)

    @property
    def is_local(self) -> bool:
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


class Unencrypted(Exception):
    """The server offers no encryption where the settings or a password demand it."""


def send(addresses: list[str], delivery_id: str, payload: dict[str, Any]) -> Outcome:
    """Send one notification; an address that the server refuses is told, the others have it."""
    url = settings().smtp_url
    if not url:
        return Outcome("no mail server is set up: EDGEFLOW_SMTP_URL is empty")
    try:
        refused = _hand_over(Server.of(url), addresses, message(addresses, delivery_id, payload))
    except smtplib.SMTPRecipientsRefused as error:
        return _refused(error.recipients)
    except smtplib.SMTPResponseException as error:
        # Who sends, and with which password, is set up by the operator, who may set it right within the day.
        ours = isinstance(error, smtplib.SMTPAuthenticationError | smtplib.SMTPSenderRefused)
        answer = f"the mail server answered {error.smtp_code} {_text(error.smtp_error)}"
        return Outcome(answer, error.smtp_code, permanent=error.smtp_code >= 500 and not ours)
    except (MessageError, ValueError, smtplib.SMTPNotSupportedError) as error:
        return Outcome(f"the message cannot be sent: {_text(str(error))}", permanent=True)
    except (smtplib.SMTPException, OSError, Unencrypted) as error:
        return Outcome(f"not sent: {_text(str(error)) or type(error).__name__}")
    return Outcome() if not refused else _partly(refused)


def message(addresses: list[str], delivery_id: str, payload: dict[str, Any]) -> EmailMessage:
    """The mail. Its Message-ID is the delivery's, so that one that is sent twice is shown once."""
    sender = settings().mail_from
    domain = parseaddr(sender)[1].rpartition("@")[2] or "localhost"
    mail = EmailMessage(policy=SMTP)
    mail["From"] = sender
    mail["To"] = tuple(Address(addr_spec=address) for address in addresses)
    mail["Subject"] = words.title(payload)
    mail["Date"] = format_datetime(clock.now())
    mail["Message-ID"] = f"<{delivery_id}@{domain}>"
    mail["References"] = f"<{payload['rule']['id']}@{domain}>"  # mail programs show a rule's messages as one thread
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-EdgeFlow-Delivery"] = delivery_id
    mail.set_content("\n".join(words.lines(payload)) + "\n")
    return mail


def _hand_over(server: Server, addresses: list[str], mail: EmailMessage) -> dict[str, tuple[int, bytes]]:
    """The addresses that the server refused, with its answers. Raises what smtplib raises, Unencrypted."""
    context = ssl.create_default_context()
    if server.implicit_tls:
        opened: smtplib.SMTP = smtplib.SMTP_SSL(server.host, server.port, timeout=SECONDS, context=context)
    else:
        opened = smtplib.SMTP(server.host, server.port, timeout=SECONDS)
    with opened as connection, _ended_after(connection, MOST_SECONDS):
        connection.ehlo_or_helo_if_needed()
        encrypted = server.implicit_tls or _encrypt(server, connection, context)
        if server.user is not None:
            if not encrypted and not server.is_local and server.starttls != "never":
                raise Unencrypted("the mail server offers no STARTTLS, and the password is not sent in clear")
            connection.login(server.user, server.password or "")
        return connection.send_message(mail, to_addrs=addresses)


@contextmanager
def _ended_after(connection: smtplib.SMTP, seconds: float) -> Iterator[None]:
    """Whatever waits on the connection past that time is woken by its end."""

    def end() -> None:
        with suppress(OSError, AttributeError):  # it has ended
            connection.sock.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]

    timer = threading.Timer(seconds, end)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _encrypt(server: Server, connection: smtplib.SMTP, context: ssl.SSLContext) -> bool:
    if server.starttls == "never":
        return False
    if not connection.has_extn("starttls"):
        if server.starttls == "always":
            raise Unencrypted("the mail server offers no STARTTLS")
        return False
    connection.starttls(context=context)
    connection.ehlo()
    return True


def _refused(answers: dict[str, tuple[int, bytes]]) -> Outcome:
    code = min(code for code, _text_of_it in answers.values())  # one that may pass later is tried again
    return Outcome(f"refused: {_list(answers)}", code, permanent=code >= 500)


def _partly(answers: dict[str, tuple[int, bytes]]) -> Outcome:
    return Outcome(note=f"sent, but refused for {_list(answers)}")


def _list(answers: dict[str, tuple[int, bytes]]) -> str:
    return "; ".join(f"{address}: {code} {_text(said)}" for address, (code, said) in answers.items())


def _text(said: bytes | str) -> str:
    text = said.decode(errors="replace") if isinstance(said, bytes) else said
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:200]
