"""What the platform forgets, and after how long. Set-wise, over all tenants: wants a system transaction."""

from typing import Any, cast

from sqlalchemy import CursorResult, text

from app import db

# Refresh tokens outlive their use by so much that a reuse is still noticed for as long as the family could live.
RULES = {
    "idempotency_keys": "created_at < now() - interval '24 hours'",
    "refresh_tokens": "expires_at < now() - interval '30 days'",
    "alerts": "state = 'resolved' AND resolved_at < now() - interval '90 days'",
    "alert_events": "created_at < now() - interval '90 days'",
    "editor_sessions": "coalesce(closed_at, CASE WHEN opened_at IS NULL THEN ticket_expires_at END)"
    " < now() - interval '30 days'",
    "sessions": "least(expires_at, revoked_at) < now() - interval '30 days'",
    "invitations": "expires_at < now() - interval '30 days'",
    # By their deployments, of which there are few: events have no index by time, and go together.
    "deployment_events": "deployment_id IN ("
    "SELECT id FROM deployments WHERE next_check_at IS NULL AND finished_at < now() - interval '90 days')",
    "notifications": "finished_at < now() - interval '90 days'",
    "stripe_events": "received_at < now() - interval '90 days'",
    "billing_operations": "finished_at < now() - interval '30 days'",
    "usage_points": "hour < now() - interval '13 months'",
    "usage_hours": "hour < now() - interval '13 months'",
    "usage_months": "month < now() - interval '13 months'",
    "scheduled_runs": "due_at < now() - interval '1 day'",
}


def clean() -> dict[str, int]:
    """Delete what nobody will ask for again; how many rows of each table went."""
    return {table: _delete(table, old) for table, old in RULES.items()}


def forget_processes() -> int:
    """Delete the rows of processes that died more than a day ago; how many."""
    return _delete("processes", "heartbeat_at < now() - interval '1 day'")


def _delete(table: str, condition: str) -> int:
    done = db.session.execute(text(f"DELETE FROM {table} WHERE {condition}"))
    return cast(CursorResult[Any], done).rowcount
