"""The evaluation as SQL: one statement for each rule type, over any number of rules, tenants and subjects.

Each statement is ``due`` (the rules), ``seen`` (the subjects whose condition holds, or would with ``clear_threshold``),
``unseen`` (what becomes of open alerts without one), and then the same transitions for all. ``rules.step`` says the
same for one subject.
"""

from uuid import UUID

from sqlalchemy import text

from app import db

# What a condition's name means is said once a rule: to look at names costs more than to compare values, of which there
# are millions.
RULE = """
    r.threshold, r.no_data, r.metric,
    CASE WHEN r.type = 'log_match' THEN 0 ELSE r.for_seconds END * interval '1 second' AS wait,
    r.for_seconds * interval '1 second' AS span, greatest(300, 3 * r.for_seconds) * interval '1 second' AS stale,
    coalesce(r.clear_threshold, r.threshold) AS hold, r.condition IN ('gte', 'lte', 'eq') AS inclusive,
    r.condition IN ('gt', 'gte', 'ne') AS upward, r.condition IN ('lt', 'lte', 'ne') AS downward,
    CASE WHEN r.condition IN ('lt', 'lte') THEN -1 ELSE 1 END AS sign, r.target ? 'all' AS everything,
    CASE WHEN r.target ? 'tags' THEN ARRAY(SELECT jsonb_array_elements_text(r.target->'tags')) END AS tags,
    CASE WHEN r.target ? 'device_ids'
         THEN ARRAY(SELECT jsonb_array_elements_text(r.target->'device_ids'))::uuid[] END AS ids,
    websearch_to_tsquery('simple', r.log_q) AS words,
    array_position(ARRAY['debug', 'info', 'warning', 'error'], r.log_level) - 1 AS level"""

_DUE = f"""
due AS MATERIALIZED (
    SELECT r.id, r.org_id, r.created_at, {RULE}
    FROM alert_rules r WHERE r.id = ANY (CAST(:rules AS uuid[])) AND r.type = :type
), open AS MATERIALIZED (
    SELECT a.id, a.rule_id, a.subject, a.device_id, a.deployment_id, a.state, a.since
    FROM alerts a WHERE a.rule_id = ANY (CAST(:rules AS uuid[])) AND a.state IN ('pending', 'firing')
)"""

MATCHES = "(r.everything OR d.tags && r.tags OR d.id = ANY (r.ids))"
FRESH = "s.last_at > now() - r.stale"


def breaches(threshold: str, value: str = "s.last_value") -> str:
    """Whether a value lies on the bad side of a column of ``r``."""
    return (
        f"(r.upward AND {value} > r.{threshold} OR r.downward AND {value} < r.{threshold} "
        f"OR r.inclusive AND {value} = r.{threshold})"
    )


# A full join is never a nested loop, however few rows the planner expects of what has no statistics.
_PAIRED = """
, paired AS MATERIALIZED (
    SELECT o.id, o.state, o.since AS began, o.rule_id AS open_rule_id, o.subject AS open_subject,
        o.device_id AS open_device_id, o.deployment_id AS open_deployment_id, n.*
    FROM open o FULL JOIN seen n ON n.rule_id = o.rule_id AND n.subject = o.subject
)"""

# Why an alert about a device is over whatever its values say; null: it is not.
_LEFT = f"""
    CASE WHEN d.id IS NULL THEN 'device deleted' WHEN d.disabled_at IS NOT NULL THEN 'device disabled'
         WHEN NOT coalesce({MATCHES}, false) THEN 'not a target any more' END"""

_SUBJECT = "d.id::text AS subject, d.id AS device_id, d.name AS device_name, CAST(NULL AS uuid) AS deployment_id"

