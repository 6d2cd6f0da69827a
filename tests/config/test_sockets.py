"""Waiting before reading: for what comes, for the end, and never for what has come already."""

import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
import pytest

from config.sockets import wait_for_data
from tests.certificates import self_signed


def test_it_waits_for_data_and_not_when_there_is_some() -> None:
    ours, theirs = gevent.socket.socketpair()
    gevent.spawn_later(0.05, theirs.send, b"abc")
    wait_for_data(ours)
    assert ours.recv(1) == b"a"
    with gevent.Timeout(2):
        wait_for_data(ours)
    assert ours.recv(10) == b"bc"


def test_the_end_is_data_too() -> None:
    ours, theirs = gevent.socket.socketpair()
    gevent.spawn_later(0.05, theirs.close)
    with gevent.Timeout(2):
        wait_for_data(ours)
    assert ours.recv(1) == b""


def test_the_socket_s_own_timeout_counts() -> None:
    ours, _theirs = gevent.socket.socketpair()
    ours.settimeout(0.05)
    with pytest.raises(TimeoutError):
        wait_for_data(ours)


def test_a_socket_that_is_closed_meanwhile_ends_the_wait() -> None:
    ours, _theirs = gevent.socket.socketpair()
    gevent.spawn_later(0.05, ours.close)
    with gevent.Timeout(2), pytest.raises(OSError, match="closed"):
        wait_for_data(ours)
    wait_for_data(ours)  # and then there is nothing to wait for
    with pytest.raises(OSError, match="descriptor"):
        ours.recv(1)


def test_a_plain_socket_is_read_as_ever() -> None:
    ours, theirs = socket.socketpair()
    with contextlib.closing(ours), contextlib.closing(theirs):
        wait_for_data(ours)


def test_what_tls_has_decrypted_already_is_not_waited_for(tmp_path: Path) -> None:
    """The kernel has nothing left of a record of which a part was read."""
    ours, theirs = _tls_pair(tmp_path)
    theirs.sendall(b"x" * 8_000)
    assert ours.recv(1_000) == b"x" * 1_000
    with gevent.Timeout(2):
        wait_for_data(ours)
        assert ours.recv(8_000) == b"x" * 7_000


def _tls_pair(folder: Path) -> tuple[Any, Any]:
    """Two ends of gevent's own TLS."""
    self_signed(folder / "server.pem", local=True)
    server, client = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.load_cert_chain(folder / "server.pem")
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    ours, theirs = gevent.socket.socketpair()
    shaken = gevent.spawn(client.wrap_socket, theirs)
    wrapped = server.wrap_socket(ours, server_side=True)
    return wrapped, shaken.get(timeout=5)
