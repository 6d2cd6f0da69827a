"""Log lines on their way to the cloud: gathered in memory, bounded, the agent's own warnings among them."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from agent.protocol import encode

Fields = dict[str, Any]
Line = list[Any]
"""`[unix_ms, level, message]` or `[unix_ms, level, message, fields]`."""

MAX_MESSAGE = 8 * 1024
MAX_FIELDS = 4 * 1024
MAX_LINES = 10_000
HASTE = 1_000
"""Lines upon which nobody should wait for the interval's end."""
UNSENT = ("agent.flow", "agent.telemetry")
"""Loggers that are not sent: flows' lines come with their flow's id, and telemetry must not feed on itself."""


def unix_ms() -> int:
    """This device's idea of the time; the cloud believes it only within reason."""
    return int(time.time() * 1000)


class Journal:
    """Lines until the next batch; `hurry` is called when there are many."""

    def __init__(self, hurry: Callable[[], None] = lambda: None) -> None:
        self.wanted = True
        self._hurry = hurry
        self._lines: list[Line] = []
        self._dropped = 0

    def note(self, level: str, message: str, fields: Fields | None = None) -> None:
        """Keep a line, unless nobody wants any; what is too long is cut."""
        if not self.wanted:
            return
        if len(self._lines) >= MAX_LINES:
            self._dropped += 1
            return
        self._lines.append(line(level, message, fields))
        if len(self._lines) == HASTE:
            self._hurry()

    def take(self) -> list[Line]:
        """What has been noted since the last call."""
        lines, self._lines = self._lines, []
        if self._dropped:
            lines.append(line("warning", f"{self._dropped} more lines came at once and were left out"))
            self._dropped = 0
        return lines


def line(level: str, message: str, fields: Fields | None = None) -> Line:
    """One line of log as a batch carries it."""
    text = message if len(message) <= MAX_MESSAGE else message[: MAX_MESSAGE - 1] + "…"
    # Half a character, as odd file names have it, is none that a frame can hold.
    text = text.encode("utf-8", "replace").decode()
    head: Line = [unix_ms(), level, text]
    return [*head, fields] if fields and _fits(fields) else head


def _fits(fields: Fields) -> bool:
    """Whether JSON can say it, in reasonable length."""
    with contextlib.suppress(TypeError, ValueError):  # what it cannot say
        return len(encode(fields).encode()) <= MAX_FIELDS
    return False


class AgentLog(logging.Handler):
    """Hands the agent's own warnings to a journal, from whatever thread they come."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal, self._loop = journal, asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        """Note one record."""
        if record.name in UNSENT:
            return
        try:
            said = (record.levelname.lower(), record.getMessage(), {"logger": record.name})
            self._loop.call_soon_threadsafe(self._journal.note, *said)
        except Exception:
            self.handleError(record)
