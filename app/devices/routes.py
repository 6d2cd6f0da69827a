"""Routes of devices."""

from app.api import Blueprint

blp = Blueprint("devices", __name__, description="devices")
