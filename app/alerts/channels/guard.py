"""Where a webhook may connect: an address of the public internet, checked in the moment of connecting.

What an address looks like decides nothing (decimal, octal and hex spellings, names that resolve to private addresses,
names that resolve differently the next time): the name is resolved once, each address that comes out is judged, and
the connection goes to exactly the address that passed. After OWASP's cheat sheet on server-side request forgery and
IANA's registries of special-purpose addresses.
"""

import socket
import time
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore

MOST_ADDRESSES = 4  # of one name are tried

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], Iterable[str]]

# Besides what the standard library's registries call not global.
_REFUSED_V4 = [
    IPv4Network("192.0.0.0/24"),  # protocols; some clouds' metadata. Older registries hold but its first eight
    IPv4Network("192.88.99.0/24"),  # 6to4 relays
    IPv4Network("168.63.129.16/32"),  # Azure's host, reachable from within it only, although it looks public
]
_UNICAST_V6 = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")
_REFUSED_V6 = [
    ip_network(block)
    for block in (
        "2001::/23",  # protocols: Teredo, ORCHID, benchmarking …
        "2001:db8::/32", "3fff::/20",  # documentation
        "2002::/16",  # 6to4: an IPv4 address within
        "2620:4f:8000::/48",  # AS112
    )
]  # fmt: skip


class Refused(Exception):
    """The target is not on the public internet; the message says so without telling the address it has."""


def is_public(address: Address) -> bool:
    """Whether a webhook may go there: global unicast, and no way to carry a private IPv4 address within."""
    if isinstance(address, IPv6Address):
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        return address in _UNICAST_V6 and address.is_global and not any(address in block for block in _REFUSED_V6)
    return address.is_global and not address.is_multicast and not any(address in block for block in _REFUSED_V4)


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, or of any spelling of an address that the system understands. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to public addresses only, unless ``private``; ``deadline`` (of ``time.monotonic()``) bounds all of it.

    ``most_bytes`` bounds what is read, so that neither a slow nor an endless answer holds a worker up.
    """

    def __init__(self, *, private: bool, deadline: float, most_bytes: int, look_up: Resolve | None = None) -> None:
        self._private, self.deadline, self._most_bytes = private, deadline, most_bytes
        self._look_up = look_up or resolve
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first address that passes and answers. Raises Refused, httpcore.ConnectError."""
        failure: Exception = httpcore.ConnectError("the name has no address")
        for address in self._allowed(host, port)[:MOST_ADDRESSES]:
            try:
                # A plain address: nothing is looked up again between the check and the connect.
                stream = self._plain.connect_tcp(
                    str(address), port, _within(self.deadline, timeout), local_address, socket_options
                )
                return _Bounded(stream, self, [self._most_bytes])
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def _allowed(self, host: str, port: int) -> list[Address]:
        try:
            found = [ip_address(text) for text in self._look_up(host, port)]
        except (OSError, UnicodeError):
            raise httpcore.ConnectError("the name does not resolve") from None
        except ValueError:
            raise Refused("the target is not a public address") from None
        allowed = found if self._private else [address for address in found if is_public(address)]
        if found and not allowed:
            raise Refused("the target is not a public address")
        return allowed


class _Bounded(httpcore.NetworkStream):
    """A connection with one deadline for all of it, however it drips, and a bound on what is read."""

    def __init__(self, stream: httpcore.NetworkStream, backend: GuardedBackend, left: list[int]) -> None:
        self._stream, self._backend, self._left = stream, backend, left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if self._left[0] <= 0:
            raise httpcore.ReadError("the answer is too large")
        data = self._stream.read(min(max_bytes, self._left[0]), _within(self._backend.deadline, timeout))
        self._left[0] -= len(data)
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _within(self._backend.deadline, timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream.start_tls(ssl_context, server_hostname, _within(self._backend.deadline, timeout))
        return _Bounded(stream, self._backend, self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _within(deadline: float, timeout: float | None) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("too slow")
    return left if timeout is None else min(left, timeout)
