"""Devices as rows: connected to a gateway that nobody listens on, answering as a test tells them."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import select, text, update

from app import db
from app.deployments import engine
from app.deployments.engine import Batch
from app.deployments.models import Execution, Installation
from app.devices.models import Connection, Device
from app.tunnel.bus import Command
from tests import make

DEFINITION = {"nodes": [{"id": "a", "type": "debug"}]}


class Fleet:
    """An organization with devices and one flow."""

    def __init__(self, api: Any, org: UUID, size: int = 0) -> None:
        self.api, self.org = api, org
        self.flow_id: str = api.post("/flows", {"name": "Watch", "definition": DEFINITION}, expect=201)["id"]
        self.version = 0
        self.devices: list[Device] = [device for device, _key in make.devices(size, org)] if size else []
        self.connect()

    def publish(self) -> int:
        """A version with content of its own."""
        self.version += 1
        definition = {"nodes": [{"id": "a", "type": "debug", "config": {"version": self.version}}]}
        self.api.put(f"/flows/{self.flow_id}", {"definition": definition}, expect=200)
        number: int = self.api.post(f"/flows/{self.flow_id}/publish", expect=200)["version"]
        return number

    def connect(self, devices: Sequence[Device] | None = None) -> None:
        wanted = self.devices if devices is None else devices
        with db.transaction(self.org) as session:
            for number, device in enumerate(wanted):
                row = session.get(Connection, device.id) or Connection(device_id=device.id, org_id=self.org)
                row.gateway, row.epoch, row.disconnected_at = "nobody", number, None
                session.add(row)

    def disconnect(self, *devices: Device) -> None:
        self.sql("UPDATE connections SET disconnected_at = now() WHERE device_id = ANY(:ids)", ids=ids(devices))

    def sql(self, statement: str, **values: Any) -> None:
        with db.transaction(self.org) as session:
            session.execute(text(statement), values)

    def deploy(self, *, start: bool = True, expect: int = 201, **fields: Any) -> Any:
        """A started deployment of the newest version (published first if there is none) to all devices."""
        if not self.version:
            self.publish()
        body = {"flow_id": self.flow_id, "target": {"all": True}, "start": start, **fields}
        return self.api.post("/deployments", body, expect=expect)

    def batches(self, deployment: Any) -> list[Batch]:
        with db.transaction(self.org):
            return engine.advance(self.org, UUID(deployment["id"]))

    def step(self, deployment: Any) -> list[Command]:
        """One tick; what it wants to send."""
        return [command for batch in self.batches(deployment) for command in batch.commands]

    def step_at_once(self, deployment: Any) -> list[Command]:
        """One tick that waits for no pause."""
        self.change(deployment, next_attempt_at=None)
        return self.step(deployment)

    def answer(
        self, commands: Sequence[Command], code: str | None = None, *, error: str = "no", data: Any = None
    ) -> set[UUID]:
        """The devices succeed, or fail with a code."""
        status = "error" if code else "success"
        answers = [[str(one.id), status, code, error if code else None, data] for one in commands]
        with db.transaction(self.org):
            return engine.settle(self.org, answers)

    def finish(self, deployment: Any) -> Any:
        """Every device succeeds until the deployment is over; how it stands then."""
        for _ in range(20):
            commands = self.step(deployment)
            if not commands:
                break
            self.answer(commands)
        self.step(deployment)
        return self.read(deployment)

    def read(self, deployment: Any) -> Any:
        return self.api.get(f"/deployments/{deployment['id']}", expect=200)

    def act(self, deployment: Any, action: str, body: Any = None, expect: int | None = None) -> Any:
        expected = expect or (202 if action in ("start", "rollback") else 200)
        return self.api.post(f"/deployments/{deployment['id']}/{action}", body, expect=expected)

    def states(self, deployment: Any, kind: str = "install") -> list[str]:
        """By device name."""
        path = f"/deployments/{deployment['id']}/executions?kind={kind}&limit=500"
        return [item["state"] for item in self.api.get(path, expect=200)["items"]]

    def executions(self, deployment: Any, kind: str = "install") -> list[Execution]:
        query = select(Execution).where(Execution.deployment_id == UUID(deployment["id"]), Execution.kind == kind)
        with db.transaction(self.org) as session:
            return list(session.scalars(query.order_by(Execution.device_name)))

    def change(self, deployment: Any, **values: Any) -> None:
        with db.transaction(self.org) as session:
            session.execute(update(Execution).where(Execution.deployment_id == UUID(deployment["id"])).values(**values))

    def installed(self, device: Device) -> list[int | None]:
        """What the ledger says that the device has run, oldest first; the last one runs now."""
        query = select(Installation).where(Installation.device_id == device.id).order_by(Installation.installed_at)
        with db.transaction(self.org) as session:
            rows = session.scalars(query).all()
        assert [row.replaced_at is None for row in rows] == [False] * (len(rows) - 1) + [True] * bool(rows)
        return [row.version for row in rows]


def ids(devices: Sequence[Device]) -> list[UUID]:
    return [device.id for device in devices]