# ``OFFSET 0`` keeps the order, which the planner gets wrong without statistics: first the values, of which few breach,
# then their devices; for rules that name devices the other way round.
_METRIC = f"""
, held AS MATERIALIZED (
    SELECT r.id AS rule_id, r.org_id, r.wait, d.id, d.name, r.sign, r.sign * s.last_value AS value,
        {breaches("threshold")} AS breached
    FROM due r CROSS JOIN LATERAL (
        SELECT s.device_id, s.last_value FROM metric_series s
        WHERE s.org_id = r.org_id AND s.name = r.metric AND {FRESH} AND {breaches("hold")} OFFSET 0) s
    JOIN devices d ON d.org_id = r.org_id AND d.id = s.device_id
    WHERE r.ids IS NULL AND d.disabled_at IS NULL AND {MATCHES}
    UNION ALL
    SELECT r.id, r.org_id, r.wait, d.id, d.name, r.sign, r.sign * s.last_value, {breaches("threshold")}
    FROM due r CROSS JOIN LATERAL unnest(r.ids) AS named (device_id)
    CROSS JOIN LATERAL (
        SELECT * FROM devices d
        WHERE d.id = named.device_id AND d.org_id = r.org_id AND d.disabled_at IS NULL OFFSET 0) d
    CROSS JOIN LATERAL (
        SELECT s.last_value FROM metric_series s
        WHERE s.device_id = d.id AND s.name = r.metric AND {FRESH} AND {breaches("hold")} OFFSET 0) s
), seen AS MATERIALIZED (
    SELECT d.rule_id, d.org_id, d.wait, {_SUBJECT}, d.sign * max(d.value) AS value,
        CAST(NULL AS timestamptz) AS since, bool_or(d.breached) AS breached
    FROM held d GROUP BY d.rule_id, d.org_id, d.wait, d.id, d.name, d.sign
    UNION ALL
    SELECT r.id, r.org_id, r.wait, {_SUBJECT}, NULL, NULL, true
    FROM due r JOIN devices d ON d.org_id = r.org_id AND d.disabled_at IS NULL AND {MATCHES}
    JOIN connections c ON c.org_id = d.org_id AND c.device_id = d.id
    WHERE r.no_data = 'alert' AND d.created_at < now() - r.stale AND NOT EXISTS (
        SELECT FROM metric_series s WHERE s.device_id = d.id AND s.name = r.metric AND {FRESH})
){_PAIRED}, unseen AS MATERIALIZED (
    SELECT f.id, f.state, coalesce(f.cause, CASE WHEN NOT f.fresh THEN 'no data' END) AS reason
    FROM (
        SELECT p.id, p.state, r.no_data, {_LEFT} AS cause, EXISTS (
            SELECT FROM metric_series s WHERE s.device_id = d.id AND s.name = r.metric AND {FRESH}) AS fresh
        FROM paired p JOIN due r ON r.id = p.open_rule_id
        LEFT JOIN devices d ON d.org_id = r.org_id AND d.id = p.open_device_id
        WHERE p.subject IS NULL
    ) f
    WHERE f.cause IS NOT NULL OR f.fresh OR f.no_data = 'ok'
)"""

_OVER = f"""{_PAIRED}, unseen AS MATERIALIZED (
    SELECT p.id, p.state, CASE WHEN p.open_subject <> r.org_id::text THEN {_LEFT} END AS reason
    FROM paired p JOIN due r ON r.id = p.open_rule_id
    LEFT JOIN devices d ON d.org_id = r.org_id AND d.id = p.open_device_id
    WHERE p.subject IS NULL
)"""

# Silence counts from its beginning, whoever noticed it when: the device said goodbye, or was not heard any more.
_DEVICE_OFFLINE = f"""
, seen AS MATERIALIZED (
    SELECT r.id AS rule_id, r.org_id, r.wait, {_SUBJECT}, CAST(NULL AS double precision) AS value, true AS breached,
        least(c.disconnected_at, c.last_seen_at + make_interval(secs => :offline_after)) AS since
    FROM due r JOIN devices d ON d.org_id = r.org_id AND d.disabled_at IS NULL AND {MATCHES}
    JOIN connections c ON c.org_id = d.org_id AND c.device_id = d.id
    WHERE c.disconnected_at IS NOT NULL OR c.last_seen_at <= now() - make_interval(secs => :offline_after)
){_OVER}"""

# As ``rollout.why_stopped``: failures that nobody has accepted exceed the threshold, or the stage cannot succeed.
_STOPPED = """
    SELECT FROM (
        SELECT count(*) FILTER (WHERE e.failed) AS failed, count(*) FILTER (WHERE e.failed OR e.succeeded) AS finished,
            count(*) FILTER (WHERE e.failed AND e.stage = d.current_stage) AS stage_failed,
            count(*) FILTER (WHERE e.stage = d.current_stage AND NOT e.gone) AS members
        FROM (
            SELECT stage, state IN ('failed', 'timed_out', 'rejected') AS failed,
                state IN ('succeeded', 'already_installed') AS succeeded,
                state IN ('removed', 'superseded', 'canceled') AS gone
            FROM executions x WHERE x.deployment_id = d.id AND x.kind = 'install'
        ) e
    ) c LEFT JOIN deployment_stages g ON g.deployment_id = d.id AND g.number = d.current_stage,
    LATERAL (SELECT least(d.acknowledged_failures, c.failed) AS known,
                    least(coalesce(g.acknowledged_failures, 0), c.stage_failed) AS stage_known) k
    WHERE c.finished >= coalesce((d.strategy->>'min_executed')::int, 1)
          AND (c.failed - k.known) * 100
              > coalesce((d.strategy->>'failure_threshold')::int, 10) * (c.finished - k.known)
       OR d.current_stage < coalesce(jsonb_array_length(d.strategy->'stages'), 1) - 1 AND g.status <> 'succeeded'
          AND (c.members - c.stage_failed) * 100
              < coalesce((d.strategy->>'success_threshold')::int, 100) * (c.members - k.stage_known)"""

