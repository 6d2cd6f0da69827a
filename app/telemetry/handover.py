"""A gateway's telemetry, made durable: gathered for a moment, written to the inbox, and only then acknowledged.

A frame that is acknowledged stands in PostgreSQL, so no process that dies loses it. One that comes again, on whatever
gateway, finds its id among the device's newest and is acknowledged without being stored twice.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from time import monotonic
from uuid import UUID

import structlog
from prometheus_client import Counter
from sqlalchemy import text

from app import db, jobs
from app.batch import Batcher
from app.telemetry.inbox import Inbox
from app.tunnel import protocol
from app.tunnel.admission import AWAY
from app.tunnel.connection import Connection
from app.tunnel.socket import Closed

log = structlog.get_logger("telemetry")

GATHER_SECONDS = 0.25
FRAMES_AT_ONCE = 1_000
REMEMBERED = 32
"""Ids of each device's newest batches; twice what an agent may have under way, so none is forgotten too early."""
FRAMES_WAITING, BYTES_WAITING = 16, 4 * 1024 * 1024
"""Of one connection, until they are stored. Each is at most 1 MiB."""
BYTES_OF_ALL = 64 * 1024 * 1024
"""Of one process; reached only while the database is away or overrun."""

FRAMES = Counter("edgeflow_telemetry_frames_total", "Telemetry frames of devices", ["outcome"])


@dataclass(eq=False)
class Frame:
    """One frame that waits to be stored. ``acknowledge``: the device wants to know."""

    connection: Connection
    batch_id: str
    body: bytes
    acknowledge: bool = True
    arrived: float = field(default_factory=monotonic)


class Handover:
    """Takes frames from this process's connections. One that is not taken is not acknowledged: its agent resends it."""

    def __init__(self) -> None:
        self._bytes, self._inbox = 0, Inbox()
        self._batches: Batcher[Frame] = Batcher(
            "telemetry",
            self._hand_over,
            seconds=GATHER_SECONDS,
            most=FRAMES_AT_ONCE,
            failed=self._give_up,
            passing=AWAY,
        )

    def take(self, frame: Frame) -> bool:
        """Store a frame soon, and acknowledge it then. False: too much waits already."""
        waiting, size = frame.connection.unstored, len(frame.body)
        if (
            waiting.frames >= FRAMES_WAITING
            or waiting.bytes + size > BYTES_WAITING
            or self._bytes + size > BYTES_OF_ALL
        ):
            FRAMES.labels("not taken").inc()
            return False
        waiting.frames, waiting.bytes = waiting.frames + 1, waiting.bytes + size
        self._bytes += size
        self._batches.add(frame)
        return True

    def drain(self, timeout: float) -> bool:
        """Wait until all that was taken is stored; False if that took longer."""
        return self._batches.drain(timeout)

    def _hand_over(self, batch: list[Frame]) -> None:
        if self._inbox.is_full():
            self._let_go(batch, "inbox full")
            return
        held = store(batch)
        for frame in batch:
            self._release(frame)
            if frame in held and frame.acknowledge:
                with suppress(Closed):  # it will send the frame again, and be told then
                    frame.connection.socket.post(protocol.encode(protocol.ack(frame.batch_id)))
        FRAMES.labels("stored").inc(len(held))
        FRAMES.labels("of a former connection").inc(len(batch) - len(held))
        jobs.send("telemetry.store")

    def _give_up(self, batch: list[Frame], _error: Exception) -> None:
        self._let_go(batch, "failed")

    def _let_go(self, batch: list[Frame], why: str) -> None:
        """Not acknowledged, so their agents keep them."""
        for frame in batch:
            self._release(frame)
        FRAMES.labels(why).inc(len(batch))

    def _release(self, frame: Frame) -> None:
        waiting = frame.connection.unstored
        waiting.frames, waiting.bytes = waiting.frames - 1, waiting.bytes - len(frame.body)
        self._bytes -= len(frame.body)


# Each device's cursor is locked, in one order everywhere: two gateways that hold the same frame store it in turn, and
# the second sees what the first has noted. A statement of its own, because only one that begins after the lock sees it.
_LOCK = text(
    "SELECT device_id FROM telemetry_cursors WHERE device_id = ANY (:devices) ORDER BY device_id FOR NO KEY UPDATE"
)
_BEGIN = text("""
INSERT INTO telemetry_cursors (org_id, device_id)
SELECT org_id, id FROM devices WHERE id = ANY (:devices) ORDER BY id
ON CONFLICT DO NOTHING
""")

# Frames of a connection whose epoch is no longer the device's are left out: it has moved on, and resends there.
_STORE = text("""
WITH given AS (
    SELECT * FROM unnest(CAST(:devices AS uuid[]), CAST(:epochs AS bigint[]), CAST(:batches AS text[]),
                         CAST(:waited AS float8[]), CAST(:bodies AS bytea[]))
        WITH ORDINALITY AS g (device_id, epoch, batch, waited, body, n)
), valid AS (
    SELECT g.n, g.device_id, t.org_id, g.batch, g.waited, g.body,
        g.batch = ANY (t.recent) OR row_number() OVER (PARTITION BY g.device_id, g.batch ORDER BY g.n) > 1 AS repeated
    FROM given g
    JOIN connections c ON c.device_id = g.device_id AND c.epoch = g.epoch
    JOIN telemetry_cursors t ON t.device_id = g.device_id
), stored AS (
    INSERT INTO telemetry_inbox (org_id, device_id, received_at, body)
    SELECT org_id, device_id, now() - make_interval(secs => waited), body FROM valid WHERE NOT repeated ORDER BY n
), noted AS (
    UPDATE telemetry_cursors t SET recent = (f.batches || t.recent)[1:CAST(:remembered AS int)], updated_at = now()
    FROM (SELECT device_id, array_agg(batch ORDER BY n DESC) AS batches FROM valid WHERE NOT repeated GROUP BY 1) f
    WHERE t.device_id = f.device_id
)
SELECT n FROM valid
""")


def store(batch: list[Frame]) -> set[Frame]:
    """Write frames to the inbox in one transaction; those that are stored now or were before."""
    devices: list[UUID] = sorted({frame.connection.device_id for frame in batch})
    moment = monotonic()
    values = {
        "devices": [frame.connection.device_id for frame in batch],
        "epochs": [frame.connection.epoch for frame in batch],
        "batches": [frame.batch_id for frame in batch],
        "waited": [moment - frame.arrived for frame in batch],
        "bodies": [frame.body for frame in batch],
        "remembered": REMEMBERED,
    }
    with db.transaction(system=True) as session:
        if len(session.scalars(_LOCK, {"devices": devices}).all()) < len(devices):
            session.execute(_BEGIN, {"devices": devices})
            session.execute(_LOCK, {"devices": devices})
        return {batch[n - 1] for n in session.scalars(_STORE, values)}


@cache
def handover() -> Handover:
    """This process's, started at first use (after the web server has forked)."""
    return Handover()
