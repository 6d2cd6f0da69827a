"""``GET /devices?limit=50`` of a large fleet: its slow answers beside its usual ones, and beside a bare handler."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import httpx
import psycopg
from sqlalchemy import text

from app import db
from bench import load, platform
from bench.load import Seen
from bench.platform import ROOT, House
from bench.report import Figure, at_least, at_most, told
from tests.platform import free_port

CLIENTS = 16
LIMIT = 50
SLOWER, SHARE = 3, 0.5
START_SECONDS = 20
TIDY = 0.9  # of the pages are known to hold nothing that is not visible to everybody

_DESCRIBE = text("""
UPDATE devices SET
    type = 'pump', tags = ARRAY['pump', 'north'], metadata = '{"room": "B2", "line": 4}', agent_version = '1.0.0',
    protocol = 2, capabilities = '{deploy_flow,configure,get_node_types,http_proxy,telemetry,dedup}',
    hardware_info = jsonb_build_object(
        'serial', id, 'board_model', 'Raspberry Pi 5 Model B', 'arch', 'arm64', 'os', 'linux', 'cpu_count', 4),
    network_info = jsonb_build_object('hostname', name, 'ip_address', '192.0.2.17', 'mac_address', '02:00:5e:10:00:07'),
    created_at = created_at - random() * interval '1 year'
""")
_CONNECT = text("""
INSERT INTO connections (org_id, device_id, epoch, gateway, protocol)
SELECT org_id, id, nextval('tunnel_epochs'), 'elsewhere', 2 FROM devices WHERE random() < 0.8
""")


_UNCLEAN = """
SELECT 1 FROM pg_class
WHERE relname IN ('devices', 'connections') AND (reltuples < 0 OR relallvisible < relpages * %s::float8)
"""


def run(*, devices: int = 10_000, seconds: float = 10.0, rounds: int = 3, durable: bool = True) -> list[Figure]:
    """``rounds``: how often product and peer are measured in turn, ``seconds`` each; the medians count."""
    with House(parts=(), durable=durable) as house:
        org_id, token = house.sign_up()
        _fleet(house, org_id, devices)
        measured, compared = [], []
        with _bare(house, org_id) as peer:
            for _ in range(rounds):
                measured.append(_load(house.url(), "/api/v1/devices", token, seconds))
                compared.append(_load(peer, "/devices", "", seconds))
    ours, bare = (sorted(loads, key=lambda one: one.per_second)[rounds // 2] for loads in (measured, compared))
    return [
        told("devices.per_second", ours.per_second, f"/s at {CLIENTS} clients"),
        told("devices.p50_ms", ours.p50_ms, f"ms at {CLIENTS} clients"),
        told("devices.p99_ms", ours.p99_ms, f"ms at {CLIENTS} clients"),
        at_most("devices.p99_over_p50", ours.p99_ms / ours.p50_ms, "times", SLOWER),
        told("devices.bare_twin.per_second", bare.per_second, f"/s at {CLIENTS} clients"),
        told("devices.bare_twin.p99_over_p50", bare.p99_ms / bare.p50_ms, "times"),
        at_least("devices.ratio_to_bare_twin", ours.per_second / bare.per_second, "times", SHARE),
    ]


def _load(url: str, path: str, token: str, seconds: float) -> Seen:
    return load.run(url, [f"{path}?limit={LIMIT}"], token, clients=CLIENTS, seconds=seconds)


def _fleet(house: House, org_id: UUID, number: int) -> None:
    """Devices with all that real ones tell of themselves, most of them connected lately."""
    platform.devices(number, org_id)
    with db.transaction(org_id) as session:
        session.execute(_DESCRIBE)
        session.execute(_CONNECT)
    with psycopg.connect(house.superuser_url, autocommit=True) as connection:
        while connection.execute(_UNCLEAN, [TIDY]).fetchone():  # as autovacuum leaves them in time
            connection.execute("VACUUM (ANALYZE) devices, connections")


@contextmanager
def _bare(house: House, org_id: UUID) -> Iterator[str]:
    """The peer, as the product is served: gunicorn, gevent, one process. Its URL."""
    port = free_port()
    command = [
        sys.executable, "-m", "gunicorn", "-k", "gevent", "-w", "1", "-b", f"127.0.0.1:{port}",
        "--log-level", "error", "bench.peers.bare_devices:app",
    ]  # fmt: skip
    environ = {**os.environ, "DATABASE_URL": house.superuser_url, "ORG_ID": str(org_id)}
    process = subprocess.Popen(command, cwd=ROOT, env=environ)
    try:
        _wait(f"http://127.0.0.1:{port}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _wait(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            httpx.get(f"{url}/devices?limit=1").raise_for_status()
            return
        except httpx.ConnectError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
