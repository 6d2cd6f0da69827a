"""Mail over a real socket: whom it reaches, what stands in it, and which servers get a password."""

import socket
import ssl
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import AuthResult

from app.alerts.channels import email, words
from tests.alerts import rows
from tests.alerts.receivers import MailServer
from tests.certificates import self_signed

PASSWORD = "pri/vate pass"
USER = f"smtp://alerts:{PASSWORD.replace('/', '%2F').replace(' ', '%20')}@"


def payload(name: str = "Pump too hot", device: str = "pump-7", **fields: Any) -> dict[str, Any]:
    rule = {
        "id": "7a1", "name": name, "type": "metric", "severity": "critical", "metric": "temperature",
        "condition": "gt", "threshold": 80.0, "for_seconds": 60,
    }  # fmt: skip
    alert = {"device_name": device, "subject": "7", "deployment_id": None, "value": 81.5}
    said = {"kind": "firing", "organization_id": "2", "rule": rule, "count": 1, "alerts": [alert], "more": 0}
    return {**said, "url": "https://example.com/a", **fields}


@pytest.fixture
def server() -> Iterator[MailServer]:
    one = MailServer()
    one.start()
    yield one
    one.stop()


def sent(monkeypatch: pytest.MonkeyPatch, url: str, said: dict[str, Any] | None = None, *to: str, **more: Any) -> Any:
    with rows.settings_with(monkeypatch, email, smtp_url=url, **more):
        return email.send(list(to) or ["ada@example.com"], "the-delivery", said or payload())


def parsed(server: MailServer) -> Any:
    ((_to, raw),) = server.mails
    return message_from_bytes(raw, policy=default)


def test_a_mail_says_what_happened(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    sender = "EdgeFlow <alerts@example.org>"
    assert sent(monkeypatch, server.url, None, "ada@example.com", "bob@example.com", mail_from=sender).delivered
    ((recipients, _raw),) = server.mails
    assert recipients == ["ada@example.com", "bob@example.com"]
    mail = parsed(server)
    assert mail["Subject"] == "[firing] Pump too hot: pump-7"
    assert (mail["From"], mail["To"]) == (sender, "ada@example.com, bob@example.com")
    assert (mail["Message-ID"], mail["References"]) == ("<the-delivery@example.org>", "<7a1@example.org>")
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content().split("\r\n") == [
        "critical: temperature > 80 for 60 s", "- pump-7: 81.5", "https://example.com/a", "",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "alert", "title", "first"),
    [
        ({"type": "deployment_failed", "for_seconds": 0}, {"subject": "d-1", "deployment_id": "d-1"},
         "deployment d-1", "warning: deployment failed"),
        ({"type": "device_offline", "for_seconds": 300}, {"device_name": "pump-7"},
         "pump-7", "warning: device offline for 300 s"),
        ({"type": "log_match", "for_seconds": 300}, {"subject": "2"}, "the platform", "warning: log entries match"),
    ],
)  # fmt: skip
def test_what_a_message_calls_its_subject(rule: dict[str, Any], alert: dict[str, Any], title: str, first: str) -> None:
    said = payload()
    said["rule"] |= {"severity": "warning", **rule}
    said["alerts"] = [{"device_name": None, "subject": "x", "deployment_id": None, "value": None, **alert}]
    assert words.title({**said, "kind": "reminder"}) == f"[still firing] Pump too hot: {title}"
    assert words.lines(said)[:2] == [first, f"- {title}"]


@pytest.mark.parametrize(
    "evil", ["x\r\nBcc: eve@example.com", "x\nBcc: eve@example.com\n\nbody", "x\r\n.\r\nQUIT", "x\x0b\x1by"]
)
def test_names_cannot_add_headers_or_lines(server: MailServer, monkeypatch: pytest.MonkeyPatch, evil: str) -> None:
    assert sent(monkeypatch, server.url, payload(evil, evil)).delivered
    ((recipients, raw),) = server.mails
    assert recipients == ["ada@example.com"]
    mail = parsed(server)
    assert mail["Bcc"] is None
    assert "Bcc" not in [name for name, _value in mail.items()]
    assert len(mail.get_content().split("\r\n")) == 4
    assert b"\x1b" not in raw


