"""Dramatiq workers: ``dramatiq workers``. One thin module of actors per queue; any number of processes, any host."""

from workers.base import boot

boot()

# The actors register themselves with the broker.
from workers import alerts, billing, maintenance, metrics, notifications, rollouts, telemetry, tunnel  # noqa: E402

__all__ = ["alerts", "billing", "maintenance", "metrics", "notifications", "rollouts", "telemetry", "tunnel"]
