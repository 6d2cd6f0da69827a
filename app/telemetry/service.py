"""From the inbox into the tables: frames are taken and what is in them stored in one transaction, so exactly once."""

import threading
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from prometheus_client import Counter as Metric
from sqlalchemy import text
from sqlalchemy.orm import Session

from app import db
from app.billing import points as quota
from app.billing.points import Arrival, Overtaken, hour_of
from app.logs import store as logs
from app.metrics import store as metrics
from app.metrics.store import FromDevice, StaleSeries, Stored, Used
from app.telemetry import notices
from app.telemetry.frames import Contents, read
from app.telemetry.notices import Notice
from app.tunnel.admission import AWAY

log = structlog.get_logger("telemetry")

FRAMES_AT_ONCE, BYTES_AT_ONCE = 400, 4 * 1024 * 1024
JOB_SECONDS = 20.0
STORING_AT_ONCE = 2
"""In one process. More would share its one interpreter, and make smaller transactions."""

POINTS = Metric("edgeflow_telemetry_points_total", "Points of devices", ["outcome"])
LINES = Metric("edgeflow_telemetry_logs_total", "Log lines of devices", ["outcome"])

_turns = threading.BoundedSemaphore(STORING_AT_ONCE)


class Frame(NamedTuple):
    """A row of the inbox."""

    id: int
    org_id: UUID
    device_id: UUID
    received_at: datetime
    body: bytes


def store() -> int:
    """Store what is in the inbox, until nothing is left or the time of a job is over; how many frames.

    Where enough of this process's threads are at it already, they do it. Raises what the database raises while away.
    """
    if not _turns.acquire(blocking=False):
        return 0
    try:
        total, deadline = 0, time.monotonic() + JOB_SECONDS
        while time.monotonic() < deadline:
            count = _store_some()
            total += count
            if not count:
                break
        return total
    finally:
        _turns.release()


def _store_some() -> int:
    taken = list[Frame]()
    try:
        with db.transaction(system=True) as session:
            taken += _take(session)
            _store(session, taken)
    except StaleSeries:
        log.info("series were deleted: stored again", frames=len(taken))
    except Overtaken:
        log.info("others have reached a limit meanwhile: stored again", frames=len(taken))
    except AWAY:
        raise
    except Exception:
        log.exception("frames not stored: each is tried alone", frames=len(taken))
        _store_each(taken)
    return len(taken)


def _store_each(frames: list[Frame]) -> None:
    """Store frames one by one. What cannot be is given up only where others that hold the same kinds were stored.

    Then it is the frame's fault. Else it may be ours, and the frame waits until that has been mended: raises what went
    wrong.
    """
    shown, failed = set[str](), list[tuple[Frame, Exception]]()
    for frame in frames:
        try:
            with db.transaction(system=True) as session:
                kinds = _store(session, _delete(session, [frame.id]))
            shown |= kinds  # once it is committed
        except (StaleSeries, Overtaken):
            continue  # it is still there, and comes next
        except AWAY:
            raise
        except Exception as error:
            failed.append((frame, error))
    waiting = list[Exception]()
    for frame, fault in failed:
        if shown and shown >= _kinds(read(frame.body, frame.received_at)):
            _drop(frame, fault)
        else:
            waiting.append(fault)
    if waiting:
        raise waiting[0]


def _kinds(contents: Contents) -> set[str]:
    """What storing them takes, beside counting."""
    parts = {"points": contents.points, "lines": contents.lines, "notices": contents.malformed or contents.beyond}
    return {kind for kind, part in parts.items() if part}


def _drop(frame: Frame, error: Exception) -> None:
    """Give up a frame: it must not hold up the others for ever."""
    log.error("frame dropped", device_id=str(frame.device_id), bytes=len(frame.body), error=repr(error))
    message = "a telemetry frame could not be stored, and is lost"
    with db.transaction(system=True) as session:
        if _delete(session, [frame.id]):
            notices.write(session, [_notice(frame, "telemetry.malformed", type(error).__name__, message, 1)])


# Up to a number and a size, oldest first; what another worker has taken is left to it.
_CHOOSE = text("SELECT id, octet_length(body) FROM telemetry_inbox ORDER BY id LIMIT :most FOR UPDATE SKIP LOCKED")
_DELETE = "DELETE FROM telemetry_inbox WHERE id = ANY (%s) RETURNING id, org_id, device_id, received_at, body"


def _take(session: Session) -> list[Frame]:
    chosen, size = list[int](), 0
    for frame_id, length in session.execute(_CHOOSE, {"most": FRAMES_AT_ONCE}):
        size += length
        if chosen and size > BYTES_AT_ONCE:
            break
        chosen.append(frame_id)
    return _delete(session, chosen) if chosen else []


