"""Telemetry that is not acknowledged yet: in memory, or in files that survive a restart and a power cut. Bounded.

A batch is here before it is sent and until it is acknowledged. Beyond the bound the oldest go, and are counted.

On disk it is a log in segments, one record a line: `<crc32> put <points> <lines> <id> <frame>`, `… ack <id>`,
`… lost <batches> <points> <lines>`. A record that a power cut has torn fails its checksum and is skipped; nothing is
ever appended to a file of an earlier run. Segments go in order, so no `ack` can go before what it acknowledges.
"""

import asyncio
import contextlib
import logging
import os
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from zlib import crc32

from agent import storage

log = logging.getLogger("agent.telemetry")

MAX_BYTES = 16 * 1024 * 1024
SEGMENTS = 16
SYNC_ACKS = 16
"""Acknowledgements between two syncs of the file: what a power cut makes us send again is still within the ids that
the cloud remembers (32), with those on the wire (8)."""
UNWRITABLE_BYTES = 1024 * 1024
CHECKSUM = 9
"""Bytes before a record's body: eight digits and a blank."""


@dataclass(frozen=True)
class Framed:
    """One batch, ready to be sent: `text` is the whole frame."""

    id: str
    text: str
    points: int
    lines: int


@dataclass(slots=True)
class Entry:
    """A batch in the backlog. `number` rises by one from batch to batch; on disk `text` is None and `place` tells."""

    id: str
    number: int
    points: int
    lines: int
    size: int
    text: str | None = None
    segment: "Segment | None" = None
    place: tuple[int, int] = (0, 0)


@dataclass
class Lost:
    """What the bound has cost."""

    batches: int = 0
    points: int = 0
    lines: int = 0

    def __bool__(self) -> bool:
        return self.batches > 0

    def add(self, entry: Entry) -> None:
        """Count a batch that is gone."""
        self.batches += 1
        self.points += entry.points
        self.lines += entry.lines


