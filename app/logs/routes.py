"""Routes of logs."""

from app.api import Blueprint

blp = Blueprint("logs", __name__, description="logs")
