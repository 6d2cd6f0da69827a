"""A webhook as its receiver sees it: signed, sent once and nowhere else, bounded in what it waits for."""

import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import orjson
import pytest

from app.alerts import channels
from app.alerts.channels import MASK, Webhook, guard, webhook
from app.errors import ValidationFailed
from tests.alerts import rows
from tests.alerts.receivers import Receiver, Request, status

SECRET = "a secret of the receiver's own"
PAYLOAD: dict[str, Any] = {
    "id": "5f0c2d6e-9b1f-4a0d-8f7b-3c1a2e4d6f80",
    "kind": "firing",
    "rule": {
        "id": "1", "name": "Pump <too> hot & dry", "type": "metric", "severity": "critical", "metric": "temperature",
        "condition": "gt", "threshold": 80.0, "for_seconds": 60,
    },
    "count": 500,
    "organization_id": "2",
    "alerts": [{"device_name": "pump\n7", "subject": "7", "deployment_id": None, "value": 81.5}],
    "more": 499,
    "url": "https://example.com/api/v1/alerts/1",
}  # fmt: skip


pytestmark = pytest.mark.usefixtures("private_targets")


def sent(url: str, **fields: Any) -> Any:
    return webhook.send(Webhook(url, **{"secret": SECRET, **fields}), "the-delivery", PAYLOAD)


def test_it_is_signed_over_time_and_body(receiver: Receiver) -> None:
    assert sent(f"{receiver.url}?room=7").delivered
    (got,) = receiver.requests
    assert (got.path, got.delivery, got.json) == ("/hook?room=7", "the-delivery", PAYLOAD)
    assert got.headers["content-type"] == "application/json"
    assert got.is_signed_with(SECRET)


@pytest.mark.parametrize("change", ["secret", "body", "time", "age"])
def test_what_was_changed_on_its_way_does_not_verify(receiver: Receiver, change: str) -> None:
    sent(receiver.url)
    (got,) = receiver.requests
    headers = dict(got.headers)
    if change == "time":
        headers["x-edgeflow-timestamp"] = str(int(headers["x-edgeflow-timestamp"]) + 1)
    body = got.body + b" " if change == "body" else got.body
    later = time.time() + 3600 if change == "age" else None
    forged = Request(got.path, headers, body)
    assert not forged.is_signed_with("another secret" if change == "secret" else SECRET, later)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(receiver: Receiver, code: int) -> None:
    receiver.answers = [status(code, Location=receiver.url)]
    outcome = sent(receiver.url)
    assert (outcome.status_code, outcome.error) == (code, f"answered {code}: redirects are not followed")
    assert len(receiver.requests) == 1


@pytest.mark.parametrize(
    ("code", "delivered", "permanent"), [(200, True, False), (202, True, False), (400, False, False),
                                         (410, False, True), (429, False, False), (500, False, False)]
)  # fmt: skip
def test_what_a_status_means(receiver: Receiver, code: int, delivered: bool, permanent: bool) -> None:
    receiver.answers = [status(code)]
    outcome = sent(receiver.url)
    assert (outcome.status_code, outcome.delivered, outcome.permanent) == (code, delivered, permanent)


def endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(200_000):
            handler.wfile.write(b"x" * 1024)
            handler.sent = getattr(handler, "sent", 0) + 1024  # type: ignore[attr-defined]
    except OSError:
        handler.server.written = handler.sent  # type: ignore[attr-defined]


def test_an_endless_answer_is_not_read(receiver: Receiver) -> None:
    receiver.always = endless
    began = time.monotonic()
    assert sent(receiver.url).delivered
    assert time.monotonic() - began < 3
    assert wait_for(lambda: getattr(receiver._server, "written", None)) < 20 * 1024 * 1024  # what the sockets buffer