@pytest.mark.parametrize(
    "address", ["ada@example.com\r\nRCPT TO:<eve@example.com>", "ada@example.com\nBcc: eve@x.org", "a b@x"]
)
def test_an_address_cannot_speak_to_the_server(
    server: MailServer, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    outcome = sent(monkeypatch, server.url, None, address)
    assert outcome.permanent
    assert server.mails == []


def test_unicode_arrives(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sent(monkeypatch, server.url, payload("Überhitzung 🔥" * 12, "Pumpe Süd → 7")).delivered
    ((_to, raw),) = server.mails
    mail = parsed(server)
    assert mail["Subject"] == f"[firing] {'Überhitzung 🔥' * 12}: Pumpe Süd → 7"
    assert "- Pumpe Süd → 7: 81.5" in mail.get_content()
    assert max(len(line) for line in raw.split(b"\r\n")) < 998


def test_refused_addresses_are_told_and_the_others_have_it(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.refused["gone@example.com"] = "550 no such user"
    outcome = sent(monkeypatch, server.url, None, "gone@example.com", "ada@example.com")
    assert outcome.delivered
    assert outcome.note == "sent, but refused for gone@example.com: 550 no such user"
    assert server.mails[0][0] == ["ada@example.com"]
    outcome = sent(monkeypatch, server.url, None, "gone@example.com")
    assert (outcome.status_code, outcome.permanent) == (550, True)
    server.refused["gone@example.com"] = "450 later"
    assert not sent(monkeypatch, server.url, None, "gone@example.com").permanent


@pytest.mark.parametrize(("answer", "permanent"), [("451 later", False), ("554 spam", True)])
def test_what_an_answer_means(
    server: MailServer, monkeypatch: pytest.MonkeyPatch, answer: str, permanent: bool
) -> None:
    server.at_data = answer
    outcome = sent(monkeypatch, server.url)
    assert (outcome.status_code, outcome.permanent) == (int(answer[:3]), permanent)
    assert outcome.error == f"the mail server answered {answer}"


def test_without_a_mail_server_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = sent(monkeypatch, "")
    assert outcome.error == "no mail server is set up: EDGEFLOW_SMTP_URL is empty"
    assert not outcome.permanent  # it may be set up within the day


def test_a_server_that_is_away_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outcome = sent(monkeypatch, f"smtp://127.0.0.1:{port}")
    assert (outcome.delivered, outcome.permanent) == (False, False)


def test_a_server_that_takes_its_time_is_given_up(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many steps it drags on: each alone would be quick enough."""
    monkeypatch.setattr(email, "MOST_SECONDS", 1.0)
    server.pause = 0.4
    began = time.monotonic()
    outcome = sent(monkeypatch, server.url, None, *(f"{number}@example.com" for number in range(20)))
    assert (outcome.delivered, outcome.permanent) == (False, False)
    assert time.monotonic() - began < 3


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """A server's side of TLS, with a certificate for this machine that clients trust for this test."""
    context = self_signed(tmp_path / "server.pem", local=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    return context


class Asking:
    """A mail server that wants a password and notes what it was given, and whether it came encrypted."""

    def __init__(self, **options: Any) -> None:
        self.seen: list[tuple[str, str, bool]] = []
        self.server = MailServer(authenticator=self._check, auth_require_tls=False, **options)

    def _check(self, _server: Any, session: Any, _envelope: Any, _mechanism: str, given: Any) -> AuthResult:
        self.seen.append((given.login.decode(), given.password.decode(), session.ssl is not None))
        return AuthResult(success=given.password.decode() == PASSWORD, handled=False)

    def __enter__(self) -> "Asking":
        self.server.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.server.stop()

    @property
    def url(self) -> str:
        return f"{USER}127.0.0.1:{self.server.port}"


def test_the_password_goes_encrypted_where_that_is_offered(
    monkeypatch: pytest.MonkeyPatch, trusted: ssl.SSLContext
) -> None:
    with Asking(tls_context=trusted) as asking:
        assert sent(monkeypatch, asking.url).delivered
        assert sent(monkeypatch, f"{asking.url}?starttls=always").delivered
        assert asking.seen == [("alerts", PASSWORD, True)] * 2


def test_implicit_tls(monkeypatch: pytest.MonkeyPatch, trusted: ssl.SSLContext) -> None:
    with Asking(ssl_context=trusted) as asking:
        assert sent(monkeypatch, asking.url.replace("smtp:", "smtps:")).delivered
        assert [(login, password) for login, password, _ in asking.seen] == [("alerts", PASSWORD)]


def test_no_password_goes_to_a_server_with_a_strangers_certificate(
    monkeypatch: pytest.MonkeyPatch, trusted: ssl.SSLContext
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with Asking(tls_context=trusted) as asking:
        outcome = sent(monkeypatch, asking.url)
        assert "certificate verify failed" in (outcome.error or "")
        assert (asking.seen, asking.server.mails) == ([], [])


def test_in_clear_a_password_goes_to_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with Asking() as asking:
        assert sent(monkeypatch, asking.url).delivered  # loopback
        assert not sent(monkeypatch, f"{asking.url}?starttls=always").delivered
        monkeypatch.setattr(email.Server, "is_local", False)
        asking.seen.clear()
        outcome = sent(monkeypatch, asking.url)
        assert outcome.error == "not sent: the mail server offers no STARTTLS, and the password is not sent in clear"
        assert asking.seen == []
        assert sent(monkeypatch, f"{asking.url}?starttls=never").delivered  # who asks for it has it


def test_a_wrong_password_is_told_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with Asking() as asking:
        outcome = sent(monkeypatch, f"smtp://alerts:wrong-private@127.0.0.1:{asking.server.port}")
    assert (outcome.status_code, outcome.permanent) == (535, False)
    assert "private" not in (outcome.error or "")


def test_the_servers_password_is_not_shown() -> None:
    server = email.Server.of(f"{USER}mail.example.com")
    assert (server.user, server.password, server.port, server.starttls) == ("alerts", PASSWORD, 25, "auto")
    assert "pri" not in repr(server)
    assert email.Server.of("smtps://mail.example.com?starttls=never").port == 465
