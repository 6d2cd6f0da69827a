"""What every actor has: a name with its queue, the request id of whoever asked, and a living process."""

from collections.abc import Callable
from typing import Any, TypeVar

import dramatiq
import structlog
from dramatiq.middleware import Middleware
from prometheus_client import Counter

from app import db, jobs, log_context
from app.observability import configure_logging
from app.processes import Heartbeat
from config.plans import plans_or_exit
from config.settings import settings_or_exit

log = structlog.get_logger("worker")
IDLE_MILLISECONDS = 200
F = TypeVar("F", bound=Callable[..., None])

STATEMENT_SECONDS = 60  # sweeps touch many rows at once

JOBS = Counter("edgeflow_jobs_total", "Jobs carried out", ["job", "outcome"])


def actor(name: str, **options: Any) -> Callable[[F], "dramatiq.Actor[Any, Any]"]:
    """Register a function as the job ``name`` (queue, dot, verb): ``@actor("rollouts.advance")``."""
    return dramatiq.actor(actor_name=name, queue_name=name.split(".")[0], broker=jobs.broker(), **options)


class Follow(Middleware):
    """Logs carry the request id of the request that a job came from; jobs are counted; failures are logged."""

    def before_process_message(self, _broker: dramatiq.Broker, message: Any) -> None:
        log_context.bind(request_id=message.options.get("request_id"), job=message.actor_name)

    def after_process_message(
        self, _broker: dramatiq.Broker, message: Any, *, result: Any = None, exception: BaseException | None = None
    ) -> None:
        JOBS.labels(message.actor_name, "failed" if exception else "done").inc()
        if exception:
            log.error("job failed", error=repr(exception), retries=message.options.get("retries", 0))
        log_context.begin()


class Prompt(Middleware):
    """An idle worker asks Redis for jobs five times a second; the default backs off to once."""

    def before_worker_boot(self, _broker: dramatiq.Broker, worker: Any) -> None:
        worker.worker_timeout = IDLE_MILLISECONDS


class Alive(Middleware):
    """The worker's heartbeat, which ``/readyz`` looks for."""

    def __init__(self) -> None:
        self._heartbeat = Heartbeat("worker")

    def after_worker_boot(self, _broker: dramatiq.Broker, _worker: Any) -> None:
        self._heartbeat.start()

    def before_worker_shutdown(self, _broker: dramatiq.Broker, _worker: Any) -> None:
        self._heartbeat.stop()


def boot() -> None:
    """Set up this process as a worker, before any actor is declared."""
    config = settings_or_exit()
    plans_or_exit()
    configure_logging(config)
    db.configure(config.database_url, STATEMENT_SECONDS)
    broker = jobs.broker()
    broker.add_middleware(Follow())
    broker.add_middleware(Prompt())
    broker.add_middleware(Alive())
