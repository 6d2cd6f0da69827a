"""The least that PostgreSQL has to do for a rollout: claim and settle, nothing around it."""

import time
from uuid import UUID

import psycopg

ARRAY = 500


def claim_and_settle(url: str, org_id: UUID, number: int) -> float:
    """Devices a second: one session takes ``number`` executions by arrays of 500 through the same states."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "CREATE TEMPORARY TABLE bare AS "
            "SELECT gen_random_uuid() AS id, %s::uuid AS org_id, 'queued' AS state, 0 AS attempt, "
            "CAST(NULL AS uuid) AS command_id, CAST(NULL AS timestamptz) AS finished_at FROM generate_series(1, %s)",
            [org_id, number],
        )
        connection.execute("CREATE UNIQUE INDEX ON bare (id)")
        connection.execute("CREATE INDEX ON bare (state, id)")
        connection.execute("CREATE UNIQUE INDEX ON bare (command_id) WHERE command_id IS NOT NULL")
        connection.commit()
        began = time.perf_counter()
        while True:
            claimed = connection.execute(
                "UPDATE bare SET state = 'in_progress', attempt = attempt + 1, command_id = gen_random_uuid() "
                "WHERE id IN (SELECT id FROM bare WHERE state = 'queued' ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED) "
                "RETURNING command_id",
                [ARRAY],
            ).fetchall()
            connection.commit()
            if not claimed:
                return number / (time.perf_counter() - began)
            connection.execute(
                "UPDATE bare SET state = 'succeeded', command_id = NULL, finished_at = now() "
                "WHERE command_id = ANY (%s)",
                [[row[0] for row in claimed]],
            )
            connection.commit()
