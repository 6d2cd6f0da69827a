"""Queries over stored points, through HTTP: one device, and a fleet by tag, a day in steps of five minutes.

Points are laid into the tables set-wise, as devices would have sent them; the platform's own job makes the roll-ups.
"""

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import psycopg

from bench import platform
from bench.measure import percentile
from bench.platform import ROOT, House
from bench.report import Figure, at_most, told

NAMES = ("cpu.usage_percent", "memory.percent", "disk.percent", "load_avg.1min", "temperature", "network.rx_bytes",
         "network.tx_bytes")  # fmt: skip
EVERY = 30
HOURS = 24
SITES = 10
ONE_MS, FLEET_MS = 50, 500
INDEX = "ix_metric_points_series_id_time"
# While points are laid and rolled up, for that is a day's work: it shall not be on its way to the disk any more when
# queries are measured.
HASTE = {"max_wal_size": "16GB", "checkpoint_timeout": "1h", "full_page_writes": "off", "synchronous_commit": "off"}
ROLL = "from workers import metrics; metrics.catch_up(900)"

Connection = psycopg.Connection[tuple[Any, ...]]


def run(
    *, few: int = 100, many: int = 1000, hours: int = HOURS, singles: int = 300, fleets: int = 40, durable: bool = True
) -> list[Figure]:
    """``few`` devices alone, then ``many`` (10 or more) beside them; so many queries of each kind."""
    with House(parts=(), durable=durable) as house, psycopg.connect(house.superuser_url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '512MB'")
        small = _Tenant(house, connection, few)
        stored = _fill(house, connection, small.org_id, hours)
        before = small.one(singles, hours)
        figures = [
            told(f"metrics: one device, {_millions(stored)}, p50", percentile(before, 50), "ms"),
            told(f"metrics: one device, {_millions(stored)}, p99", percentile(before, 99), "ms"),
        ]
        large = _Tenant(house, connection, many)
        stored += _fill(house, connection, large.org_id, hours)
        grown, one, fleet = small.one(singles, hours), large.one(singles, hours), large.by_tag(fleets, hours)
        return [
            *figures,
            told(f"metrics: one device, {_millions(stored)}, p50", percentile(one, 50), "ms"),
            at_most(f"metrics: one device, {_millions(stored)}, p99", percentile(one, 99), "ms", ONE_MS),
            told("metrics: the same queries, all points / few points, p50", percentile(grown, 50) /
                 percentile(before, 50), "times"),
            told(f"metrics: {many} devices by tag, p50", percentile(fleet, 50), "ms"),
            at_most(f"metrics: {many} devices by tag, p99", percentile(fleet, 99), "ms", FLEET_MS),
        ]  # fmt: skip


class _Tenant:
    """An organization whose devices have series, and who asks for them."""

    def __init__(self, house: House, connection: Connection, devices: int) -> None:
        self.org_id, token = house.sign_up()
        self.devices = [device_id for device_id, _key in platform.devices(devices, self.org_id)]
        self._http = httpx.Client(
            base_url=f"{house.url()}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=60
        )
        connection.execute(
            "UPDATE devices d SET tags = ARRAY['site-' || mod(n.number, %s), 'pump'] FROM "
            "(SELECT id, row_number() OVER (ORDER BY name) AS number FROM devices WHERE org_id = %s) n "
            "WHERE d.id = n.id",
            [SITES, self.org_id],
        )
        connection.execute(
            "INSERT INTO metric_series (org_id, device_id, name) SELECT d.org_id, d.id, n.name "
            "FROM devices d, unnest(CAST(%s AS text[])) AS n (name) WHERE d.org_id = %s ORDER BY d.id",
            [list(NAMES), self.org_id],
        )

    def one(self, times: int, hours: int) -> list[float]:
        """Milliseconds of so many queries, each for another device."""
        return [
            self._asked(f"/metrics/devices/{self.devices[number * 7 % len(self.devices)]}", hours, series=1)
            for number in range(times)
        ]

    def by_tag(self, times: int, hours: int) -> list[float]:
        return [self._asked("/metrics", hours, series=SITES + 1, group_by="tag") for _ in range(times)]

    def _asked(self, path: str, hours: int, series: int, **more: str) -> float:
        begin = datetime.now(UTC) - timedelta(hours=hours)
        query = {"name": NAMES[0], "step": "300", "from": begin.isoformat(), **more}
        began = time.perf_counter()
        answer = self._http.get(path, params=query).raise_for_status().json()["series"]
        taken = (time.perf_counter() - began) * 1000
        # What is measured is there: every bucket but perhaps the last has its value.
        assert len(answer) == series, len(answer)
        gaps = sum(value is None for one in answer for _time, value in one["points"])
        assert gaps <= 2 * series, f"{gaps} gaps in {series} series"
        return taken


def _fill(house: House, connection: Connection, org_id: UUID, hours: int) -> int:
    """A point every 30 s for each series, up to now, and their roll-ups; how many points."""
    began = time.monotonic()
    for name, value in HASTE.items():
        connection.execute(f"ALTER SYSTEM SET {name} = '{value}'")
    connection.execute("SELECT pg_reload_conf()")
    # Laid in bulk, an index is quicker made than kept up.
    connection.execute(f"DROP INDEX {INDEX}")
    laid = connection.execute(
        "INSERT INTO metric_points (org_id, series_id, time, value) "
        "SELECT org_id, id, t + make_interval(secs => mod(id, %(every)s)), 50 + 40 * sin(id + extract(epoch FROM t)) "
        "FROM generate_series(now() - make_interval(hours => %(hours)s), now() - interval '30 s', "
        "make_interval(secs => %(every)s)) t, "
        "LATERAL (SELECT org_id, id FROM metric_series WHERE org_id = %(org)s AND t IS NOT NULL OFFSET 0) s",
        {"every": EVERY, "hours": hours, "org": org_id},
    ).rowcount
    connection.execute(f"CREATE INDEX {INDEX} ON metric_points (series_id, time)")
    print(f"{laid:,} points laid: {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    # They came past the storing that would have merged them: all is rolled up anew.
    connection.execute("TRUNCATE metric_watermarks, metric_points_1m, metric_points_5m, metric_points_1h")
    subprocess.run([sys.executable, "-c", ROLL], cwd=ROOT, check=True)
    print(f"rolled up: {time.monotonic() - began:.0f} s", flush=True)
    began = time.monotonic()
    # What autovacuum does within minutes.
    connection.execute("VACUUM ANALYZE metric_points_1m, metric_points_5m, metric_points_1h, metric_series, devices")
    connection.execute("ANALYZE metric_points")
    connection.execute("ALTER SYSTEM RESET ALL")
    connection.execute("SELECT pg_reload_conf()")
    connection.execute("CHECKPOINT")
    print(f"vacuumed: {time.monotonic() - began:.0f} s", flush=True)
    return laid


def _millions(points: int) -> str:
    return f"{points / 1e6:.3g} M points"
