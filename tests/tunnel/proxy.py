"""A TCP link that a test can break: cut (closed, new ones refused) or stalled (open, and nothing passes)."""

import contextlib
import select
import socket
import threading
from types import TracebackType


class Proxy:
    """Forwards a port of its own to ``target``."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = self._listen(0)
        self.port: int = self._listener.getsockname()[1]

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return listener

    def stall(self) -> None:
        self._flowing.clear()

    def cut(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for pair in self._pairs:
            _close(pair)
        self._pairs.clear()

    def restore(self) -> None:
        self._flowing.set()
        self._listener = self._listen(self.port)

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flowing.set()
        self.cut()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                near, _address = listener.accept()
                pair = (near, socket.create_connection(self._target))
                self._pairs.append(pair)
                threading.Thread(target=self._forward, args=(pair,), daemon=True).start()

    def _forward(self, pair: tuple[socket.socket, socket.socket]) -> None:
        other = {pair[0]: pair[1], pair[1]: pair[0]}
        with contextlib.suppress(OSError, ValueError):  # one side has gone
            while True:
                for side in select.select(pair, [], [])[0]:
                    self._flowing.wait()
                    data = side.recv(65536)
                    if not data:
                        return _close(pair)
                    other[side].sendall(data)
        _close(pair)
        return None


def _close(pair: tuple[socket.socket, socket.socket]) -> None:
    for side in pair:
        with contextlib.suppress(OSError):  # closed already
            side.shutdown(socket.SHUT_RDWR)
        side.close()
