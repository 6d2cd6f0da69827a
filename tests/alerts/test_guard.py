"""No webhook reaches what is not on the public internet, however its address is written (S10)."""

import socket
from collections.abc import Iterator
from typing import Any

import httpcore
import pytest

from app.alerts.channels import Webhook, guard, webhook
from app.errors import ValidationFailed
from tests.alerts import rows
from tests.alerts.receivers import Receiver

PUBLIC = "93.184.215.14"
# Names and what they resolve to; a list that holds lists gives another answer each time.
NAMES: dict[str, list[str]] = {
    "example.com": [PUBLIC],
    "loopback.example.com": ["127.0.0.1"],
    "loopback6.example.com": ["::1"],
    "mapped.example.com": ["::ffff:127.0.0.1"],
    "intranet.example.com": ["10.0.0.5"],
    "metadata.example.com": ["169.254.169.254"],
    "all-private.example.com": ["192.168.1.1", "127.0.0.1", "fd00::1"],
    "127.0.0.1.example.com": ["127.0.0.1"],
    "unspecified.example.com": ["0.0.0.0"],
}
HOSTS = """
127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.0.0.1 0x7f.1 0X7F.0.1 017700000001 0177.0.0.1 0177.1 0177.0x0.0.1
127.000.000.001 127.255.255.254 127.0.0.1. localhost localhost. LOCALHOST 0.0.0.0 0 0x0 00000000 0.0.0.1
127。0。0。1 １２７.0.0.1 ①②⑦.⓪.⓪.① ⓛⓞⓒⓐⓛⓗⓞⓢⓣ
[::1] [0:0:0:0:0:0:0:1] [0000::0001] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:0:127.0.0.1] [::127.0.0.1]
[64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b::a9fe:a9fe] [64:ff9b:1::7f00:1] [2002:7f00:1::] [2002:a00:1::1]
[2001:0:7f00:1::] [2001:db8::1] [fe80::1] [fe80::1%25lo] [fe80::1%lo] [::1%25lo] [fc00::1] [fd00:ec2::254] [fec0::1]
[ff02::1] [100::1] [3fff::1]
10.0.0.1 10.1 172.16.0.1 172.31.255.254 192.168.0.1 0xc0a80001 169.254.169.254 2852039166 100.64.0.1 100.100.100.200
198.18.0.1 192.0.0.192 192.0.2.1 198.51.100.1 203.0.113.1 192.88.99.1 168.63.129.16 224.0.0.1 240.0.0.1 255.255.255.255
"""
FORMS = [
    *(f"http://{host}:{{port}}/hook" for host in HOSTS.split()),
    *(f"http://{name}:{{port}}/hook" for name in NAMES if name != "example.com"),
    "https://127.0.0.1:{port}/hook",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}/?http://example.com/",
    "http://example.com@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://user:password@localhost:{port}/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@example.com/",
    "http://127.0.0.1%00.example.com:{port}/",
    "http://127.0.0.1%2f.example.com:{port}/",
    "http://[::1]:{port}@example.com/",
    "http://%31%32%37.0.0.1:{port}/",
    "HTTP://127.0.0.1:{port}/",
    "http:127.0.0.1:{port}/",
    "http:///127.0.0.1:{port}/",
    "http://127.0.0.1:0{port}/",
    "http://127.0.0.1:{port}\r\nX: y/",
]


@pytest.fixture(scope="module")
def listener() -> Iterator[Receiver]:
    """On every address of this machine."""
    with Receiver("0.0.0.0") as receiver:
        yield receiver


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    real = guard.resolve
    monkeypatch.setattr(guard, "resolve", lambda host, port: NAMES.get(host) or real(host, port))


