"""The scheduler with its fault points: ``python -m tests.faults.scheduler``."""

import logging
import os

from scheduler.__main__ import main
from tests.faults import points

points.install("scheduler")

if __name__ == "__main__":
    status = main()
    logging.shutdown()
    os._exit(status)  # as its own entry point does