class Backlog:
    """Batches by id, oldest first, in memory."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = self.memory_bytes = max_bytes
        self.lost = Lost()
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._number = self._held = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, batch_id: str) -> bool:
        return batch_id in self._entries

    def oldest(self, count: int) -> Iterator[Entry]:
        """The first `count` batches."""
        return islice(self._entries.values(), count)

    def put(self, batch: Framed) -> None:
        """Keep a batch; the oldest go for it if they must."""
        self._number += 1
        entry = Entry(batch.id, self._number, batch.points, batch.lines, len(batch.text), batch.text)
        self._entries[batch.id] = entry
        self._held += entry.size
        while self._held > self.memory_bytes:
            self._lose(next(held for held in self._entries.values() if held.text is not None))

    def text(self, entry: Entry) -> str | None:
        """The frame; None when it cannot be read any more, and then the batch is lost."""
        return entry.text

    def done(self, batch_id: str) -> bool:
        """Forget a batch that is acknowledged; False when it was not there."""
        entry = self._entries.pop(batch_id, None)
        if entry is not None and entry.text is not None:
            self._held -= entry.size
        return entry is not None

    def told(self) -> None:
        """The loss has been told: count anew."""
        self.lost = Lost()

    async def sync(self) -> None:
        """Make what was put survive a power cut, where there is a disk."""

    def close(self) -> None:
        """Let go of files."""

    def _lose(self, entry: Entry) -> None:
        self.lost.add(entry)
        self.done(entry.id)


@dataclass(eq=False)
class Segment:
    """One file of the log; `live`: its batches that are not acknowledged; `closed`: nothing is appended any more."""

    path: Path
    handle: int
    size: int = 0
    closed: bool = False
    live: set[str] = field(default_factory=set)


class DiskBacklog(Backlog):
    """The same in files of `folder`, at most `max_bytes` of them. A disk that cannot be written costs durability only.

    Opening it reads what an earlier run has left. One process per folder: the agent's lock sees to that.
    """

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        super().__init__(max_bytes)
        self._folder, self._segment_bytes = folder, max(1, max_bytes // SEGMENTS)
        self.memory_bytes = UNWRITABLE_BYTES
        self._segments: list[Segment] = []
        self._writable, self._acks = True, 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(path for path in folder.glob("*.log") if path.stem.isdigit()):
            self._load(path)
        self._next = 1 + max((int(segment.path.stem) for segment in self._segments), default=0)
        self._tidy()

    def put(self, batch: Framed) -> None:
        head = f"put {batch.points} {batch.lines} {batch.id} ".encode()
        frame = batch.text.encode()
        try:
            segment, start = self._append(head + frame, live=batch.id)
        except OSError as error:
            self._cannot_write(error)
            super().put(batch)
            return
        self._writable = True
        self._number += 1
        entry = Entry(batch.id, self._number, batch.points, batch.lines, len(frame), None, segment)
        entry.place = (start + len(head), len(frame))
        self._entries[batch.id] = entry

    def text(self, entry: Entry) -> str | None:
        if entry.segment is None:
            return entry.text
        start, length = entry.place
        try:
            frame = os.pread(entry.segment.handle, length, start)
            if len(frame) == length:
                return frame.decode()
            raise OSError("the file is shorter than it was")
        except (OSError, UnicodeDecodeError) as error:
            log.error("a batch of telemetry cannot be read: %s", error)
            self._lose(entry)
            return None

    def done(self, batch_id: str) -> bool:
        entry = self._entries.get(batch_id)
        known = super().done(batch_id)
        if entry is not None and entry.segment is not None:
            entry.segment.live.discard(batch_id)
            if self._tidy():
                self._note(f"ack {batch_id}")
                self._acks += 1
                if self._acks % SYNC_ACKS == 0:
                    self._sync_now()
        return known

    def told(self) -> None:
        super().told()
        if self._tidy():
            self._note("lost 0 0 0")

    async def sync(self) -> None:
        if not self._segments:
            return
        # A handle of its own: the segment may be closed while a slow card takes its time.
        handle = os.dup(self._segments[-1].handle)
        try:
            await asyncio.to_thread(os.fsync, handle)
        except OSError as error:
            self._cannot_write(error)
        finally:
            os.close(handle)

    def close(self) -> None:
        self._sync_now()
        for segment in self._segments:
            os.close(segment.handle)
        self._segments.clear()

    # Records

    def _append(self, body: bytes, live: str | None = None) -> tuple[Segment, int]:
        """Write one record; the segment and where its body starts. Raises OSError, and then nothing is there of it."""
        record = _record(body)
        if len(record) > self._segment_bytes:
            raise OSError("a batch larger than a segment")
        segment = self._room_for(len(record))
        start = _write(segment, record)
        if live:
            segment.live.add(live)
        return segment, start + CHECKSUM

    def _room_for(self, size: int) -> Segment:
        dropped = False
        while self._segments and sum(segment.size for segment in self._segments) + size > self.max_bytes:
            self._drop_oldest()
            dropped = True
        last = self._segments[-1] if self._segments else None
        if last is None or last.closed or last.size + size > self._segment_bytes:
            self._open_segment()
        elif dropped:
            _write(last, self._loss())
        return self._segments[-1]

    def _open_segment(self) -> None:
        """A new file, which begins with what was lost: so the newest one always knows it."""
        self._sync_now()
        path = self._folder / f"{self._next:08d}.log"
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self._next += 1
        self._segments.append(Segment(path, handle))
        storage.sync_folder(self._folder)
        if self.lost:
            _write(self._segments[-1], self._loss())

    def _drop_oldest(self) -> None:
        for batch_id in self._segments[0].live:
            self.lost.add(self._entries.pop(batch_id))
        self._remove_oldest()

    def _remove_oldest(self) -> None:
        segment = self._segments.pop(0)
        os.close(segment.handle)
        segment.path.unlink(missing_ok=True)

    def _tidy(self) -> bool:
        """Remove the oldest segments that nothing needs; whether there is still a record that matters."""
        while len(self._segments) > 1 and not self._segments[0].live:
            self._remove_oldest()
        if len(self._segments) != 1 or self._segments[0].live or self.lost:
            return bool(self._segments)
        return not _emptied(self._segments[0])

    def _loss(self) -> bytes:
        return _record(f"lost {self.lost.batches} {self.lost.points} {self.lost.lines}".encode())

    def _note(self, body: str) -> None:
        """A record that may be missing: without it something is told or sent again."""
        try:
            self._append(body.encode())
        except OSError as error:
            self._cannot_write(error)

    def _sync_now(self) -> None:
        if self._segments:
            with contextlib.suppress(OSError):  # the next write says it
                os.fsync(self._segments[-1].handle)

    def _cannot_write(self, error: OSError) -> None:
        if self._writable:
            log.error("telemetry cannot be stored and is kept in memory: %s", error)
        self._writable = False

    # An earlier run's files

    def _load(self, path: Path) -> None:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        segment = Segment(path, handle, os.fstat(handle).st_size, closed=True)
        self._segments.append(segment)
        start = torn = 0
        for line in path.read_bytes().split(b"\n"):
            body = line[CHECKSUM:]
            if line[:CHECKSUM] == b"%08x " % crc32(body):
                self._take(segment, start + CHECKSUM, body)
            elif line:
                torn += 1
            start += len(line) + 1
        if torn:
            log.warning("%s: %d record(s) cut short by a power loss are skipped", path.name, torn)

    def _take(self, segment: Segment, start: int, body: bytes) -> None:
        kind, _, rest = body.partition(b" ")
        if kind == b"ack":
            entry = self._entries.pop(rest.decode(), None)
            if entry and entry.segment:
                entry.segment.live.discard(entry.id)
        elif kind == b"lost":
            self.lost = Lost(*(int(number) for number in rest.split()))
        elif kind == b"put":
            points, lines, batch_id, frame = rest.split(b" ", 3)
            self._number += 1
            entry = Entry(batch_id.decode(), self._number, int(points), int(lines), len(frame), None, segment)
            entry.place = (start + len(body) - len(frame), len(frame))
            self._entries[entry.id] = entry
            segment.live.add(entry.id)


def _record(body: bytes) -> bytes:
    return b"%08x %b\n" % (crc32(body), body)


def _write(segment: Segment, record: bytes) -> int:
    """Append; where the record starts. Raises OSError, and then nothing is there of it."""
    start = segment.size
    if os.pwrite(segment.handle, record, start) < len(record):
        os.ftruncate(segment.handle, start)
        raise OSError("no space left")
    segment.size += len(record)
    return start


def _emptied(segment: Segment) -> bool:
    """Begin a file anew in which nothing waits, mostly before the system has written any of it to the card."""
    try:
        os.ftruncate(segment.handle, 0)
    except OSError:  # its records stay: what they tell is told or sent again
        return False
    segment.size, segment.closed = 0, False
    return True
