"""Routes of billing."""

from app.api import Blueprint

blp = Blueprint("billing", __name__, description="billing")