_DEPLOYMENT_FAILED = f"""
, seen AS MATERIALIZED (
    SELECT r.id AS rule_id, r.org_id, r.wait, d.id::text AS subject, CAST(NULL AS uuid) AS device_id,
        CAST(NULL AS text) AS device_name, d.id AS deployment_id,
        CAST(NULL AS double precision) AS value, true AS breached, CAST(NULL AS timestamptz) AS since
    FROM due r JOIN deployments d ON d.org_id = r.org_id AND d.updated_at >= r.created_at
    WHERE (d.status IN ('failed', 'rollback_failed') OR d.status = 'paused' AND EXISTS ({_STOPPED}))
      AND NOT EXISTS (SELECT FROM deployments n WHERE n.org_id = d.org_id AND n.flow_id = d.flow_id
                      AND n.created_at > d.created_at AND n.status = 'succeeded')
){_PAIRED}, unseen AS MATERIALIZED (
    SELECT p.id, p.state, CASE
        WHEN d.id IS NULL THEN 'deployment deleted'
        WHEN d.status IN ('failed', 'rollback_failed') THEN 'a later deployment of the flow succeeded'
        ELSE 'deployment ' || replace(d.status, '_', ' ') END AS reason
    FROM paired p JOIN due r ON r.id = p.open_rule_id
    LEFT JOIN deployments d ON d.org_id = r.org_id AND d.id = p.open_deployment_id
    WHERE p.subject IS NULL
)"""

# By arrival: a device's clock decides nothing. Times that are too far off were replaced when the entry came, which
# leaves few partitions to look into. What alerts themselves write would keep them firing.
LOG_MATCHES = """
    (r.level IS NULL OR l.level >= r.level) AND (r.words IS NULL OR to_tsvector('simple', l.message) @@ r.words)
    AND coalesce(l.kind, '') NOT LIKE 'alert.%'"""
_LOG_MATCH = f"""
, seen AS MATERIALIZED (
    SELECT r.id AS rule_id, r.org_id, r.wait, coalesce(d.id, r.org_id)::text AS subject, d.id AS device_id,
        d.name AS device_name, CAST(NULL AS uuid) AS deployment_id, CAST(count(*) AS double precision) AS value,
        CAST(NULL AS timestamptz) AS since, count(*) >= r.threshold AS breached
    FROM due r JOIN log_entries l ON l.org_id = r.org_id AND l.received_at > now() - r.span
        AND l.time > now() - r.span - interval '8 days' AND {LOG_MATCHES}
    LEFT JOIN devices d ON d.org_id = l.org_id AND d.id = l.device_id
    WHERE l.device_id IS NULL AND r.everything OR d.disabled_at IS NULL AND {MATCHES}
    GROUP BY r.id, r.org_id, r.wait, r.threshold, r.hold, d.id, d.name
    HAVING count(*) >= r.hold
){_OVER}"""

