"""Routes of deployments."""

from app.api import Blueprint

blp = Blueprint("deployments", __name__, description="deployments")
