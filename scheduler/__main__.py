"""``python -m scheduler``."""

import logging
import os
import signal
import threading

import structlog

from app import db
from app.observability import configure_logging
from app.processes import Heartbeat
from config.settings import settings_or_exit
from scheduler import leadership

log = structlog.get_logger("scheduler")


def main() -> int:
    """Take part until a signal comes; 0. Raises SystemExit with one line when the configuration is not valid."""
    config = settings_or_exit()
    configure_logging(config)
    db.configure(config.database_url)
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    heartbeat = Heartbeat("scheduler")
    heartbeat.start()
    leadership.take_part(config.database_url, stopping)
    heartbeat.stop()
    log.info("stopped")
    return 0


if __name__ == "__main__":
    status = main()
    logging.shutdown()
    # Not sys.exit: it would wait for a tick that waits for a stalled Redis. What that tick has recorded but not sent,
    # the next leader sends.
    os._exit(status)
