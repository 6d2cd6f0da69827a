"""gevent's sockets, read and written with one call to the kernel instead of two."""

from typing import Any


def wait_for_data(peer: Any) -> None:
    """Wait until ``peer`` has something to read, if it is a plain socket of gevent's; else return at once.

    Whoever reads without having waited mostly finds nothing, is told so by an exception, and waits then. Raises what
    ``recv`` does: OSError when the socket is closed meanwhile, TimeoutError after its timeout. Of TLS nothing is known
    here: what it has decrypted already the kernel does not tell of.
    """
    arrival = getattr(peer, "_read_event", None)  # until it is closed
    if arrival is not None and not hasattr(peer, "pending"):
        peer._wait(arrival)


def send_all(peer: Any, data: bytes) -> None:
    """``sendall``, which asks the kernel for the size of its buffer first, only for what does not go at once."""
    sent = peer.send(data)
    if sent < len(data):
        peer.sendall(memoryview(data)[sent:])
