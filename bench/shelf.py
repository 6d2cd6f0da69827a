"""The web server behind an agent, in a process of its own: ``python -m bench.shelf`` prints its port and serves.

``GET /<n>`` answers n bytes of noise, as fast as they are taken; it stands for an editor that serves large files.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import uvloop

ROOT = Path(__file__).parent.parent
BLOCK = os.urandom(256 * 1024)
"""Noise, so that nothing on the way could make it smaller."""


class Shelf:
    """The server as a context; ``url`` is where it is."""

    def __enter__(self) -> "Shelf":
        command = [sys.executable, "-m", "bench.shelf"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.split(b" ", 2)[1].rpartition(b"/")[2] or 0)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n")
            writer.write(b"Content-Length: %d\r\n\r\n" % length)
            for begin in range(0, length, len(BLOCK)):
                writer.write(BLOCK[: length - begin])
                await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
