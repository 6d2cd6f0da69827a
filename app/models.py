"""Every table, for the migrations and the guards: importing this module registers them all."""

from app.alerts import models as alerts
from app.auth import models as auth
from app.billing import models as billing
from app.db import Base
from app.deployments import models as deployments
from app.deployments.events import DeploymentEvent
from app.devices import models as devices
from app.edge_nodes.editor import models as editors
from app.flows import models as flows
from app.idempotency import IdempotencyKey
from app.logs import models as logs
from app.metrics import models as metrics
from app.organizations import models as organizations
from app.processes import Process, ScheduledRun
from app.telemetry import models as telemetry

__all__ = [
    "Base",
    "DeploymentEvent",
    "IdempotencyKey",
    "Process",
    "ScheduledRun",
    "alerts",
    "auth",
    "billing",
    "deployments",
    "devices",
    "editors",
    "flows",
    "logs",
    "metrics",
    "organizations",
    "telemetry",
]