@pytest.fixture
def reached(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that somebody connects to; only this machine's own are really reached."""
    seen: list[str] = []
    real = socket.create_connection

    def connect(address: Any, *args: Any, **options: Any) -> socket.socket:
        seen.append(address[0])
        if not address[0].startswith(("127.", "::1", "0.", "::ffff:127.")):
            raise OSError("no way there")
        return real(address, *args, **options)

    monkeypatch.setattr(socket, "create_connection", connect)
    return seen


def sent(url: str) -> Any:
    payload = {"kind": "firing"}
    return webhook.send(Webhook(url, "s" * 16), "delivery", payload)


def test_there_are_more_than_sixty_forms() -> None:
    assert len(set(FORMS)) >= 90


@pytest.mark.parametrize("form", FORMS)
def test_none_reaches_what_is_private(form: str, listener: Receiver, names: None, reached: list[str]) -> None:
    before = len(listener.requests)
    outcome = sent(form.format(port=listener.port))
    assert not outcome.delivered
    assert len(listener.requests) == before
    assert set(reached) <= {PUBLIC}, "it was not refused before connecting"
    assert "127" not in (outcome.error or "")


def test_the_same_forms_reach_it_where_private_targets_are_allowed(
    listener: Receiver, names: None, reached: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: what is refused above is refused by the guard, and not because nothing answers there."""
    before = len(listener.requests)
    with rows.settings_with(monkeypatch, webhook, webhook_private=True):
        for form in FORMS:
            sent(form.format(port=listener.port))
    assert len(listener.requests) - before >= 25
    assert len(set(reached)) >= 40


def test_the_address_that_was_checked_is_the_one_that_is_used(
    listener: Receiver, reached: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: public when it is checked, private when it would be looked up again."""
    answers = [[PUBLIC], ["127.0.0.1"], ["127.0.0.1"]]
    asked: list[str] = []

    def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return answers.pop(0)

    monkeypatch.setattr(guard, "resolve", rebinding)
    assert not sent(f"http://rebinding.example.com:{listener.port}/").delivered
    assert (asked, reached) == (["rebinding.example.com"], [PUBLIC])


def test_of_a_name_with_both_only_the_public_addresses_are_tried(
    listener: Receiver, reached: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "resolve", lambda host, port: ["127.0.0.1", PUBLIC, "10.0.0.1"])
    before = len(listener.requests)
    assert not sent(f"http://mixed.example.com:{listener.port}/").delivered
    assert (reached, len(listener.requests)) == ([PUBLIC], before)


def test_a_proxy_of_the_environment_is_not_asked(
    listener: Receiver, names: None, reached: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    before = len(listener.requests)
    sent("http://example.com/hook")
    assert (reached, len(listener.requests)) == ([PUBLIC], before)


@pytest.mark.parametrize(
    ("text", "public"),
    [
        (PUBLIC, True),
        ("1.1.1.1", True),
        ("2606:4700:4700::1111", True),
        ("64:ff9b::5db8:d70e", True),  # a public address as NAT64 writes it
        ("64:ff9b::a00:1", False),
        ("::ffff:93.184.215.14", False),
        ("2002:5db8:d70e::1", False),
        ("172.32.0.1", True),
        ("100.128.0.1", True),
        ("11.0.0.1", True),
    ],
)
def test_what_is_public(text: str, public: bool) -> None:
    assert guard.is_public(guard.ip_address(text)) is public


def test_an_unresolvable_name_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(_host: str, _port: int) -> list[str]:
        raise socket.gaierror("no such host")

    monkeypatch.setattr(guard, "resolve", unknown)
    outcome = sent("http://nowhere.example.com/")
    assert (outcome.error, outcome.permanent) == ("not delivered: the name does not resolve", False)


@pytest.mark.parametrize("url", ["http://a:b@example.com/", "ftp://example.com/", "http:///x", "http://x:99999/", "x"])
def test_what_cannot_be_a_channel_is_refused_when_it_is_given(url: str) -> None:
    from app.alerts import channels

    with pytest.raises(ValidationFailed) as refused:
        channels.prepare([{"type": "webhook", "url": url}])
    assert list(refused.value.extra["details"]) == ["channels.0.url"]


def test_sockets_of_the_file_system_are_out_of_reach() -> None:
    backend = guard.GuardedBackend(private=True, deadline=1e12, most_bytes=1)
    with pytest.raises(NotImplementedError):
        backend.connect_unix_socket("/run/postgresql")
    assert issubclass(guard.GuardedBackend, httpcore.NetworkBackend)
