"""What was already answered: a command that comes twice is applied once and answered twice.

Every action that changes something is safe to do again, so what a power cut may leave behind (applied, but its answer
not yet on disk) is at worst repeated with the same result.
"""

import asyncio
import json
import logging
import os
from collections import Counter, OrderedDict
from pathlib import Path

from agent import storage

log = logging.getLogger("agent.answers")


class Ring:
    """The newest answers by command id, bounded in number and in bytes."""

    def __init__(self, limit: int, max_bytes: int) -> None:
        self._limit, self._max_bytes = limit, max_bytes
        self._answers: OrderedDict[str, str] = OrderedDict()
        self._bytes = 0

    def get(self, command_id: str) -> str | None:
        """The stored answer."""
        return self._answers.get(command_id)

    def put(self, command_id: str, answer: str) -> None:
        """Keep an answer; the oldest go."""
        self._bytes += len(answer) - len(self._answers.pop(command_id, ""))
        self._answers[command_id] = answer
        while len(self._answers) > self._limit or (self._bytes > self._max_bytes and len(self._answers) > 1):
            self._bytes -= len(self._answers.popitem(last=False)[1])

    def items(self) -> list[tuple[str, str]]:
        """Oldest first."""
        return list(self._answers.items())


class Answers:
    """Answers by command id; those of changes have a ring of their own and, given a path, survive a restart."""

    def __init__(self, path: Path | None = None, limit: int = 1000, max_bytes: int = 16 * 1024 * 1024) -> None:
        self._path, self._limit, self._lines = path, limit, 0
        self._changing = Ring(limit, max_bytes)
        self._reading = Ring(max(1, limit // 5), max_bytes)
        self.applied: Counter[str] = Counter()
        if path:
            self._load(path)

    def get(self, command_id: str) -> str | None:
        """The answer that `command_id` has got, None when it is new."""
        return self._changing.get(command_id) or self._reading.get(command_id)

    def applying(self, command_id: str) -> None:
        """Note that a changing command is carried out now: the ledger that tests read."""
        self.applied[command_id] += 1
        if len(self.applied) > 10 * self._limit:
            del self.applied[next(iter(self.applied))]

    async def keep(self, command_id: str, answer: str, changing: bool) -> None:
        """Keep an answer; that of a change is on disk, given a path, when this returns. Raises OSError."""
        (self._changing if changing else self._reading).put(command_id, answer)
        if changing and self._path:
            await asyncio.to_thread(self._append, self._path, command_id, answer)

    def _append(self, path: Path, command_id: str, answer: str) -> None:
        if self._lines >= 2 * self._limit:
            self._compact(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "a", encoding="utf-8") as file:
            file.write(json.dumps([command_id, answer]) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self._lines += 1

    def _compact(self, path: Path) -> None:
        kept = self._changing.items()
        storage.write_atomic(path, "".join(json.dumps(list(pair)) + "\n" for pair in kept))
        self._lines = len(kept)

    def _load(self, path: Path) -> None:
        if not path.exists():
            return
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        for line in lines:
            try:
                command_id, answer = json.loads(line)
                self._changing.put(command_id, answer)
            except ValueError:
                log.warning("%s: a line cut short by a power loss is skipped", path.name)
        # Rewritten at once: a next line must not be glued to one that was cut short.
        self._compact(path)
