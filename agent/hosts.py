"""Which hosts the editor may be on: this machine, and what the agent's own configuration names.

The cloud may set `local_url`, so a stolen account must not turn a device into a door to the network behind it. A name
is judged twice: by itself when it is set, and by what it resolves to each time that a connection is made, which then
goes to the very address that was judged: a name server that changes its mind in between gains nothing.
"""

import asyncio
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

Address = IPv4Address | IPv6Address

_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
# `inet_aton` reads 2130706433, 0x7f.1 and 127.1 as 127.0.0.1: such a last label makes no name (WHATWG URL, 3.5).
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")


class ForbiddenHost(ValueError):
    """The URL, or what its host resolves to, is not among what this agent may reach."""


@dataclass(frozen=True)
class Target:
    """Where the editor is served. `prefix`: the path of the URL, without a slash at the end."""

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def tls(self) -> bool:
        """Whether it is https."""
        return self.scheme == "https"

    @property
    def authority(self) -> str:
        """What the Host header says: the port only where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """`scheme://host[:port]`."""
        return f"{self.scheme}://{self.authority}"


def target_of(url: str) -> Target:
    """The URL in its parts; raises ForbiddenHost for what is no plain http(s) URL (no user, query or fragment)."""
    if not url.isascii() or not url.isprintable() or " " in url:  # urlsplit drops tabs and line ends in silence
        raise ForbiddenHost("not a URL")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ForbiddenHost("not a URL") from error
    host, plain = parts.hostname or "", parts.query == parts.fragment == "" and "@" not in parts.netloc
    if parts.scheme not in ("http", "https") or not plain or not _PATH.fullmatch(parts.path) or port == 0:
        raise ForbiddenHost("must be http(s)://HOST[:PORT][/PATH]")
    if literal(host) is None and (not _NAME.fullmatch(host) or _NUMBER.fullmatch(host)):
        raise ForbiddenHost(f"{host[:100]!r} is neither a host's name nor an IP address as usually written")
    return Target(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/"))


def literal(host: str) -> Address | None:
    """The address that `host` is, None for a name; one with a zone (`fe80::1%eth0`) counts as none."""
    try:
        return None if "%" in host else _plain(ip_address(host))
    except ValueError:
        return None


class Hosts:
    """This machine, and beside it `allowed`: names, addresses, networks (`192.168.7.0/24`). Raises ValueError."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._names: set[str] = set()
        self._networks: list[IPv4Network | IPv6Network] = []
        for host in allowed:
            self._allow(host.strip().lower())

    def check(self, url: str) -> Target:
        """The URL's parts if its host may be reached as far as one can tell without resolving it.

        Raises ForbiddenHost.
        """
        target = target_of(url)
        address = literal(target.host)
        known = self.permits(address) if address else _is_localhost(target.host) or target.host in self._names
        if not known:
            raise ForbiddenHost(f"{target.host} is not a host that this agent may reach (--allow-host)")
        return target

    def permits(self, address: Address) -> bool:
        """Whether an address is this machine's own or one that is allowed as such."""
        return address.is_loopback or any(address in network for network in self._networks)

    async def addresses(self, target: Target) -> list[str]:
        """What a connection may be made to, in the resolver's order; raises ForbiddenHost, OSError."""
        address = literal(target.host)
        found = [address] if address else await _resolve(target)
        allowed = [address for address in found if self._leads_to(target.host, address)]
        if not allowed:
            raise ForbiddenHost(f"{target.host} leads to addresses that this agent may not reach")
        return [str(address) for address in allowed]

    def with_own(self, url: str) -> "Hosts":
        """The same and the host of `url`, which the agent's own configuration names. Raises ForbiddenHost."""
        hosts = Hosts()
        hosts._names, hosts._networks = set(self._names), list(self._networks)
        hosts._allow(target_of(url).host)
        return hosts

    def _allow(self, host: str) -> None:
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if _NAME.fullmatch(host) and not _NUMBER.fullmatch(host):
            self._names.add(host)
        else:
            self._networks.append(ip_network(host))

    def _leads_to(self, name: str, address: Address) -> bool:
        """A name of the configuration may lead into any ordinary network, `localhost` to this machine alone.

        Link-local addresses are where clouds serve a machine's secrets (169.254.169.254): only a literal allows them.
        """
        if self.permits(address):
            return True
        odd = address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved
        return name in self._names and not _is_localhost(name) and not odd


def _is_localhost(name: str) -> bool:
    return name == "localhost" or name.endswith(".localhost")


async def _resolve(target: Target) -> list[Address]:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    # A zone (fe80::1%2) is dropped: such an address is link-local and as such never a name's.
    addresses = [_plain(ip_address(str(entry[4][0]).partition("%")[0])) for entry in found]
    return list(dict.fromkeys(addresses))


def _plain(address: Address) -> Address:
    """::ffff:127.0.0.1 is 127.0.0.1 on the wire, so it is judged and dialled as that."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
