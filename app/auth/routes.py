"""Routes of auth."""

from app.api import Blueprint

blp = Blueprint("auth", __name__, description="auth")
