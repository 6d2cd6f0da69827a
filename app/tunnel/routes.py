"""Routes of tunnel."""

from app.api import Blueprint

blp = Blueprint("tunnel", __name__, description="tunnel")
