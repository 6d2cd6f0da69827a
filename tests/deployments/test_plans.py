"""How PostgreSQL goes about what a rollout asks again and again."""

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import TextClause, text

from app import db
from app.deployments import executions, snapshot
from config.settings import settings
from tests.deployments.fleet import Fleet

UNDER_WAY, WAITING = 300, 300


@pytest.fixture
def rollout(api: Any, org: UUID) -> UUID:
    """The id of a deployment with commands under way, and devices that wait for theirs."""
    fleet = Fleet(api, org, UNDER_WAY + WAITING)
    made = fleet.deploy(strategy={"max_in_flight": UNDER_WAY})
    assert len(fleet.step(made)) == UNDER_WAY
    with psycopg.connect(settings().database_url, autocommit=True) as connection:
        connection.execute("ANALYZE executions, connections")  # else it depends on when autovacuum came by
    return UUID(made["id"])


def plan_of(org: UUID, statement: TextClause, **values: Any) -> str:
    with db.transaction(org) as session:
        session.execute(text("SET LOCAL enable_seqscan = off"))  # tables this small would be read whole
        return "\n".join(session.scalars(text(f"EXPLAIN {statement.text}"), values))


def test_answers_are_looked_up_by_their_commands(rollout: UUID, org: UUID) -> None:
    """Not among all that is in progress, of whatever deployment, and all that has been since the last vacuum."""
    ids = [str(uuid4()) for _ in range(500)]
    words = ["succeeded"] * len(ids)
    plan = plan_of(org, executions._SETTLE, ids=ids, outcomes=words, errors=words, codes=words)
    assert "Index Scan using ix_executions_command_id" in plan, plan
    assert "uq_executions_in_progress" not in plan, plan


def test_a_look_at_a_rollout_asks_each_waiting_device_once(rollout: UUID, org: UUID) -> None:
    values = {"deployment": rollout, "kind": "install", "stage": 0, "offline_after": 75}
    plan = plan_of(org, snapshot._SNAPSHOT, **values)
    assert "Index Scan using pk_connections" in plan, plan
    assert "Index Cond: (device_id = e.device_id)" in plan, plan
