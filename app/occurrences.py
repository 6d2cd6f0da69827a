"""A scheduled occurrence runs once, however often its message comes."""

from sqlalchemy import text

from app import db


def claim(job: str, due_at: str) -> bool:
    """Whether this is the first to run that occurrence of ``job``; ``due_at`` is as the scheduler sent it (RFC 3339).

    Belongs to the transaction that does the work: when it fails, the occurrence is free again and a retry runs it.
    """
    claimed = db.session.execute(
        text(
            "UPDATE scheduled_runs SET started_at = now() "
            "WHERE job = :job AND due_at = CAST(:due_at AS timestamptz) AND started_at IS NULL RETURNING 1"
        ),
        {"job": job, "due_at": due_at},
    ).first()
    return claimed is not None
