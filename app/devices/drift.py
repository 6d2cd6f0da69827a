"""Where devices differ from what was deployed to them: what they report as ``flows`` against the ledger.

``reported.flows`` is ``{flow_id: {hash, version, status, errors, restarts}}``, its ``hash`` that of what really runs.
A flow drifts when its hash is another one, when it was stopped, or when it is not there any more. A report that is
older than the installation says nothing; neither does a device that reports no flows. ``shadows.drift`` keeps which
flows drift since when, so that lists and counts need not compare, and the journal tells of each beginning and end once.
"""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text

from app import db, journal
from app.devices.models import Shadow
from app.devices.shadow import Document

GRACE = 60  # seconds after an installation in which a flow that is not reported yet is not missed

_REFRESH = text("""
WITH held AS MATERIALIZED (
    SELECT s.org_id, s.device_id, s.drift, s.reported->'flows' AS flows, s.reported_times AS times
    FROM shadows s WHERE s.device_id = ANY (CAST(:devices AS uuid[]))
    ORDER BY s.device_id FOR NO KEY UPDATE
), told AS (
    SELECT h.org_id, h.device_id, i.flow_id, i.version, i.content_hash, i.installed_at,
        h.flows->CAST(i.flow_id AS text) AS flow,
        CAST(h.times->>('flows.' || i.flow_id || '.hash') AS timestamptz) AS hash_at,
        CAST(h.times->>('flows.' || i.flow_id || '.status') AS timestamptz) AS status_at,
        CAST(h.drift->>CAST(i.flow_id AS text) AS timestamptz) AS noted,
        jsonb_typeof(h.flows) IS NOT DISTINCT FROM 'object' AND i.version IS NOT NULL AS comparable
    FROM held h JOIN installations i ON i.device_id = h.device_id AND i.replaced_at IS NULL
), compared AS (
    SELECT t.*, CASE
        WHEN NOT comparable THEN NULL
        WHEN flow IS NULL THEN CASE
            WHEN CAST(flow_id AS text) = ANY (CAST(:gone AS text[])) OR noted > installed_at
                OR installed_at < now() - make_interval(secs => :grace) THEN now() END
        WHEN flow->>'hash' <> content_hash THEN CASE WHEN hash_at > installed_at THEN hash_at END
        WHEN flow->>'status' = 'stopped' THEN CASE WHEN status_at > installed_at THEN status_at END
        END AS seen
    FROM told t
), decided AS (
    SELECT c.*, CASE
        WHEN seen IS NULL THEN NULL
        WHEN noted > installed_at THEN noted
        WHEN EXISTS (
            SELECT FROM executions e JOIN deployments d ON d.id = e.deployment_id
            WHERE e.device_id = c.device_id AND e.state = 'in_progress' AND d.flow_id = c.flow_id) THEN NULL
        ELSE seen END AS since
    FROM compared c
), wanted AS (
    SELECT h.device_id, coalesce(
        jsonb_object_agg(d.flow_id, d.since) FILTER (WHERE d.since IS NOT NULL), CAST('{}' AS jsonb)) AS drift
    FROM held h LEFT JOIN decided d ON d.device_id = h.device_id GROUP BY h.device_id
), written AS (
    UPDATE shadows s SET drift = w.drift
    FROM wanted w WHERE s.device_id = w.device_id AND s.drift <> w.drift
)
SELECT d.org_id, d.device_id, d.flow_id, f.name, d.version, d.content_hash, d.since,
    d.flow->>'hash' AS hash, d.flow->>'status' AS status
FROM decided d JOIN flows f ON f.id = d.flow_id
WHERE (d.since IS NULL) <> (d.noted IS NULL)
ORDER BY d.device_id, d.flow_id
""")


def refresh(devices: Collection[UUID], gone: Collection[str] = ()) -> None:
    """Compare what devices report with the ledger; beginnings and ends go into the journal. In one statement.

    ``gone``: flows that a device has just ceased to report. What is being installed at this moment is not compared:
    the device may tell of it before its answer is recorded.
    """
    values = {"devices": list(devices), "gone": list(gone), "grace": GRACE}
    journal.note_many(_note(row) for row in db.session.execute(_REFRESH, values).all())


def _note(row: Any) -> journal.Note:
    fields = {
        "flow_id": str(row.flow_id),
        "deployed_version": row.version,
        "deployed_hash": row.content_hash,
        "running_hash": row.hash,
        "running_status": row.status,
    }
    if row.since is None:
        words = f"flow {row.name} is again as it was deployed"
        return journal.Note(row.org_id, "drift.ended", words, "info", row.device_id, fields)
    words = f"flow {row.name} differs from what was deployed: {_how(row)}"
    return journal.Note(row.org_id, "drift.began", words, "warning", row.device_id, fields)


def _how(row: Any) -> str:
    if row.hash is None:
        return "it is not there any more"
    return "it was stopped" if row.hash == row.content_hash else "it was changed"


def reported(device_id: UUID, before: Document, after: Document) -> None:
    """A device has written its ``flows``: compare them."""
    former, now = before.get("flows"), after.get("flows")
    gone = former.keys() - (now if isinstance(now, dict) else {}).keys() if isinstance(former, dict) else ()
    refresh([device_id], gone)


_OF_DEVICE = text("""
SELECT i.flow_id, f.name AS flow_name, i.version AS deployed_version, i.content_hash AS deployed_hash,
    s.reported->'flows'->CAST(i.flow_id AS text)->>'hash' AS running_hash,
    s.reported->'flows'->CAST(i.flow_id AS text)->>'status' AS running_status,
    CAST(s.drift->>CAST(i.flow_id AS text) AS timestamptz) AS since
FROM shadows s
JOIN installations i ON i.device_id = s.device_id AND i.replaced_at IS NULL AND s.drift ? CAST(i.flow_id AS text)
JOIN flows f ON f.id = i.flow_id
WHERE s.device_id = :device AND s.drift <> '{}'
ORDER BY since, i.flow_id
""")


def of_device(device_id: UUID) -> Sequence[Any]:
    """The flows that drift on a device, the longest first."""
    return db.session.execute(_OF_DEVICE, {"device": device_id}).all()


def count(org_id: UUID) -> int:
    """On how many devices a flow drifts."""
    query = select(func.count()).where(Shadow.org_id == org_id, Shadow.drift != text("'{}'"))
    return db.session.scalar(query) or 0


_FORGET = text("UPDATE shadows SET drift = drift - CAST(:flow AS text) WHERE drift <> '{}' AND drift ? :flow")


def forget(flow_id: UUID) -> None:
    """A flow is deleted, and with it what was deployed of it."""
    db.session.execute(_FORGET, {"flow": str(flow_id)})
