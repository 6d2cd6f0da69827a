"""An organization whose devices send values, and rules over them; time passes as a test wants it to."""

from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from app import db
from app.alerts import evaluate
from app.alerts.evaluate import Outcome
from app.alerts.models import Alert, AlertEvent
from app.devices.models import Device
from tests import make

RULE = {"name": "hot", "type": "metric", "metric": "temperature", "condition": "gt", "threshold": 80}


def tick() -> Outcome:
    """One evaluation of every enabled rule there is, whenever it was due."""
    with db.transaction(system=True) as session:
        session.execute(text("UPDATE alert_rules SET next_evaluation_at = now() - interval '1 second' WHERE enabled"))
    with db.transaction(system=True):
        return evaluate.carry_on(evaluate.take(10_000))


class Watched:
    """``pass_time`` moves everything that is stored into the past, since ``now()`` is the database's."""

    def __init__(self, api: Any, org: UUID, size: int = 1, **fields: Any) -> None:
        self.api, self.org = api, org
        self.devices: list[Device] = [device for device, _key in make.devices(size, org, **fields)]
        self.connect(*self.devices)

    def sql(self, statement: str, **values: Any) -> Any:
        with db.transaction(self.org) as session:
            return session.execute(text(statement), values)

    def rule(self, *, expect: int = 201, **fields: Any) -> Any:
        return self.api.post("/alerts", {**RULE, **fields}, expect=expect)

    def bare_rule(self, kind: str, **fields: Any) -> Any:
        return self.api.post("/alerts", {"name": kind, "type": kind, **fields}, expect=201)

    def send(self, value: float, device: Device | None = None, *, metric: str = "temperature", tags: str = "") -> None:
        self.sql(
            "INSERT INTO metric_series (org_id, device_id, name, tags_key, last_at, last_value) "
            "VALUES (:org, :device, :name, :tags, now(), :value) ON CONFLICT (device_id, name, tags_key) "
            "DO UPDATE SET last_at = now(), last_value = excluded.last_value",
            org=self.org, device=(device or self.devices[0]).id, name=metric, tags=tags, value=value,
        )  # fmt: skip

    def log(self, message: str, device: Device | None = None, *, level: int = 3, kind: str | None = None) -> None:
        self.sql(
            "INSERT INTO log_entries (org_id, device_id, level, source, kind, message) "
            "VALUES (:org, :device, :level, 'device', :kind, :message)",
            org=self.org, device=device.id if device else None, level=level, kind=kind, message=message,
        )  # fmt: skip

    def connect(self, *devices: Device) -> None:
        for device in devices:
            self.sql(
                "INSERT INTO connections (org_id, device_id, epoch, gateway) VALUES (:org, :device, 1, 'nobody') "
                "ON CONFLICT (device_id) DO UPDATE SET last_seen_at = now(), disconnected_at = NULL",
                org=self.org, device=device.id,
            )  # fmt: skip

    def pass_time(self, seconds: float) -> None:
        for table, columns in {
            "alerts": ("since", "fired_at"),
            "metric_series": ("last_at",),
            "connections": ("last_seen_at", "disconnected_at", "connected_at"),
            "log_entries": ("time", "received_at"),
            "devices": ("created_at",),
        }.items():
            changes = ", ".join(f"{column} = {column} - make_interval(secs => :seconds)" for column in columns)
            self.sql(f"UPDATE {table} SET {changes} WHERE org_id = :org", org=self.org, seconds=seconds)

    def after(self, seconds: float) -> "Watched":
        """So many seconds later, one evaluation."""
        self.pass_time(seconds)
        tick()
        return self

    def read(self, rule: Any) -> Any:
        return self.api.get(f"/alerts/{rule['id']}", expect=200)

    def state(self, rule: Any) -> str:
        return str(self.read(rule)["state"])

    def alerts(self, rule: Any) -> list[Alert]:
        """Oldest first."""
        with db.transaction(self.org) as session:
            query = select(Alert).where(Alert.rule_id == UUID(rule["id"])).order_by(Alert.since, Alert.subject)
            return list(session.scalars(query))

    def events(self, rule: Any) -> list[AlertEvent]:
        """What evaluations and people did to the rule's alerts, oldest first."""
        with db.transaction(self.org) as session:
            query = select(AlertEvent).where(AlertEvent.rule_id == UUID(rule["id"]), AlertEvent.alert_id.is_not(None))
            return list(session.scalars(query.order_by(AlertEvent.id)))

    def kinds(self, rule: Any) -> list[str]:
        return [event.kind for event in self.events(rule)]
