"""The rooms' routes, in the order in which the documentation shows them."""

from importlib import import_module

from flask_smorest import Blueprint

ROOMS = (
    "auth", "organizations", "devices", "edge_nodes", "flows", "deployments", "tunnel", "metrics", "logs", "alerts",
    "billing",
)  # fmt: skip


def blueprints() -> list[Blueprint]:
    """Every room's blueprint."""
    for further in ("alerts.notification_routes", "billing.subscription_routes"):  # of their rooms' blueprints
        import_module(f"app.{further}")
    return [import_module(f"app.{room}.routes").blp for room in ROOMS]
