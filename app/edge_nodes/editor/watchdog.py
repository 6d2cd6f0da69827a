"""The open streams of this process: each second it is asked, in one statement for all, whether they may still be open.

A request is checked when it begins; a WebSocket or a long download outlives that, but not its session.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy.exc import SQLAlchemyError

from app.edge_nodes.editor import sessions
from app.edge_nodes.editor.sessions import Access
from app.tunnel.streams import Stream

log = structlog.get_logger("editor")

OPEN = Gauge("edgeflow_editor_streams", "Requests and WebSockets of editors under way", multiprocess_mode="livesum")
BYTES = Counter("edgeflow_editor_bytes_total", "Bytes of editors, from devices (in) and to them (out)", ["direction"])

CHECK_SECONDS = 0.8
USED_SECONDS = 20.0
BODY_SECONDS = 120.0
BLIND_SECONDS = 30.0
TCP_ESTABLISHED = 1


@dataclass(eq=False)
class Opened:
    """A stream that runs for somebody's browser. ``writes``: a viewer may not have it."""

    access: Access
    stream: Stream
    browser: Any
    websocket: bool
    writes: bool
    told_in: int = 0
    told_out: int = 0

    @property
    def gone(self) -> bool:
        """Whether the browser hung up. Nobody reads its socket while the device is waited for, so the kernel is asked:
        events that never come would else hold one of the device's streams each for minutes."""
        try:
            return int(self.browser.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]) != TCP_ESTABLISHED
        except OSError:
            return True

    def cut(self, reason: str) -> None:
        """End it now, on both sides."""
        log.info("editor stream cut", reason=reason, editor_session_id=str(self.access.id))
        self.stream.cancel("CLOSED", reason)
        with suppress(OSError):  # it may have closed already
            self.browser.shutdown(socket.SHUT_RDWR)

    def untold(self) -> tuple[int, int]:
        """Bytes in and out since this was last asked."""
        total_in, total_out = self.stream.bytes_in, self.stream.bytes_out
        news = total_in - self.told_in, total_out - self.told_out
        self.told_in, self.told_out = total_in, total_out
        return news


@dataclass
class Watchdog:
    """Begins with the first stream, and goes on until the process ends."""

    opened: set[Opened] = field(default_factory=set)
    usage: dict[UUID, tuple[int, int]] = field(default_factory=dict)
    recent: dict[UUID, bytes] = field(default_factory=dict)
    """The cookies' hashes of sessions whose streams have ended, until what they used is written: should they end as
    well, nobody else knows their last bytes."""
    lock: Any = field(default_factory=threading.Lock)
    seen_at: float = field(default_factory=time.monotonic)

    def start(self) -> "Watchdog":
        threading.Thread(target=self._run, name="editor-watchdog", daemon=True).start()
        return self

    @contextmanager
    def holding(self, one: Opened) -> Iterator[None]:
        """Within, the stream is watched."""
        self.hold(one)
        try:
            yield
        finally:
            self.release(one)

    def hold(self, one: Opened) -> None:
        with self.lock:
            self.opened.add(one)
            OPEN.set(len(self.opened))

    def release(self, one: Opened) -> None:
        with self.lock:
            self.opened.discard(one)
            OPEN.set(len(self.opened))
            self.recent[one.access.id] = one.access.cookie_hash
            self._count(one, always=True)

    def _count(self, one: Opened, *, always: bool = False) -> None:
        """Gather what a session used; a WebSocket on which nothing flows uses nothing (the lock is held)."""
        news_in, news_out = one.untold()
        if news_in or news_out or (always and not one.websocket):
            had_in, had_out = self.usage.get(one.access.id, (0, 0))
            self.usage[one.access.id] = had_in + news_in, had_out + news_out
            BYTES.labels("in").inc(news_in)
            BYTES.labels("out").inc(news_out)

    def _run(self) -> None:
        pause, flushed = threading.Event(), time.monotonic()
        while not pause.wait(CHECK_SECONDS):
            try:
                flush = time.monotonic() - flushed >= USED_SECONDS
                flushed = time.monotonic() if flush else flushed
                self._check(flush=flush)
            except SQLAlchemyError as error:
                log.warning("editors not checked", error=str(error).splitlines()[0])
                self._fail_closed()
            except Exception:  # without this thread nothing would be revoked any more
                log.exception("editors not checked")

    def _check(self, *, flush: bool) -> None:
        opened, recent = list(self.opened), dict(self.recent)
        held = {one.access.cookie_hash for one in opened} | set(recent.values())
        living = sessions.states(sorted(held)) if held else {}
        self.seen_at = time.monotonic()
        over = [one for one in opened if not _may(one, living.get(one.access.id))]
        ended = {one.access.cookie_hash for one in over} | {recent[id] for id in recent.keys() - living.keys()}
        if flush or ended:
            self._flush()
        for one in over:
            one.cut("the session has ended")
        if ended:
            sessions.end(sorted(ended))
        for one in opened:
            if one.gone:
                one.cut("the browser has gone")
            elif not one.websocket and self.seen_at - one.stream.moved_at > BODY_SECONDS:
                one.cut("nothing moved for too long")

    def _flush(self) -> None:
        with self.lock:
            for one in self.opened:
                self._count(one)
            usage, self.usage, self.recent = self.usage, {}, {}
        sessions.used(usage)

    def _fail_closed(self) -> None:
        """While the database is away nobody knows who may; a moment of that is borne."""
        if time.monotonic() - self.seen_at > BLIND_SECONDS:
            for one in list(self.opened):
                one.cut("who may cannot be asked")


def _may(one: Opened, now: Access | None) -> bool:
    return now is not None and not (one.writes and now.read_only)


@cache
def watchdog() -> Watchdog:
    """That of this process, started at first use (after the web server has forked)."""
    return Watchdog().start()
