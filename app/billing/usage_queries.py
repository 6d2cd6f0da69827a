"""Usage by the hour in one statement over what is stored: the journal, the table of connections, the counted points.

Online is a device from the moment its connection was recorded until its end was (a silent one, until that was noticed).
Commands are those that were given to a device, whatever became of them: each of ``command`` in the journal, and the
attempts of each execution, in the hour in which it ended. Deployments are counted by the journal's entry of their
creation, which outlives them.

Other rooms' tables go by name: billing imports none of them.
"""

from datetime import datetime
from typing import Any, cast
from uuid import UUID

from sqlalchemy import CursorResult, text

from app import db

PRESENCE = ("device.connected", "device.disconnected", "device.deleted")
ENDED = tuple(
    f"execution.{state}"
    for state in (
        "succeeded", "failed", "timed_out", "rejected", "canceled", "removed", "superseded", "already_installed",
    )
)  # fmt: skip
ACTS = ("command", "deployment.status", *ENDED)


def _among(kinds: tuple[str, ...]) -> str:
    """A condition that the journal's index of these kinds (``ix_log_entries_usage``) answers."""
    return f"l.source = 'platform' AND l.kind IN ({', '.join(repr(kind) for kind in kinds)})"


# Presence. The journal is read from ``lower`` until now, not until ``upper``: an entry tells what was before it, too,
# and so the next one tells of a connection that began long ago, whatever is still kept of that time. A device's entries
# are ordered by epoch, since times are those at which transactions began: the end of an older connection may bear a
# later time than the beginning of the newer one. What overlaps counts once.
_SPANS = f"""
bounds AS (
    SELECT CAST(:begin AS timestamptz) AS lower, least(CAST(:end AS timestamptz), now()) AS upper
), told AS (
    SELECT l.org_id, l.device_id, l.kind, l.time, CAST(l.fields ->> 'epoch' AS bigint) AS epoch,
        l.fields -> 'replaced' = 'true' AS replaced,
        lag(l.time) OVER one AS earlier, lead(l.time) OVER one AS later
    FROM log_entries l
    WHERE {_among(PRESENCE)} AND l.time >= :begin AND l.device_id IS NOT NULL AND {{mine}}
    WINDOW one AS (PARTITION BY l.device_id ORDER BY CAST(l.fields ->> 'epoch' AS bigint) NULLS LAST, l.time, l.id)
), spans AS (
    -- What ended, or was replaced, had lasted since the entry before it.
    SELECT org_id, device_id, coalesce(earlier, '-infinity') AS begun, time AS ended
    FROM told WHERE kind = 'device.disconnected' OR replaced
    UNION ALL
    -- What began lasts until the next entry, or as long as the connection's row says.
    SELECT t.org_id, t.device_id, t.time, coalesce(t.later, CASE
        WHEN c.device_id IS NULL THEN t.time
        WHEN c.epoch > t.epoch THEN c.connected_at
        ELSE coalesce(c.disconnected_at, 'infinity') END)
    FROM told t LEFT JOIN connections c ON c.device_id = t.device_id
    WHERE t.kind = 'device.connected'
    UNION ALL
    -- One that was given up, but lives: it came back in the same moment, which left no entry.
    SELECT t.org_id, t.device_id, t.time, 'infinity'
    FROM told t JOIN connections c ON c.device_id = t.device_id AND c.epoch = t.epoch AND c.disconnected_at IS NULL
    WHERE t.kind = 'device.disconnected' AND t.later IS NULL
    UNION ALL
    -- Of a connection without an entry since, its row tells.
    SELECT c.org_id, c.device_id, c.connected_at, coalesce(c.disconnected_at, 'infinity')
    FROM connections c CROSS JOIN bounds
    WHERE (c.disconnected_at IS NULL OR c.disconnected_at > lower) AND {{connections_of}}
      AND NOT EXISTS (SELECT FROM told t WHERE t.device_id = c.device_id AND t.epoch = c.epoch)
    UNION ALL
    -- A device that was deleted has no row any more: whether it was online, its last entry tells.
    SELECT t.org_id, t.device_id, '-infinity', t.time
    FROM told t CROSS JOIN bounds
    WHERE t.kind = 'device.deleted' AND t.earlier IS NULL AND 'device.connected' = (
        SELECT l.kind FROM log_entries l
        WHERE l.org_id = t.org_id AND l.device_id = t.device_id AND l.time < lower
          AND {_among(("device.connected", "device.disconnected"))}
        ORDER BY l.time DESC, l.id DESC LIMIT 1)
), clipped AS (
    SELECT org_id, device_id, greatest(begun, lower) AS begun, least(ended, upper) AS ended
    FROM spans CROSS JOIN bounds WHERE greatest(begun, lower) < least(ended, upper)
), online AS (
    SELECT s.org_id, h.hour, s.device_id,
        range_agg(tstzrange(greatest(s.begun, h.hour), least(s.ended, h.hour + interval '1 hour'))) AS held
    FROM clipped s CROSS JOIN LATERAL generate_series(
        date_trunc('hour', s.begun, 'UTC'), s.ended - interval '1 microsecond', interval '1 hour') AS h (hour)
    GROUP BY 1, 2, 3
), acts AS (
    SELECT l.org_id, date_trunc('hour', l.time, 'UTC') AS hour,
        sum(CASE WHEN l.kind = 'command' THEN 1
                 -- It had succeeded before, and was counted then.
                 WHEN l.fields ->> 'error_code' = 'UNHEALTHY' THEN 0
                 WHEN l.kind <> 'deployment.status' THEN CAST(l.fields ->> 'attempt' AS bigint) END) AS commands,
        count(*) FILTER (WHERE l.kind = 'deployment.status' AND l.fields -> 'previous_status' = 'null') AS deployments
    FROM log_entries l CROSS JOIN bounds
    WHERE {_among(ACTS)} AND l.time >= lower AND l.time < upper AND {{mine}}
    GROUP BY 1, 2
), parts AS (
    SELECT org_id, hour, floor(sum(extract(epoch FROM upper(one) - lower(one)))) AS device_seconds,
        0 AS commands, 0 AS deployments, 0 AS points
    FROM online CROSS JOIN LATERAL unnest(held) AS one
    GROUP BY 1, 2
    UNION ALL
    SELECT org_id, hour, 0, commands, deployments, 0 FROM acts
    UNION ALL
    SELECT p.org_id, p.hour, 0, 0, 0, p.points
    FROM usage_points p CROSS JOIN bounds WHERE p.hour >= lower AND p.hour < upper AND {{points_of}}
    {{more}}
), found AS (
    SELECT org_id, hour, CAST(sum(device_seconds) AS bigint) AS device_seconds,
        CAST(coalesce(sum(commands), 0) AS bigint) AS commands, CAST(sum(deployments) AS bigint) AS deployments,
        CAST(sum(points) AS bigint) AS points
    FROM parts GROUP BY 1, 2
)
"""
_MINE = {"mine": "l.org_id = :org", "connections_of": "c.org_id = :org", "points_of": "p.org_id = :org", "more": ""}
# Hours that were written before are looked at again, since what they counted may be gone.
_ALL = {
    **dict.fromkeys(("mine", "connections_of", "points_of"), "true"),
    "more": "UNION ALL SELECT u.org_id, u.hour, 0, 0, 0, 0 FROM usage_hours u CROSS JOIN bounds "
    "WHERE u.hour >= lower AND u.hour < upper",
}

