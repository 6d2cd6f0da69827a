"""What devices report of their flows and runtimes, as an agent does: by its own key into the shadow."""

from typing import Any

from sqlalchemy import select

from app import db
from app.devices.models import DeviceKey
from app.flows.models import FlowVersion
from app.tokens import digest, new_token
from tests.deployments.fleet import Fleet
from tests.make import Client


class Agent:
    """A device of a fleet that reports."""

    def __init__(self, fleet: Fleet, number: int = 0) -> None:
        self.fleet, self.device = fleet, fleet.devices[number]
        key = new_token("device")
        with db.transaction(fleet.org) as session:
            session.add(DeviceKey(org_id=fleet.org, device_id=self.device.id, key_hash=digest(key)))
        self.rest = Client(fleet.api.http.application, {"X-API-Key": key})
        self.path = f"/devices/{self.device.id}"

    def report(self, **reported: Any) -> None:
        self.rest.put(f"{self.path}/shadow", {"reported": reported}, expect=200)

    def runs(self, version: int | None = None, flow_id: str | None = None, **entry: Any) -> None:
        """Report a flow: as version ``version`` has it, unless ``entry`` says otherwise."""
        flow = flow_id or self.fleet.flow_id
        told = {"status": "running", "errors": 0, "restarts": 0, **entry}
        if version is not None:
            told |= {"version": version, "hash": entry.get("hash", hash_of(self.fleet, version))}
        self.report(flows={flow: told})

    def lost(self) -> None:
        """Report that the flow is not there any more."""
        self.report(flows={self.fleet.flow_id: None})

    def drift(self) -> list[Any]:
        drift: list[Any] = self.fleet.api.get(self.path, expect=200)["drift"]
        return drift


def hash_of(fleet: Fleet, version: int) -> str:
    query = select(FlowVersion.content_hash).where(
        FlowVersion.org_id == fleet.org, FlowVersion.flow_id == fleet.flow_id, FlowVersion.number == version
    )
    with db.transaction(fleet.org) as session:
        return session.scalars(query).one()
