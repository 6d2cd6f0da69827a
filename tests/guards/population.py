"""An organization with a row in every tenant table, made without the API."""

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID, uuid4

from sqlalchemy import insert

from app import db
from app.alerts.models import Alert, AlertEvent, AlertRule, Notification, NotificationAttempt
from app.auth.models import ApiKey, User
from app.billing import models as billing
from app.clock import now
from app.deployments.models import Deployment, Execution, Installation, Stage
from app.devices.models import Connection, Device, DeviceKey, Shadow
from app.edge_nodes.editor.models import EditorSession
from app.flows.models import Flow, FlowVersion
from app.idempotency import IdempotencyKey
from app.logs.models import LogEntry
from app.metrics import models as metrics
from app.metrics.models import MetricUsage, Series
from app.organizations.models import Invitation, Membership, Organization
from app.telemetry.models import TelemetryCursor, TelemetryInbox
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
    rule_id: UUID
    notification_id: UUID
    invoice_id: UUID
    payment_method_id: UUID


def populate(name: str) -> Population:
    """A new organization and one row (or more) in each of its tables."""
    made = Population(
        uuid4(), new_token("edgeflow"), new_token("edgeflow"), new_token("device"), *(uuid4() for _ in range(10))
    )
    with db.transaction(made.org_id) as session:
        session.add_all(_people(made, name))
        session.flush()
        for make in _devices, _flows, _deployments, _seen, _alerts, _billing:
            session.add_all(make(made))
            session.flush()
        _points(made)
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
        Shadow(
            org_id=org,
            device_id=device,
            version=1,
            desired={"interval": 5},
            drift={str(made.flow_id): str(now())},
            reported={"flows": {str(made.flow_id): {"hash": "0" * 64, "status": "running"}}},
        ),
        Connection(org_id=org, device_id=device, epoch=1, gateway=str(uuid4()), disconnected_at=now()),
        EditorSession(
            org_id=org, device_id=device, user_id=made.user_id, ticket_hash=uuid4().bytes, ticket_expires_at=now(),
            expires_at=now() + timedelta(hours=1),
        ),
    ]  # fmt: skip


def _flows(made: Population) -> list[object]:
    org, flow, content = made.org_id, made.flow_id, hashlib.sha256(b"flow").hexdigest()
    db.session.add(Flow(id=flow, org_id=org, name="f", definition=DEFINITION, content_hash=content, latest_version=1))
    db.session.flush()
    return [
        FlowVersion(
            org_id=org, flow_id=flow, number=1, name="f", definition=DEFINITION, content_hash=content,
            node_types=["inject"],
        )
    ]  # fmt: skip


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
        Installation(
            org_id=org,
            device_id=device,
            flow_id=made.flow_id,
            version=1,
            deployment_id=deployment,
            content_hash=hashlib.sha256(b"flow").hexdigest(),
        ),
    ]


def _seen(made: Population) -> list[object]:
    org, device = made.org_id, made.device_id
    return [
        TelemetryInbox(org_id=org, device_id=device, body=b"{}"),
        TelemetryCursor(org_id=org, device_id=device, recent=["1"]),
        MetricUsage(org_id=org, day=now().date(), points=1),
        LogEntry(org_id=org, device_id=device, level=1, source="device", message="valve stuck"),
    ]


def _points(made: Population) -> None:
    series = Series(org_id=made.org_id, device_id=made.device_id, name="temperature", last_at=now(), last_value=20.0)
    db.session.add(series)
    db.session.flush()
    place = {"org_id": made.org_id, "series_id": series.id, "time": now()}
    db.session.execute(insert(metrics.points).values(**place, value=20.0))
    aggregates = {"count": 1, "sum": 20.0, "min": 20.0, "max": 20.0, "last": 20.0, "last_at": now()}
    for rollup in (metrics.minutes, metrics.fives, metrics.hours):
        db.session.execute(insert(rollup).values(**place, **aggregates))


def _alerts(made: Population) -> list[object]:
    org, rule, notification = made.org_id, made.rule_id, made.notification_id
    about = {"org_id": org, "rule_id": rule}
    db.session.add(
        AlertRule(
            id=rule, org_id=org, name="hot", type="metric", metric="temperature", condition="gt", threshold=80.0,
            target={"all": True}, enabled=False,
        )
    )  # fmt: skip
    db.session.flush()
    db.session.add(
        Notification(
            id=notification, **about, dedup_key="1", kind="firing", channel={}, payload={}, state="delivered",
            next_attempt_at=None,
        )
    )  # fmt: skip
    db.session.flush()
    return [
        Alert(**about, subject=str(made.device_id), device_id=made.device_id, state="resolved", since=now()),
        AlertEvent(**about, kind="resolved"),
        NotificationAttempt(org_id=org, notification_id=notification, attempt=1, status_code=200, ms=5),
    ]


def _billing(made: Population) -> list[object]:
    org, moment = made.org_id, now()
    hour = moment.replace(minute=0, second=0, microsecond=0)
    return [
        billing.BillingAccount(org_id=org, customer_id=f"cus_{org.hex}"),
        billing.BillingOperation(org_id=org, kind="subscription.resume", payload={}, state="done", result={}),
        billing.Subscription(org_id=org, stripe_id=f"sub_{org.hex}", plan="pro", status="active"),
        billing.PaymentMethod(id=made.payment_method_id, org_id=org, stripe_id=f"pm_{org.hex}", type="card"),
        billing.Invoice(
            id=made.invoice_id, org_id=org, stripe_id=f"in_{org.hex}", number="EF-0001", status="paid", currency="eur",
            subtotal=4900, total=4900, amount_paid=4900, amount_due=0, period_start=moment, period_end=moment,
            lines=[{"description": "Pro", "quantity": 1, "amount": 4900}], created_at=moment,
        ),
        billing.StripeEvent(
            id=f"evt_{org.hex}", org_id=org, type="invoice.paid", customer_id=f"cus_{org.hex}", source="webhook",
            created_at=moment,
        ),
        billing.UsagePoints(org_id=org, hour=hour, points=7),
        billing.UsageHour(org_id=org, hour=hour, device_seconds=3600, commands=1, deployments=1, points=7),
        billing.UsageMonth(org_id=org, month=hour.replace(day=1, hour=0), deployments=1),
    ]  # fmt: skip
