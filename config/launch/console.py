"""The terminal: every part's log lines with its name in front, and room for a live progress bar below them."""

import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

from rich.console import Console
from rich.text import Text

_COLOURS = {
    "web": "cyan",
    "worker": "green",
    "scheduler": "magenta",
    "postgres": "blue",
    "valkey": "red",
    "migrate": "yellow",
    "mail": "bright_yellow",
    "fleet": "bright_black",
    "webhook": "bright_magenta",
    "edgeflow": "bold white",
}
_WIDTH = max(map(len, _COLOURS))
# A device chooses parts of what is logged: no line of it may move the cursor or retitle the terminal.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_LONGEST = 65_536


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Rich would end the thread that writes, and then the part whose lines nobody reads would stand still."""


class Terminal:
    """Where everything that a person sees is written, by any thread."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.console = _Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
        self._lock = threading.Lock()
        self._live = 0

    @property
    def interactive(self) -> bool:
        return self.console.is_terminal

    def line(self, name: str, text: str) -> None:
        """One log line of the part ``name``."""
        prefix = f"{name:<{_WIDTH}} │ "
        style = _COLOURS.get(name, "white")
        if self.console.is_terminal:
            self._print(Text.assemble((prefix, style), _CONTROL.sub("�", text)))
        else:
            self._print(prefix + _CONTROL.sub("�", text))

    def say(self, text: str) -> None:
        """A line of our own."""
        self.line("edgeflow", text)

    def block(self, text: str) -> None:
        """Lines to be copied from: without a prefix, exactly as they are."""
        self._print(text)

    def follow(self, name: str, output: IO[bytes]) -> threading.Thread:
        """Show everything that comes out of ``output`` until it is closed."""
        thread = threading.Thread(target=self._follow, args=(name, output), name=f"log of {name}", daemon=True)
        thread.start()
        return thread

    @contextmanager
    def live(self) -> Iterator[Console]:
        """While this is open, lines go through rich, which keeps a progress bar below them."""
        self._live += 1
        try:
            yield self.console
        finally:
            self._live -= 1

    def _follow(self, name: str, output: IO[bytes]) -> None:
        with output:
            while raw := output.readline(_LONGEST):
                self.line(name, raw.decode(errors="replace").rstrip())

    def _print(self, text: Text | str) -> None:
        try:
            if self._live or isinstance(text, Text):
                self.console.print(text, markup=False)
            else:
                with self._lock:
                    self.console.file.write(text + "\n")
                    self.console.file.flush()
        except (OSError, ValueError):
            # Whoever read our output is gone. The platform goes on; there is nobody left to tell.
            return
