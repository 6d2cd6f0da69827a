"""An organization with a row in every tenant table, made without the API."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from app import db
from app.auth.models import ApiKey, User
from app.clock import now
from app.deployments.models import Deployment, Execution, Installation, Stage
from app.devices.models import Connection, Device, DeviceKey, Shadow
from app.flows.models import Flow, FlowVersion
from app.idempotency import IdempotencyKey
from app.organizations.models import Invitation, Membership, Organization
from app.tokens import digest, new_token

DEFINITION = {"nodes": [{"id": "n1", "type": "inject"}], "connections": []}


@dataclass(frozen=True)
class Population:
    """What was made; the ids are what a path may name."""

    org_id: UUID
    owner_key: str
    viewer_key: str
    device_key: str
    user_id: UUID
    key_id: UUID
    invitation_id: UUID
    device_id: UUID
    flow_id: UUID
    deployment_id: UUID


def populate(name: str) -> Population:
    """A new organization and one row (or more) in each of its tables."""
    made = Population(
        uuid4(), new_token("edgeflow"), new_token("edgeflow"), new_token("device"), *(uuid4() for _ in range(6))
    )
    with db.transaction(made.org_id) as session:
        for batch in _people(made, name), _devices(made), _flows(made), _deployments(made):
            session.add_all(batch)
            session.flush()
    return made


def _people(made: Population, name: str) -> list[object]:
    org = made.org_id
    user = User(id=made.user_id, email=f"{made.user_id}@example.com", name="Ada", password_hash="!")
    with db.session.no_autoflush:
        db.session.add_all([Organization(id=org, name=name), user])
        db.session.flush()
    return [
        Membership(org_id=org, user_id=made.user_id, role="owner"),
        ApiKey(id=made.key_id, org_id=org, name="o", role="owner", key_hash=digest(made.owner_key), prefix="edgeflow"),
        ApiKey(org_id=org, name="v", role="viewer", key_hash=digest(made.viewer_key), prefix="edgeflow"),
        Invitation(
            id=made.invitation_id, org_id=org, email="guest@example.com", role="viewer", token_hash=uuid4().bytes,
            expires_at=now() + timedelta(days=1),
        ),
        IdempotencyKey(key_hash=uuid4().bytes, org_id=org, request_hash=b"request"),
    ]  # fmt: skip


def _devices(made: Population) -> list[object]:
    org, device = made.org_id, made.device_id
    db.session.add(Device(id=device, org_id=org, name="pump", tags=["pump"]))
    db.session.flush()
    return [
        DeviceKey(org_id=org, device_id=device, key_hash=digest(made.device_key)),
        Shadow(org_id=org, device_id=device, version=1, desired={"interval": 5}),
        Connection(org_id=org, device_id=device, epoch=1, gateway=str(uuid4()), disconnected_at=now()),
    ]


def _flows(made: Population) -> list[object]:
    org, flow, content = made.org_id, made.flow_id, hashlib.sha256(b"flow").hexdigest()
    db.session.add(Flow(id=flow, org_id=org, name="f", definition=DEFINITION, content_hash=content, latest_version=1))
    db.session.flush()
    return [FlowVersion(org_id=org, flow_id=flow, number=1, name="f", definition=DEFINITION, content_hash=content)]


def _deployments(made: Population) -> list[object]:
    org, device, deployment = made.org_id, made.device_id, made.deployment_id
    db.session.add(
        Deployment(
            id=deployment, org_id=org, flow_id=made.flow_id, version=1, name="d", status="succeeded",
            target={"all": True}, strategy={}, finished_at=now(),
        )
    )  # fmt: skip
    db.session.flush()
    return [
        Stage(org_id=org, deployment_id=deployment, number=0, percent=100, size=1, status="succeeded"),
        Execution(
            org_id=org, deployment_id=deployment, device_id=device, device_name="pump", state="succeeded", version=1
        ),
        Installation(org_id=org, device_id=device, flow_id=made.flow_id, version=1, deployment_id=deployment),
    ]