def _delete(session: Session, ids: list[int]) -> list[Frame]:
    driver: Any = session.connection().connection.driver_connection
    with driver.cursor(binary=True) as cursor:  # as text every byte of a body would be two
        return sorted(Frame(*row) for row in cursor.execute(_DELETE, [ids]))


def _store(session: Session, frames: list[Frame]) -> set[str]:
    """Store what is in the frames; of which kinds that was. Those of devices that are gone hold nothing for anybody."""
    there = _devices(session, {frame.device_id for frame in frames})
    found = [(frame, read(frame.body, frame.received_at)) for frame in frames if frame.device_id in there]
    if not found:
        return set()
    over = _cut(session, found)
    stored = metrics.add(
        session, [FromDevice(f.org_id, f.device_id, c.points, hour_of(f.received_at)) for f, c in found if c.points]
    )
    lines = [
        (frame.org_id, frame.device_id, at, claimed, frame.received_at, level, message, fields)
        for frame, contents in found
        for at, claimed, level, message, fields in contents.lines
    ]
    if lines:
        logs.add(session, lines)
    _tell(session, found, stored)
    used = _used(found, stored, over)
    metrics.count(session, used)
    quota.count(session, stored.points, over)
    db.after_commit(lambda: _observe(used.values()))
    return set[str]().union(*(_kinds(contents) for _frame, contents in found))


def _devices(session: Session, device_ids: set[UUID]) -> set[UUID]:
    if not device_ids:
        return set()
    return set(session.scalars(text("SELECT id FROM devices WHERE id = ANY (:ids)"), {"ids": list(device_ids)}))


def _cut(session: Session, found: list[tuple[Frame, Contents]]) -> Counter[Arrival]:
    """Leave out the points that the plans have no room for any more, the last ones first; how many."""
    wanted, over = Counter[Arrival](), Counter[Arrival]()
    for frame, contents in found:
        if contents.points:
            wanted[frame.org_id, hour_of(frame.received_at)] += len(contents.points)
    room = quota.room(session, wanted)
    for frame, contents in found if room.left else ():
        number = len(contents.points)
        del contents.points[room.take(frame.org_id, frame.received_at, number) :]
        if len(contents.points) < number:
            over[frame.org_id, hour_of(frame.received_at)] += number - len(contents.points)
    return over


def _used(found: list[tuple[Frame, Contents]], stored: Stored, over: Counter[Arrival]) -> dict[UUID, Used]:
    points, refused, lines = Counter[UUID](), Counter[UUID](), Counter[UUID]()
    for (org_id, _hour), number in stored.points.items():
        points[org_id] += number
    for (org_id, _hour), number in over.items():
        refused[org_id] += number
    for org_id, reasons in stored.refused.items():
        refused[org_id] += reasons.total()
    for frame, contents in found:
        refused[frame.org_id] += contents.beyond.total() + contents.malformed.total()
        lines[frame.org_id] += len(contents.lines)
    orgs = sorted({frame.org_id for frame, _contents in found})
    return {org_id: Used(points[org_id], refused[org_id], lines[org_id]) for org_id in orgs}


def _observe(used: Iterable[Used]) -> None:
    for one in used:
        POINTS.labels("stored").inc(one.points)
        POINTS.labels("refused").inc(one.refused)
        LINES.labels("stored").inc(one.logs)


_WORDS = {
    "frame": "a telemetry frame was no JSON object",
    "metrics": "the metrics of a telemetry frame were no list",
    "logs": "the logs of a telemetry frame were no list",
    "point": "points were not [name, unix_ms, finite number, tags?]",
    "log": "log lines were not [unix_ms, level, message, fields?]",
}


def _tell(session: Session, found: list[tuple[Frame, Contents]], stored: Stored) -> None:
    """Note what was refused: for the whole organization what is beyond its limits, by device what is malformed."""
    beyond = {org_id: Counter(reasons) for org_id, reasons in stored.refused.items()}
    told = list[Notice]()
    for frame, contents in found:
        if contents.beyond:
            beyond.setdefault(frame.org_id, Counter()).update(contents.beyond)
        for what, count in contents.malformed.items():
            told.append(_notice(frame, "telemetry.malformed", what, f"{_WORDS[what]}: they are not stored", count))
    for org_id, reasons in beyond.items():
        for what, count in reasons.items():
            told.append(Notice(org_id, None, "metrics.refused", what, f"points are refused: {what}", count))
    if told:
        notices.write(session, told)


def _notice(frame: Frame, kind: str, what: str, message: str, count: int) -> Notice:
    return Notice(frame.org_id, frame.device_id, kind, what, message, count)
