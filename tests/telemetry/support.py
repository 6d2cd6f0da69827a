"""What tests of telemetry send, and what they find stored."""

import time
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text

from app import db
from app.telemetry import service
from tests.e2e.conftest import until
from tests.tunnel.conftest import V2

TELEMETRY = {**V2, "capabilities": [*V2["capabilities"], "telemetry"]}


def now_ms() -> int:
    return int(time.time() * 1000)


def frame(metrics: Any = (), logs: Any = (), batch: str | None = None) -> dict[str, Any]:
    return {"type": "telemetry", "id": batch or str(uuid4()), "metrics": metrics, "logs": logs}


def rows(query: str, **values: Any) -> list[Any]:
    with db.transaction(system=True) as session:
        return list(session.execute(text(query), values))


def put(org_id: UUID, device_id: UUID, body: bytes, ago: float = 0) -> None:
    """A frame in the inbox, as a gateway writes it."""
    with db.transaction(system=True) as session:
        session.execute(
            text(
                "INSERT INTO telemetry_inbox (org_id, device_id, body, received_at) "
                "VALUES (:org, :device, :body, now() - make_interval(secs => :ago))"
            ),
            {"org": org_id, "device": device_id, "body": body, "ago": ago},
        )


def points(org_id: UUID) -> list[Any]:
    """``(device_id, name, tags, time, value, claimed_at)``, in the order of name, time, value."""
    return rows(
        "SELECT s.device_id, s.name, s.tags, p.time, p.value, p.claimed_at "
        "FROM metric_points p JOIN metric_series s ON s.id = p.series_id AND s.org_id = p.org_id "
        "WHERE p.org_id = :org ORDER BY s.name, p.time, p.value",
        org=org_id,
    )


def lines(org_id: UUID, source: str = "device") -> list[Any]:
    return rows(
        "SELECT device_id, time, claimed_at, received_at, level, kind, message, fields FROM log_entries "
        "WHERE org_id = :org AND source = :source ORDER BY id",
        org=org_id, source=source,
    )  # fmt: skip


def inbox(org_id: UUID) -> int:
    return rows("SELECT count(*) FROM telemetry_inbox WHERE org_id = :org", org=org_id)[0][0]


def used(org_id: UUID) -> tuple[int, int, int]:
    """Points, refused, logs."""
    found = rows("SELECT sum(points), sum(refused), sum(logs) FROM metric_usage WHERE org_id = :org", org=org_id)
    return tuple(int(value or 0) for value in found[0])  # type: ignore[return-value]


def counted(org_id: UUID) -> tuple[int, int]:
    """Points and refused points, as they are billed."""
    found = rows("SELECT sum(points), sum(refused) FROM usage_points WHERE org_id = :org", org=org_id)
    return tuple(int(value or 0) for value in found[0])  # type: ignore[return-value]


def acknowledged(device: Any, timeout: float = 10) -> str:
    """The id of the next ack."""
    answer = device.receive(timeout)
    assert answer["type"] == "ack", answer
    return str(answer["id"])


def store_all(org_id: UUID) -> None:
    """Do what the worker does, until nothing of the organization is left."""

    def emptied() -> bool:
        service.store()
        return inbox(org_id) == 0

    until(emptied, 10)
