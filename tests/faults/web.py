"""The web application with its fault points: ``gunicorn … tests.faults.web:app``."""

from tests.faults import points
from wsgi import app

points.install("web")

__all__ = ["app"]
