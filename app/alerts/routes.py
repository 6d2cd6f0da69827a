"""Routes of alerts."""

from app.api import Blueprint

blp = Blueprint("alerts", __name__, description="alerts")
