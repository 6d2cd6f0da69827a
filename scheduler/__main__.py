"""``python -m scheduler``."""

import logging
import os
import signal
import sys
import threading

import structlog

from app import db
from app.observability import configure_logging
from app.processes import Heartbeat
from config.settings import SettingsError, settings
from scheduler import leadership

log = structlog.get_logger("scheduler")


def main() -> int:
    """Take part until a signal comes. 0: stopped on request; 1: the configuration is not valid."""
    try:
        config = settings()
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
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
