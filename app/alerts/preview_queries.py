"""What is stored about the subjects of a rule, as the moments at which its verdict changes.

Each statement answers ``subject, device_id, name, deployment_id, start, until, verdict, known_from``, in order: from
``start`` on the verdict holds until the next row's, or ``until`` if that comes first. ``known_from``: before it a
subject's silence says nothing.
"""

from sqlalchemy import text

from app.alerts.queries import LOG_MATCHES, MATCHES, RULE, breaches

_RULE = f"""
r AS MATERIALIZED (
    SELECT {RULE} FROM jsonb_to_record(CAST(:rule AS jsonb)) AS r (
        type text, metric text, condition text, threshold float8, clear_threshold float8, for_seconds integer,
        no_data text, target jsonb, log_q text, log_level text)
)"""
_WATCHED = f"""
watched AS MATERIALIZED (
    SELECT d.id, d.name, d.created_at FROM devices d, r
    WHERE d.org_id = :org AND d.disabled_at IS NULL AND {MATCHES} ORDER BY d.name, d.id LIMIT :most
)"""
MATCHING = text(f"""
WITH {_RULE} SELECT count(*) FROM devices d, r WHERE d.org_id = :org AND d.disabled_at IS NULL AND {MATCHES}
""")

_METRIC = f"""
WITH {_RULE}, {_WATCHED}, samples AS (
    SELECT w.id, m.last_at AS time, bool_or({breaches("threshold", "m.last")}) AS breached,
        bool_or({breaches("hold", "m.last")}) AS held
    FROM r, watched w JOIN metric_series s ON s.org_id = :org AND s.device_id = w.id
    JOIN metric_points_1m m ON m.series_id = s.id AND m.time >= :begin - (SELECT stale FROM r) AND m.time < :finish
    WHERE s.name = r.metric GROUP BY w.id, m.last_at
), graded AS (
    SELECT id, time, CASE WHEN breached THEN 'breached' WHEN held THEN 'holding' ELSE 'cleared' END AS verdict
    FROM samples
), marked AS (
    SELECT g.*, (g.verdict IS DISTINCT FROM lag(g.verdict) OVER w
                 OR g.time - lag(g.time) OVER w >= (SELECT stale FROM r)) AS begins
    FROM graded g WINDOW w AS (PARTITION BY g.id ORDER BY g.time)
), runs AS (
    SELECT id, time, verdict, count(*) FILTER (WHERE begins) OVER (PARTITION BY id ORDER BY time) AS run FROM marked
)
SELECT w.id::text AS subject, w.id AS device_id, w.name, CAST(NULL AS uuid) AS deployment_id, min(n.time) AS start,
    max(n.time) + (SELECT stale FROM r) AS until, n.verdict,
    CASE WHEN c.device_id IS NOT NULL THEN w.created_at + (SELECT stale FROM r) END AS known_from
FROM watched w LEFT JOIN runs n ON n.id = w.id LEFT JOIN connections c ON c.org_id = :org AND c.device_id = w.id
GROUP BY w.id, w.name, w.created_at, c.device_id, n.run, n.verdict ORDER BY w.id, start
"""

# Before the first entry that there is, the device counts as connected; one that is silent now has been since then.
_DEVICE_OFFLINE = f"""
WITH {_RULE}, {_WATCHED}, known AS (
    SELECT w.id, l.time, CASE l.kind WHEN 'device.disconnected' THEN 'breached' ELSE 'cleared' END AS verdict
    FROM watched w JOIN log_entries l ON l.device_id = w.id
    WHERE l.org_id = :org AND l.source = 'platform' AND l.kind IN ('device.connected', 'device.disconnected')
      AND l.time >= :begin AND l.time < :finish
    UNION
    SELECT w.id, o.since, 'breached' FROM watched w JOIN connections c ON c.org_id = :org AND c.device_id = w.id,
        LATERAL (SELECT least(c.disconnected_at, c.last_seen_at + make_interval(secs => :offline_after)) AS since) o
    WHERE o.since <= :finish
)
SELECT w.id::text AS subject, w.id AS device_id, w.name, CAST(NULL AS uuid) AS deployment_id,
    greatest(k.time, :begin) AS start, CAST(NULL AS timestamptz) AS until, k.verdict, :begin AS known_from
FROM watched w LEFT JOIN known k ON k.id = w.id ORDER BY w.id, k.time, k.verdict DESC
"""

_DEPLOYMENT_FAILED = """
SELECT d.id::text AS subject, CAST(NULL AS uuid) AS device_id, d.name, d.id AS deployment_id, e.created_at AS start,
    CAST(NULL AS timestamptz) AS until, :begin AS known_from,
    CASE WHEN e.data->>'status' IN ('failed', 'rollback_failed') THEN 'breached' ELSE 'cleared' END AS verdict
FROM deployments d JOIN deployment_events e ON e.org_id = d.org_id AND e.deployment_id = d.id AND e.kind = 'status'
WHERE d.org_id = :org AND d.updated_at >= :begin AND e.created_at >= :begin AND e.created_at < :finish
ORDER BY d.id, e.id
"""

# Each entry counts from its arrival until it leaves the window.
_LOG_MATCH = f"""
WITH {_RULE}, {_WATCHED}, found AS (
    SELECT w.id, l.received_at AS time FROM r, log_entries l LEFT JOIN watched w ON w.id = l.device_id
    WHERE l.org_id = :org AND l.received_at >= :begin AND l.received_at < :finish
      AND l.time >= :begin - interval '8 days' AND (w.id IS NOT NULL OR l.device_id IS NULL AND r.everything)
      AND {LOG_MATCHES}
    ORDER BY l.received_at DESC LIMIT :entries
), changes AS (
    SELECT id, time, 1 AS by FROM found UNION ALL SELECT id, time + r.span, -1 FROM found, r
), counted AS (
    SELECT id, time, sum(sum(by)) OVER (PARTITION BY id ORDER BY time) AS entries FROM changes GROUP BY id, time
), graded AS (
    SELECT c.id, c.time, CASE WHEN c.entries >= r.threshold THEN 'breached' WHEN c.entries >= r.hold THEN 'holding'
        ELSE 'cleared' END AS verdict
    FROM counted c, r
), marked AS (
    SELECT g.*, lag(g.verdict) OVER (PARTITION BY g.id ORDER BY g.time) AS before FROM graded g
)
SELECT coalesce(m.id, :org)::text AS subject, m.id AS device_id, w.name, CAST(NULL AS uuid) AS deployment_id,
    m.time AS start, CAST(NULL AS timestamptz) AS until, m.verdict, :begin AS known_from
FROM marked m LEFT JOIN watched w ON w.id = m.id
WHERE m.verdict IS DISTINCT FROM m.before AND m.time < :finish ORDER BY m.id, m.time
"""

CHANGES = {
    "metric": text(_METRIC),
    "device_offline": text(_DEVICE_OFFLINE),
    "deployment_failed": text(_DEPLOYMENT_FAILED),
    "log_match": text(_LOG_MATCH),
}
"""By rule type; wants ``org``, ``begin`` and ``finish``, and those that it names of ``rule`` (JSON), ``most``,
``entries`` and ``offline_after`` (s)."""