def wait_for(value: Any, seconds: float = 5) -> Any:
    deadline = time.monotonic() + seconds
    while (found := value()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def test_endless_headers_are_not_read(receiver: Receiver) -> None:
    def headers(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for number in range(2_000):
            handler.send_header(f"X-{number}", "x" * 100)
        handler.end_headers()

    receiver.always = headers
    outcome = sent(receiver.url)
    assert not outcome.delivered
    assert outcome.status_code is None


@pytest.mark.parametrize(
    "drip", [b"", b"H", b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"]
)
def test_a_slow_answer_is_given_up(drip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """However it drips: a byte now and then restarts no clock."""
    monkeypatch.setattr(webhook, "SECONDS", 1.0)
    monkeypatch.setattr(webhook, "BODY_SECONDS", 0.5)
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                try:
                    connection.sendall(drip)
                    while not stop.wait(0.1):
                        connection.sendall(b"x" if drip else b"")
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        began = time.monotonic()
        outcome = sent(f"http://127.0.0.1:{server.getsockname()[1]}/")
        took = time.monotonic() - began
        stop.set()
        thread.join()
    assert took < 2.5
    assert outcome.delivered is drip.endswith(b"\r\n\r\n")  # the head tells; nobody waits for the rest


def test_a_receiver_that_is_away_is_told_without_its_address(receiver: Receiver) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outcome = sent(f"http://127.0.0.1:{port}/hook/private-token?key=private")
    assert outcome.error is not None
    assert not outcome.permanent
    assert "private" not in outcome.error
    assert str(port) not in outcome.error


def test_no_line_of_the_log_tells_the_address(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does a library's, however much of it is asked for."""
    caplog.set_level(logging.DEBUG)
    sent(f"{receiver.url}/private-token?key=private")
    assert receiver.requests[0].path == "/hook/private-token?key=private"
    assert caplog.records
    assert not any(private in caplog.text for private in ("private", SECRET))


def test_an_untrusted_certificate_is_refused(receiver: Receiver) -> None:
    outcome = sent(receiver.url.replace("http:", "https:"))
    assert not outcome.delivered
    assert receiver.requests == []


def test_slack_gets_text_without_markup_and_no_signature(receiver: Receiver) -> None:
    assert sent(receiver.url, secret=None, format="slack").delivered
    (got,) = receiver.requests
    assert got.json == {
        "text": "[firing] Pump &lt;too&gt; hot &amp; dry: pump 7 and 499 more\n"
        "critical: temperature &gt; 80 for 60 s\n- pump 7: 81.5\nand 499 more\nhttps://example.com/api/v1/alerts/1"
    }
    assert "x-edgeflow-signature" not in got.headers


def test_of_private_channels_nothing_is_stored_or_shown_again_in_clear() -> None:
    url = "https://example.com/hook?token=private-token"
    chat = "https://hooks.example.com/services/T0/B0/private-path"
    stored, shown = channels.prepare(
        [{"type": "webhook", "url": url}, {"type": "webhook", "url": chat, "format": "slack"}]
    )
    secret = shown[0]["secret"]
    assert secret.startswith("whsec_")
    kept = orjson.dumps([stored, channels.masked(stored)]).decode()
    assert not any(private in kept for private in (secret, "private-token", "private-path"))
    assert channels.opened(stored[0]) == Webhook(url, secret)
    assert channels.opened(stored[1]) == Webhook(chat, None, "slack")
    assert repr(channels.opened(stored[0])) == "Webhook(format='edgeflow')"
    assert channels.masked(stored) == [
        {"id": stored[0]["id"], "type": "webhook", "url": f"https://example.com/hook?{MASK}", "format": "edgeflow",
         "secret": MASK},
        {"id": stored[1]["id"], "type": "webhook", "url": f"https://hooks.example.com/{MASK}", "format": "slack"},
    ]  # fmt: skip


def test_what_was_read_can_be_sent_back() -> None:
    given = [
        {"type": "webhook", "url": "https://example.com/hook?token=x"},
        {"type": "webhook", "url": "https://hooks.example.com/a/b", "format": "slack"},
        {"type": "email", "to": ["ada@example.com"]},
    ]
    stored, _ = channels.prepare(given)
    again, shown = channels.prepare(channels.masked(stored), stored)
    assert shown == channels.masked(stored)
    assert again == stored  # no change
    without_ids, _ = channels.prepare([{"type": "webhook", "url": given[0]["url"]}], stored)
    assert channels.opened(without_ids[0]) == channels.opened(stored[0])
    rotated, shown = channels.prepare([{**channels.masked_one(stored[0]), "secret": "a new secret of mine"}], stored)
    assert channels.opened(rotated[0]) == Webhook(str(given[0]["url"]), "a new secret of mine")
    assert shown[0]["secret"] == "a new secret of mine"
    assert "token=x" not in shown[0]["url"]


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"id": "00000000"}, "id"),
        ({"url": f"https://evil.example.com/{MASK}"}, "url"),
        ({"format": "edgeflow"}, "url"),  # it would show the path that the other format hides
        ({"secret": "sixteen letters."}, "secret"),
        ({"format": "teams"}, "format"),
        ({"to": ["ada@example.com"]}, "to"),
    ],
)
def test_a_mask_gives_nothing_away(change: dict[str, Any], name: str) -> None:
    stored, _ = channels.prepare([{"type": "webhook", "url": "https://hooks.example.com/a/b", "format": "slack"}])
    with pytest.raises(ValidationFailed) as refused:
        channels.prepare([{**channels.masked_one(stored[0]), **change}], stored)
    assert list(refused.value.extra["details"]) == [f"channels.0.{name}"]


@pytest.mark.parametrize("secret", ["short", "x" * 201, "ünïcödé ünïcödé ünïcödé", "sixteen letters\n", MASK])
def test_a_secret_that_cannot_be_one(secret: str) -> None:
    with pytest.raises(ValidationFailed):
        channels.prepare([{"type": "webhook", "url": "https://example.com/", "secret": secret}])


def test_one_id_is_one_channel() -> None:
    stored, _ = channels.prepare([{"type": "webhook", "url": "https://example.com/"}])
    with pytest.raises(ValidationFailed):
        channels.prepare([*channels.masked(stored), *channels.masked(stored)], stored)


def test_under_another_key_a_channel_is_told_to_be_unreadable(monkeypatch: pytest.MonkeyPatch) -> None:
    stored, _ = channels.prepare([{"type": "webhook", "url": "https://example.com/"}])
    other = channels.Fernet(channels.Fernet.generate_key())
    monkeypatch.setattr(channels, "_cipher", lambda: other)
    with pytest.raises(channels.Unreadable, match="EDGEFLOW_SECRET_KEY has changed"):
        channels.opened(stored[0])
    again, shown = channels.prepare([{"id": stored[0]["id"], "type": "webhook", "url": "https://example.com/"}], stored)
    assert channels.opened(again[0]).secret == shown[0]["secret"]


def test_the_guard_stands_in_front_unless_told_otherwise(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    with rows.settings_with(monkeypatch, webhook, webhook_private=False):
        outcome = sent(receiver.url)
    assert (outcome.error, outcome.permanent) == ("the target is not a public address", True)
    assert receiver.requests == []
    assert isinstance(guard.Refused("x"), Exception)
