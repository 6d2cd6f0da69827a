"""Every table, for the migrations and the guards: importing this module registers them all."""

from app.auth import models as auth
from app.db import Base
from app.deployments import models as deployments
from app.deployments.events import DeploymentEvent
from app.devices import models as devices
from app.flows import models as flows
from app.idempotency import IdempotencyKey
from app.organizations import models as organizations
from app.processes import Process, ScheduledRun

__all__ = [
    "Base",
    "DeploymentEvent",
    "IdempotencyKey",
    "Process",
    "ScheduledRun",
    "auth",
    "deployments",
    "devices",
    "flows",
    "organizations",
]
