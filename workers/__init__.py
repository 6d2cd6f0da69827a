"""Dramatiq workers: ``dramatiq workers``. One thin module of actors per queue; any number of processes, any host."""

from workers.base import boot

boot()

from workers import alerts, maintenance, rollouts, tunnel  # noqa: E402  the actors register themselves with the broker

__all__ = ["alerts", "maintenance", "rollouts", "tunnel"]
