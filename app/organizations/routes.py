"""Routes of organizations."""

from app.api import Blueprint

blp = Blueprint("organizations", __name__, description="organizations")
