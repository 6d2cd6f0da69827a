"""The rooms' routes, in the order in which the documentation shows them."""

from importlib import import_module

from flask_smorest import Blueprint

ROOMS = (
    "auth", "organizations", "devices", "edge_nodes", "flows", "deployments", "tunnel", "metrics", "logs", "alerts",
    "billing",
)  # fmt: skip


def blueprints() -> list[Blueprint]:
    """Every room's blueprint."""
    import_module("app.alerts.notification_routes")  # further routes of its room's blueprint
    return [import_module(f"app.{room}.routes").blp for room in ROOMS]
