"""An inbox that nobody empties: it is bounded, and what finds no room is not acknowledged, so not lost."""

import os
from collections.abc import Iterator
from uuid import UUID

import httpx
import psycopg
import pytest

from config.settings import settings
from tests import make
from tests.platform import TLS, Platform
from tests.telemetry.support import TELEMETRY, acknowledged, frame, now_ms, points, put, store_all
from tests.tunnel.conftest import Device

pytestmark = pytest.mark.xdist_group("gateways")


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A web process that lets a megabyte wait."""
    environ = {"EDGEFLOW_TELEMETRY_INBOX_MB": "1"}
    with Platform(tmp_path_factory.mktemp("small"), environ=environ, parts=()) as running:
        yield running


def size_told(platform: Platform) -> float:
    told = httpx.get(f"{platform.url()}/internal/metrics", verify=TLS).text
    (line,) = [line for line in told.splitlines() if line.startswith("edgeflow_telemetry_inbox_bytes")]
    return float(line.split()[-1])


def vacuum() -> None:
    """As PostgreSQL does by itself."""
    with psycopg.connect(settings().database_url, autocommit=True) as connection:
        connection.execute("VACUUM telemetry_inbox")


def test_a_full_inbox_takes_nothing_until_it_was_emptied(small: Platform, org: UUID) -> None:
    made, key = make.device(org)
    for _ in range(20):
        put(org, made.id, os.urandom(100_000))  # no JSON: nothing that is stored
    device = Device(small.url(), made.id, key, **TELEMETRY)
    sent = frame([["a", now_ms(), 1]])
    device.send(sent)
    with pytest.raises(TimeoutError):
        device.receive(1.5)
    assert "the inbox of telemetry is full" in small.logs("web0")
    assert size_told(small) > 1_048_576
    store_all(org)
    assert points(org) == []
    vacuum()
    for _ in range(10):
        device.send(sent)
        try:
            assert acknowledged(device, 1) == sent["id"]
            break
        except TimeoutError:
            continue
    store_all(org)
    assert [point.value for point in points(org)] == [1.0]
    device.close()
