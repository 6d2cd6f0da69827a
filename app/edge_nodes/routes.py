"""Routes of edge_nodes."""

from app.api import Blueprint

blp = Blueprint("edge_nodes", __name__, description="edge_nodes")
