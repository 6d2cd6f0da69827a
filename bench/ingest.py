"""Points a second, from devices' sockets through gateway and worker into PostgreSQL, everything on this machine.

Devices send frames as fast as they are acknowledged. Counted are the points that stand in ``metric_points`` in the end,
over the time until the last of them was stored. Beside it, in the same run and server, a bare COPY of such points.
"""

import time
from typing import Any
from uuid import UUID

import psutil
import psycopg

from bench import firehose
from bench.platform import House, devices
from bench.report import Figure, at_least, told

COPY_ROWS = 2_000
DRAIN_SECONDS = 120.0


def run(
    *,
    connections: int = 200,
    points: int = 500,
    window: int = 2,
    seconds: float = 60.0,
    wide: float = 15.0,
    bare: int = 1_000_000,
    durable: bool = True,
) -> list[Figure]:
    """``points`` in a frame, of twenty metrics; ``window``: frames under way of a device; ``bare``: points of the COPY.

    ``wide``: so many seconds more of the least thankful frames: a hundred metrics, one point each.
    """
    with House(web=1, parts=("worker", "scheduler"), durable=durable) as house:
        org_id, rate, sent, took = _ingest(house, connections, points=points, names=20, window=window, seconds=seconds)
        copied = _bare_copy(house, org_id, bare)
        _org, wide_rate, _sent, _took = _ingest(house, connections, points=100, names=100, window=4, seconds=wide)
    return [
        at_least("ingest.points_per_second", rate, "/s", 40_000),
        told("ingest.seconds", took, "s until all were stored"),
        told("ingest.ack_p99_ms", sent["p99_ms"], "ms"),
        told("ingest.bare_copy_per_second", copied, "/s"),
        at_least("ingest.ratio_to_bare_copy", rate / copied, "×", 0.2),
        told("ingest.wide.points_per_second", wide_rate, "/s"),
    ]


def _ingest(house: House, connections: int, **shape: Any) -> tuple[UUID, float, dict[str, float], float]:
    """Ingest for a new organization: it, points a second, what the devices tell, seconds until all were stored."""
    org_id, _token = house.sign_up()
    running = firehose.run(f"{house.url()}/tunnel", devices(connections, org_id), **shape)
    before, began = _cpu(house), time.monotonic()
    sent = running.fire()
    stored = _stored(house, org_id, int(sent["points"]))
    took = time.monotonic() - began
    used = {name: spent - before.get(name, 0.0) for name, spent in _cpu(house).items()}
    print(
        f"   acknowledged {sent['points']:,.0f}, stored {stored:,} in {took:.1f} s; processor seconds: "
        f"devices {sent['cpu_seconds']:.1f}, " + ", ".join(f"{name} {spent:.1f}" for name, spent in used.items()),
        flush=True,
    )
    if stored != sent["points"]:
        raise RuntimeError(f"{sent['points']:.0f} points were acknowledged and {stored} stored")
    return org_id, stored / took, sent, took


def _stored(house: House, org_id: UUID, wanted: int) -> int:
    """How many points there are, once the inbox is empty."""
    deadline = time.monotonic() + DRAIN_SECONDS
    with psycopg.connect(house.superuser_url, autocommit=True) as connection:
        while time.monotonic() < deadline:
            if not _one(connection, "SELECT count(*) FROM telemetry_inbox"):
                break
            time.sleep(0.05)
        # Counted by the day's usage while it goes on, since reading the points would cost what is measured.
        while _one(connection, "SELECT coalesce(sum(points), 0) FROM metric_usage WHERE org_id = %s", org_id) < wanted:
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return _one(connection, "SELECT count(*) FROM metric_points WHERE org_id = %s", org_id)


def _one(connection: psycopg.Connection[Any], query: str, *values: object) -> int:
    row = connection.execute(query, values).fetchone()
    assert row
    return int(row[0])


def _cpu(house: House) -> dict[str, float]:
    """Processor seconds so far of the platform's parts and of PostgreSQL."""
    roots = {name: psutil.Process(process.pid) for name, process in house.platform.processes.items()}
    with psycopg.connect(house.superuser_url) as connection:
        row = connection.execute("SELECT pg_backend_pid()").fetchone()
        assert row
        postmaster = psutil.Process(row[0]).parent()
        assert postmaster
    return {name: _tree(process) for name, process in {**roots, "postgresql": postmaster}.items()}


def _tree(process: psutil.Process) -> float:
    spent = 0.0
    for one in [process, *process.children(recursive=True)]:
        times = one.cpu_times()
        spent += times.user + times.system
    return spent


def _bare_copy(house: House, org_id: UUID, count: int) -> float:
    """Rows a second of one session's COPY into a table without index or policy, in transactions of 2,000."""
    with psycopg.connect(house.superuser_url) as connection:
        connection.execute("CREATE TABLE bare_points (LIKE metric_points)")
        rows = connection.execute(
            "SELECT org_id, series_id, time, value, claimed_at FROM metric_points WHERE org_id = %s LIMIT %s",
            [org_id, count],
        ).fetchall()
        connection.commit()
        began = time.perf_counter()
        for start in range(0, len(rows), COPY_ROWS):
            with connection.cursor() as cursor, cursor.copy("COPY bare_points FROM STDIN") as copy:
                for row in rows[start : start + COPY_ROWS]:
                    copy.write_row(row)
            connection.commit()
        return len(rows) / (time.perf_counter() - began)