_USED = text(f"""
WITH {_SPANS.format(**_MINE)}
SELECT hour, device_seconds, commands, deployments, points, 0 AS points_refused FROM found
WHERE hour >= :begin
UNION ALL
SELECT date_trunc(:granularity, hour, 'UTC'), CAST(sum(device_seconds) AS bigint), CAST(sum(commands) AS bigint),
    CAST(sum(deployments) AS bigint), CAST(sum(points) AS bigint), 0
FROM usage_hours WHERE org_id = :org AND hour >= :since AND hour < least(:begin, :until) GROUP BY 1
UNION ALL
SELECT date_trunc(:granularity, hour, 'UTC'), 0, 0, 0, 0, CAST(sum(refused) AS bigint)
FROM usage_points WHERE org_id = :org AND hour >= :since AND hour < :until AND refused > 0 GROUP BY 1
""")


def used(org_id: UUID, since: datetime, until: datetime, settled: datetime, granularity: str) -> list[Any]:
    """Rows ``(hour, device_seconds, commands, deployments, points, points_refused)``, one or several of each bucket.

    From ``settled`` on they are added up now; before, they are those of ``usage_hours``. All are whole hours.
    """
    values = {
        "org": org_id, "since": since, "until": until, "granularity": granularity,
        "begin": max(since, settled), "end": max(until, settled),
    }  # fmt: skip
    return list(db.session.execute(_USED, values))


