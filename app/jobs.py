"""Jobs: Dramatiq messages, addressed by name, sent only after the transaction that asks for them has committed.

A lost message costs seconds, never work: PostgreSQL holds what is due and the reconciler re-drives it.
"""

from functools import cache
from typing import Any
from uuid import UUID

import dramatiq
import redis
import structlog
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AgeLimit, Callbacks, Retries, ShutdownNotifications, TimeLimit

from app import db, log_context
from app.redis import pooled

log = structlog.get_logger(__name__)

NAMESPACE = "edgeflow"
SECONDS = 1.0  # a request waits so long, after its commit, for a Redis that does not answer


@cache
def broker() -> RedisBroker:
    """The broker of this process.

    Dramatiq's defaults redo a killed worker's message only after about 7 minutes; these make it some 7 seconds.
    """
    made = RedisBroker(
        client=pooled(SECONDS),
        namespace=NAMESPACE,
        heartbeat_timeout=5_000,
        maintenance_chance=1_000_000,
        middleware=[
            AgeLimit(max_age=3_600_000),
            TimeLimit(time_limit=120_000),
            ShutdownNotifications(notify_shutdown=True),
            Callbacks(),
            Retries(max_retries=3, min_backoff=500, max_backoff=5_000),
        ],
    )
    dramatiq.set_broker(made)
    return made


def enqueue(name: str, *args: Any, delay: int | None = None) -> None:
    """Ask for the job ``name`` (queue, dot, verb) once the current transaction has committed. ``delay`` is in ms."""
    context = log_context.fields()
    plain = [str(value) if isinstance(value, UUID) else value for value in args]

    def call() -> None:
        send(name, *plain, delay=delay, request_id=context.get("request_id"))

    db.after_commit(call)


def send(name: str, *args: Any, delay: int | None = None, request_id: str | None = None) -> bool:
    """Send a job now. False, and a log line, when Redis does not take it: the reconciler finds the work."""
    message: dramatiq.Message[Any] = dramatiq.Message(
        queue_name=name.split(".")[0], actor_name=name, args=args, kwargs={}, options={"request_id": request_id}
    )
    made = broker()
    made.declare_queue(message.queue_name)
    try:
        made.enqueue(message, delay=delay)
    except (redis.RedisError, OSError) as error:
        log.warning("job not sent", job=name, error=str(error))
        return False
    return True
