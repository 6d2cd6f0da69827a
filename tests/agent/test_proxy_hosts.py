"""Where the editor may be: only where the agent's own configuration allows, whatever names and resolvers say."""

import asyncio
import ipaddress
import socket
import ssl

import pytest

from agent.hosts import ForbiddenHost, Hosts, target_of
from agent.proxy_local import _tls, editor_of
from agent.settings import Settings
from tests.agent.cloud import Cloud
from tests.agent.editors import edited, local_server, run
from tests.agent.support import until
from tests.certificates import self_signed

OK = b"HTTP/1.1 200 OK\r\n\r\nlocal"

HERE = [
    "http://127.0.0.1:1880",
    "http://127.0.0.1",
    "https://127.255.255.254:1/path/",
    "http://localhost:1880",
    "http://LOCALHOST",
    "http://red.localhost",
    "http://[::1]:1880",
    "http://[::ffff:127.0.0.1]",
    "http://[0:0:0:0:0:0:0:1]",
]
ELSEWHERE = [
    "http://169.254.169.254/latest/meta-data",
    "http://10.0.0.1",
    "http://192.168.1.1",
    "http://8.8.8.8",
    "http://0.0.0.0",
    "http://0",
    "http://[::]",
    "http://[fe80::1]",
    "http://[fe80::1%25lo]",
    "http://[fd00::1]",
    "http://[::ffff:10.0.0.1]",
    "http://[::ffff:169.254.169.254]",
    "http://[::127.0.0.1]",
    "http://[64:ff9b::7f00:1]",
    "http://[2002:7f00:1::]",
    "http://2130706433",
    "http://0x7f000001",
    "http://0x7f.1",
    "http://017700000001",
    "http://0177.0.0.1",
    "http://127.1",
    "http://127.0.0.1.",
    "http://127.0.0.256",
    "http://localhost.",
    "http://localhost.evil.example",
    "http://127.0.0.1.nip.io",
    "http://evil-localhost",
    "http://plc.factory",
    "http://metadata.google.internal",
    "http://127.0.0.1@evil.example",
    "http://user:secret@127.0.0.1",
    "http://evil.example\\@127.0.0.1",
    "http://evil.example#@127.0.0.1",
    "http://127.0.0.1/?x",
    "http://127.0.0.1/#x",
    "http://127.0.0.1/a b",
    "http://127.0.0.1:0",
    "http://127.0.0.1:65536",
    "http://127.0.0.1:80:80",
    "http://\u24db\u24de\u24d2\u24d0\u24db\u24d7\u24de\u24e2\u24e3",
    "http://loc\talhost",
    "http://127.0.0.1\r\nX: 1",
    "http://",
    "ftp://127.0.0.1",
    "file:///etc/passwd",
    "unix:/run/docker.sock",
    "//127.0.0.1",
    "127.0.0.1:1880",
    "",
]


@pytest.mark.parametrize("url", HERE)
def test_this_machine_is_allowed(url):
    assert Hosts().check(url)


@pytest.mark.parametrize("url", ELSEWHERE)
def test_nothing_else_is(url):
    with pytest.raises(ForbiddenHost):
        Hosts().check(url)


def test_the_configuration_allows_names_addresses_and_networks():
    hosts = Hosts(["PLC.factory", "192.168.7.9", "10.1.0.0/16", "[fd00::5]"])
    for url in ("http://plc.factory:1880", "http://192.168.7.9", "http://10.1.2.3", "http://[fd00::5]", *HERE):
        assert hosts.check(url)
    for url in ("http://a.plc.factory", "http://192.168.7.10", "http://10.2.0.1", "http://[fd00::6]", *ELSEWHERE[7:11]):
        if url != "http://plc.factory":
            with pytest.raises(ForbiddenHost):
                hosts.check(url)
    for wrong in ("10.1.2.3/16", "0x7f.1", "http://x", "a b", "", "*"):
        with pytest.raises(ValueError, match=r".*"):
            Hosts([wrong])


def test_the_agents_own_configuration_reaches_its_host_and_the_setting_does_not():
    own = editor_of(None, "http://192.168.7.9:1880/red", Hosts())
    assert own.target.authority == "192.168.7.9:1880"
    with pytest.raises(ForbiddenHost):
        editor_of("http://192.168.7.9:1881", "http://192.168.7.9:1880", Hosts())
    assert editor_of("http://[::1]:1880", "http://192.168.7.9:1880", Hosts()).target.host == "::1"
    assert editor_of(None, None, Hosts()) is None


@pytest.mark.parametrize(
    ("url", "authority", "origin"),
    [
        ("http://localhost", "localhost", "http://localhost"),
        ("http://localhost:80", "localhost", "http://localhost"),
        ("https://localhost:443/", "localhost", "https://localhost"),
        ("https://localhost:80/", "localhost:80", "https://localhost:80"),
        ("http://[::1]:1880", "[::1]:1880", "http://[::1]:1880"),
    ],
)
def test_the_host_header_names_the_local_server(url, authority, origin):
    assert (target_of(url).authority, target_of(url).origin) == (authority, origin)