# Each open alert is touched by one of these at most. A device that is just being deleted is passed over, so that the
# foreign key finds it.
_TRANSITIONS = """
, fresh AS MATERIALIZED (
    SELECT n.*, coalesce(n.since, now()) AS start, coalesce(n.since, now()) <= now() - n.wait AS fires
    FROM paired n WHERE n.id IS NULL AND n.breached
), there AS MATERIALIZED (
    SELECT d.id FROM devices d WHERE d.id IN (SELECT device_id FROM fresh) FOR KEY SHARE SKIP LOCKED
), born AS (
    INSERT INTO alerts
        (org_id, rule_id, subject, device_id, device_name, deployment_id, state, value, since, fired_at)
    SELECT n.org_id, n.rule_id, n.subject, n.device_id, n.device_name, n.deployment_id,
        CASE WHEN n.fires THEN 'firing' ELSE 'pending' END, n.value, n.start, CASE WHEN n.fires THEN now() END
    FROM fresh n WHERE n.device_id IS NULL OR n.device_id IN (SELECT id FROM there)
    ON CONFLICT (rule_id, subject) WHERE state IN ('pending', 'firing') DO NOTHING
    RETURNING id, org_id, rule_id, device_id, device_name, deployment_id, state, value
), risen AS (
    UPDATE alerts a SET since = coalesce(p.since, p.began), value = p.value,
        state = CASE WHEN coalesce(p.since, p.began) <= now() - p.wait THEN 'firing' ELSE 'pending' END,
        fired_at = CASE WHEN coalesce(p.since, p.began) <= now() - p.wait THEN now() END
    FROM paired p
    WHERE a.id = p.id AND p.state = 'pending' AND p.breached
      AND (p.since <> p.began OR coalesce(p.since, p.began) <= now() - p.wait)
    RETURNING a.id, a.org_id, a.rule_id, a.device_id, a.device_name, a.deployment_id, a.state, a.value
), eased AS (
    DELETE FROM alerts a USING (
        SELECT id FROM unseen WHERE state = 'pending'
        UNION ALL SELECT id FROM paired WHERE state = 'pending' AND NOT breached
    ) p WHERE a.id = p.id
), ended AS (
    UPDATE alerts a SET state = 'resolved', resolved_at = now() FROM unseen u WHERE u.state = 'firing' AND a.id = u.id
    RETURNING a.id, a.org_id, a.rule_id, a.device_id, a.device_name, a.deployment_id, a.state,
        CAST(NULL AS double precision) AS value, u.reason
), changed AS MATERIALIZED (
    SELECT *, CAST(NULL AS text) AS reason FROM born WHERE state = 'firing'
    UNION ALL SELECT *, NULL FROM risen WHERE state = 'firing'
    UNION ALL SELECT * FROM ended
)"""

# The history of each alert, and the organization's log.
_TOLD = """
, told AS (
    INSERT INTO alert_events (org_id, rule_id, alert_id, device_id, device_name, kind, data)
    SELECT org_id, rule_id, id, device_id, device_name, state,
        jsonb_strip_nulls(jsonb_build_object('value', value, 'reason', reason, 'deployment_id', deployment_id))
    FROM changed
), logged AS (
    INSERT INTO log_entries (org_id, device_id, level, source, kind, message, fields)
    SELECT c.org_id, c.device_id,
        CASE WHEN c.state = 'resolved' OR r.severity = 'info' THEN 1 WHEN r.severity = 'warning' THEN 2 ELSE 3 END,
        'platform', 'alert.' || c.state,
        'alert ' || r.name || ' ' || c.state || coalesce(' on ' || c.device_name, '')
            || coalesce(': ' || c.reason, ''),
        jsonb_strip_nulls(jsonb_build_object('alert_id', c.id, 'rule_id', c.rule_id, 'severity', r.severity,
            'value', c.value, 'deployment_id', c.deployment_id))
    FROM changed c JOIN alert_rules r ON r.id = c.rule_id
)
SELECT org_id, rule_id, count(*) FILTER (WHERE state = 'firing') AS firing,
    count(*) FILTER (WHERE state = 'resolved') AS resolved
FROM changed GROUP BY org_id, rule_id
"""

EVALUATE = {
    name: text(f"WITH {_DUE}{seen}{_TRANSITIONS}{_TOLD}")
    for name, seen in (
        ("metric", _METRIC),
        ("device_offline", _DEVICE_OFFLINE),
        ("deployment_failed", _DEPLOYMENT_FAILED),
        ("log_match", _LOG_MATCH),
    )
}
"""By rule type: wants ``rules`` (ids), ``type`` and ``offline_after`` (s); answers what fired and ended, by rule."""

# Without the lock on the key that a foreign key's check waits for. Whoever holds a row evaluates or changes it.
TAKE = text("""
UPDATE alert_rules SET next_evaluation_at = now() + make_interval(secs => :rest), evaluated_at = now()
WHERE id IN (
    SELECT id FROM alert_rules WHERE enabled AND next_evaluation_at <= now()
    ORDER BY next_evaluation_at, id LIMIT :most FOR NO KEY UPDATE SKIP LOCKED
)
RETURNING id, type
""")

_END = text(f"""
WITH gone AS (
    DELETE FROM alerts WHERE rule_id = :rule AND state = 'pending'
), changed AS (
    UPDATE alerts SET state = 'resolved', resolved_at = now() WHERE rule_id = :rule AND state = 'firing'
    RETURNING id, org_id, rule_id, device_id, device_name, deployment_id, state, NULL::double precision AS value,
        CAST(:reason AS text) AS reason
){_TOLD}""")


def end_all(rule_id: UUID, reason: str) -> None:
    """Resolve what fires of a rule and drop what is pending."""
    db.session.execute(_END, {"rule": rule_id, "reason": reason})
