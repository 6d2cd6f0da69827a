"""Alert rules: how long the workers' evaluation of all of them takes, a tick.

Measured is the job's own function, batch by batch, each with its transaction, against PostgreSQL as the platform starts
it. The rules are a mix: most watch a few devices or a tag, some the whole fleet; a few in a hundred values breach.
"""

import statistics
import time
from uuid import UUID

import psycopg
from sqlalchemy import text

from app import db
from app.alerts import evaluate
from bench import platform
from bench.platform import House
from bench.report import Figure, at_most, told
from tests import make

TICKS = 7
METRICS = 10
TAGS = 20  # of which each device has one
SECONDS = 3.0
BREACHING = 0.03


def run(devices: int = 5_000, rules: int = 1_000, ticks: int = TICKS, durable: bool = True) -> list[Figure]:
    """Seconds that a tick takes: while alerts begin, while they stay, and while values change sides."""
    with House(web=0, parts=(), durable=durable) as house:
        org_id = make.organization()
        _fleet(org_id, devices)
        _rules(org_id, rules)
        _send(org_id)
        with psycopg.connect(house.superuser_url, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")  # as autovacuum leaves the tables
        begin, fired = _tick()
        steady = [_tick()[0] for _ in range(ticks)]
        changing, changes = [], 0
        for _ in range(ticks):
            _send(org_id)
            seconds, changed = _tick()
            changing.append(seconds)
            changes += changed
        name = f"alerts: tick of {rules} rules over {devices} devices"
        return [
            told(f"{name}, the first one", begin, "s"),
            told("alerts: begun in it", fired, "alerts"),
            at_most(f"{name}, median", statistics.median(steady), "s", SECONDS),
            at_most(f"{name}, slowest", max(steady), "s", SECONDS),
            at_most(f"{name}, every value new, median", statistics.median(changing), "s", SECONDS),
            told("alerts: begun or over in one of these", changes / ticks, "alerts"),
        ]


def _tick() -> tuple[float, int]:
    """All rules, as a worker takes them; seconds, and how many alerts changed."""
    with db.transaction(system=True) as session:
        session.execute(text("UPDATE alert_rules SET next_evaluation_at = now() - interval '1 second'"))
    began, changed, full = time.perf_counter(), 0, True
    while full:
        with db.transaction(system=True):
            outcome = evaluate.carry_on(evaluate.take())
        changed += outcome.firing + outcome.resolved
        full = outcome.evaluated == evaluate.BATCH
    return time.perf_counter() - began, changed


def _fleet(org_id: UUID, count: int) -> None:
    platform.devices(count, org_id)
    with db.transaction(org_id) as session:
        for statement in (
            "UPDATE devices SET tags = ARRAY['t' || mod(hashtext(id::text) & 1048575, :tags)] WHERE org_id = :org",
            "INSERT INTO connections (org_id, device_id, epoch, gateway) SELECT org_id, id, 1, 'bench' FROM devices",
            "INSERT INTO metric_series (org_id, device_id, name) "
            "SELECT org_id, id, 'm' || n FROM devices, generate_series(0, :metrics - 1) n",
        ):
            values = {"org": org_id, "tags": TAGS, "metrics": METRICS}
            session.execute(text(statement), {name: values[name] for name in values if f":{name}" in statement})


# Of ten rules one watches all devices, four a tag, five ten devices by name; every other one has a second threshold.
_RULES = """
WITH fleet AS MATERIALIZED (SELECT array_agg(id ORDER BY id) AS ids, count(*) AS size FROM devices WHERE org_id = :org)
INSERT INTO alert_rules (id, org_id, name, type, metric, condition, threshold, clear_threshold, for_seconds, target)
SELECT gen_random_uuid(), :org, 'rule ' || n, 'metric', 'm' || mod(n, :metrics), 'gt', 1 - CAST(:share AS float8),
    CASE WHEN mod(n, 2) = 0 THEN 1 - 2 * CAST(:share AS float8) END, 0,
    CASE WHEN mod(n / :metrics, 10) = 0 THEN '{"all": true}'
         WHEN mod(n / :metrics, 10) < 5 THEN jsonb_build_object('tags', ARRAY['t' || mod(n / 7, :tags)])
         ELSE jsonb_build_object('device_ids', ARRAY(
             SELECT fleet.ids[1 + mod(n * 37 + k * 101, fleet.size)] FROM generate_series(1, 10) k)) END
FROM fleet, generate_series(0, :count - 1) n
"""


def _rules(org_id: UUID, count: int) -> None:
    values = {"org": org_id, "count": count, "metrics": METRICS, "tags": TAGS, "share": BREACHING}
    with db.transaction(org_id) as session:
        session.execute(text(_RULES), values)


def _send(org_id: UUID) -> None:
    """Every series has a new value between 0 and 1."""
    with db.transaction(org_id) as session:
        session.execute(text("UPDATE metric_series SET last_at = now(), last_value = random()"))