def resolving(monkeypatch, answers):
    """Let names resolve to what `answers` gives for them, the next one each time."""
    asked = []

    async def getaddrinfo(self, host, port, **more):
        try:
            addresses = [str(ipaddress.ip_address(host))]
        except ValueError:
            asked.append(host)
            addresses = answers[host].pop(0) if len(answers[host]) > 1 else answers[host][0]
        families = [socket.AF_INET6 if ":" in address else socket.AF_INET for address in addresses]
        return [
            (family, socket.SOCK_STREAM, 6, "", (address, port))
            for family, address in zip(families, addresses, strict=True)
        ]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    ("name", "resolved", "allowed"),
    [
        ("localhost", ["127.0.0.1"], ["127.0.0.1"]),
        ("localhost", ["::1", "127.0.0.1"], ["::1", "127.0.0.1"]),
        ("localhost", ["10.0.0.1"], []),
        ("localhost", ["93.184.216.34", "127.0.0.1"], ["127.0.0.1"]),
        ("plc.factory", ["192.168.7.9"], ["192.168.7.9"]),
        ("plc.factory", ["93.184.216.34"], ["93.184.216.34"]),
        ("plc.factory", ["127.0.1.1"], ["127.0.1.1"]),
        ("plc.factory", ["169.254.169.254"], []),
        ("plc.factory", ["::ffff:169.254.169.254"], []),
        ("plc.factory", ["fe80::1"], []),
        ("plc.factory", ["0.0.0.0"], []),
        ("plc.factory", ["224.0.0.1"], []),
        ("plc.factory", ["255.255.255.255"], []),
        ("plc.factory", ["::ffff:192.168.7.9"], ["192.168.7.9"]),
        ("printer.factory", ["192.168.7.9"], []),
        ("printer.factory", ["127.0.0.1"], ["127.0.0.1"]),
    ],
)
def test_what_a_name_leads_to_is_judged_at_each_connection(monkeypatch, name, resolved, allowed):
    resolving(monkeypatch, {name: [resolved]})
    hosts = Hosts(["plc.factory"])

    async def work():
        if allowed:
            assert await hosts.addresses(target_of(f"http://{name}")) == allowed
        else:
            with pytest.raises(ForbiddenHost):
                await hosts.addresses(target_of(f"http://{name}"))

    run(work)


def test_a_resolver_that_changes_its_mind_gains_nothing(monkeypatch):
    """The address that was judged is the one that is dialled: the name is asked for once per stream, not again."""

    async def work():
        async with local_server(OK) as server:
            port = server.url.rpartition(":")[2]
            asked = resolving(monkeypatch, {"localhost": [["127.0.0.1"], ["10.9.9.9"], ["127.0.0.1", "10.9.9.9"]]})
            async with edited(f"http://localhost:{port}") as far:
                assert (await far.fetch()).data == b"local"
                assert (await far.fetch()).cancel["code"] == "REFUSED"
                assert (await far.fetch()).data == b"local"
                assert asked == ["localhost"] * 3
                assert [peer.get("host") for peer in server.asked] == [[f"localhost:{port}"]] * 2

    run(work)


def test_the_next_address_is_tried_when_the_first_does_not_answer(monkeypatch):
    async def work():
        async with local_server(OK) as server:
            port = server.url.rpartition(":")[2]
            resolving(monkeypatch, {"localhost": [["127.99.0.1", "127.0.0.1"]]})
            async with edited(f"http://localhost:{port}") as far:
                assert (await far.fetch()).data == b"local"

    run(work)


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254", "http://192.168.1.1:1880", "http://127.1", "http://x.example"]
)
def test_configure_refuses_a_forbidden_host_and_changes_nothing(url):
    async def work():
        async with local_server(OK) as server, edited(server.url) as far:
            wanted = {"local_url": url, "telemetry_interval": 5}
            answer = await far.link.ask("configure", {"settings": wanted})
            assert (answer["status"], answer["code"]) == ("error", "INVALID_PAYLOAD")
            assert far.device.settings.all() == {}
            assert (await far.fetch()).data == b"local"

    run(work)


def test_configure_takes_a_host_that_the_agent_was_started_with():
    async def work():
        async with edited(None, allow_hosts=["192.0.2.0/24"]) as far:
            url = "http://192.0.2.7:1880"
            answer = await far.link.ask("configure", {"settings": {"local_url": url}})
            assert answer["data"]["settings"] == {"local_url": url}

    run(work)


def test_a_stored_address_that_is_no_longer_allowed_is_not_offered(tmp_path):
    async def work():
        settings = Settings(tmp_path / "settings.json")
        settings.hosts = Hosts(["192.0.2.7"])
        settings.apply({"local_url": "http://192.0.2.7"})
        async with Cloud() as cloud, edited(None, cloud, settings=Settings(tmp_path / "settings.json")) as far:
            assert "http_proxy" not in cloud.connects[0]["capabilities"]
            assert (await far.fetch()).cancel["code"] == "REFUSED"

    run(work)


def test_the_shadow_cannot_set_it():
    async def work():
        async with Cloud() as cloud:
            shadow = cloud.shadow("device-1")
            shadow["desired"] = shadow["delta"] = {"local_url": "http://127.0.0.1:9", "log_level": "INFO"}
            async with edited(None, cloud) as far:
                await until(lambda: "log_level" in shadow["reported"])
                assert far.device.settings.all() == {"log_level": "INFO"}

    run(work)


def test_an_editor_on_this_machine_may_sign_its_own_certificate(tmp_path):
    context = self_signed(tmp_path / "both.pem", local=False)

    async def answer(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        writer.close()

    async def work():
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        async with server, edited(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}") as far:
            assert (await far.fetch()).data == b"local"

    run(work)


def test_one_on_another_machine_may_not():
    assert (_tls(False).verify_mode, _tls(False).check_hostname) == (ssl.CERT_REQUIRED, True)
