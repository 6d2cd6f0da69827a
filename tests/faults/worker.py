"""The workers with their fault points: ``dramatiq tests.faults.worker``."""

import workers
from tests.faults import points

points.install("worker")

__all__ = ["workers"]
