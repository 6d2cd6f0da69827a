"""Routes of flows."""

from app.api import Blueprint

blp = Blueprint("flows", __name__, description="flows")