_BEING_REPORTED = """EXISTS (
    SELECT FROM billing_operations b
    WHERE b.org_id = {row}.org_id AND b.created_at > {row}.hour AND b.kind = 'meter.report'
      AND CAST(b.payload ->> 'hour' AS timestamptz) = {row}.hour)"""
# What Stripe was told, or is being told, stands. Idle hours of idle organizations leave no row.
_AGGREGATE = text(f"""
WITH {_SPANS.format(**_ALL)}
INSERT INTO usage_hours AS u (org_id, hour, device_seconds, commands, deployments, points)
SELECT f.org_id, f.hour, f.device_seconds, f.commands, f.deployments, f.points
FROM found f JOIN organizations o ON o.id = f.org_id
WHERE NOT {_BEING_REPORTED.format(row="f")}
  AND (f.device_seconds + f.commands + f.deployments + f.points > 0
       OR EXISTS (SELECT FROM usage_hours e WHERE e.org_id = f.org_id AND e.hour = f.hour))
ORDER BY f.org_id, f.hour
ON CONFLICT (org_id, hour) DO UPDATE SET device_seconds = excluded.device_seconds, commands = excluded.commands,
    deployments = excluded.deployments, points = excluded.points, aggregated_at = now()
WHERE u.reported_at IS NULL AND (u.device_seconds, u.commands, u.deployments, u.points)
    IS DISTINCT FROM (excluded.device_seconds, excluded.commands, excluded.deployments, excluded.points)
""")


def aggregate(begin: datetime, end: datetime) -> int:
    """Write the hours from ``begin`` to before ``end`` (both whole) of every organization; how many rows changed.

    Wants a system transaction. Hours that Stripe has been told, or is being told, stay as they are.
    """
    done = db.session.execute(_AGGREGATE, {"begin": begin, "end": end})
    return cast(CursorResult[Any], done).rowcount


# Workers that were away count points for hours that were added up long ago.
_COUNT_LATE = text(f"""
UPDATE usage_hours u SET points = p.points, aggregated_at = now()
FROM usage_points p
WHERE p.org_id = u.org_id AND p.hour = u.hour AND u.hour >= :since AND u.reported_at IS NULL AND u.points <> p.points
  AND NOT {_BEING_REPORTED.format(row="u")}
""")


def count_late(since: datetime) -> int:
    """Take over points that were counted since an hour was added up; how many hours (from ``since``) that concerned.

    Wants a system transaction.
    """
    done = db.session.execute(_COUNT_LATE, {"since": since})
    return cast(CursorResult[Any], done).rowcount


_LAST = text("SELECT now() AS now, max(hour) AS last FROM usage_hours")


def last() -> tuple[datetime, datetime | None]:
    """The database's clock, and the newest hour of which there is a row. Wants a system transaction."""
    now, newest = db.session.execute(_LAST).one()
    return now, newest
