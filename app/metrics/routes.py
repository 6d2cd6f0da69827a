"""Routes of metrics."""

from app.api import Blueprint

blp = Blueprint("metrics", __name__, description="metrics")
