"""The connection to the local server: to an address that was just judged, and no other."""

import asyncio
import functools
import ssl
from asyncio import StreamReader, StreamWriter
from dataclasses import dataclass, field
from ipaddress import ip_address

from agent.hosts import Hosts, Target

READ = 32 * 1024
HEAD_SECONDS = 300.0
"""Node-RED answers the installation of a palette module when npm has finished; browsers wait about as long."""


@dataclass(frozen=True)
class Editor:
    """Where the device's editor is, and where its agent may connect to at all.

    `head_seconds`: so long it may take to begin an answer.
    """

    target: Target
    hosts: Hosts = field(compare=False)
    head_seconds: float = HEAD_SECONDS

    async def connect(self) -> tuple[StreamReader, StreamWriter]:
        """A connection of one's own; raises ForbiddenHost, OSError."""
        failure = OSError("no address")
        for address in await self.hosts.addresses(self.target):
            try:
                return await _dial(self.target, address)
            except OSError as error:
                failure = error
        raise failure


def editor_of(
    local_url: str | None, own_url: str | None, hosts: Hosts, head_seconds: float = HEAD_SECONDS
) -> Editor | None:
    """The editor at `local_url`, which the cloud has set, else at the configuration's own; None: there is none.

    Raises ForbiddenHost: the setting may be older than today's configuration.
    """
    if local_url is not None:
        return Editor(hosts.check(local_url), hosts, head_seconds)
    if own_url is None:
        return None
    hosts = hosts.with_own(own_url)
    return Editor(hosts.check(own_url), hosts, head_seconds)


async def _dial(target: Target, address: str) -> tuple[StreamReader, StreamWriter]:
    context = _tls(ip_address(address).is_loopback) if target.tls else None
    reader, writer = await asyncio.open_connection(
        address, target.port, limit=READ, ssl=context, server_hostname=target.host if context else None
    )
    # `drain` then means that the system has taken everything: only such bytes are credited to the cloud.
    writer.transport.set_write_buffer_limits(high=0)
    return reader, writer


@functools.cache
def _tls(loopback: bool) -> ssl.SSLContext:
    """Certificates are verified on the way to another machine; editors on this one sign their own."""
    context = ssl.create_default_context()
    if loopback:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
