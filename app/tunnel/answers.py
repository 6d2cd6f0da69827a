"""Answers for jobs: gathered for a moment, then handed over in one message for each job, tenant and request."""

import threading
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app import jobs
from app.batch import Batcher
from app.tunnel.connection import Deliver
from app.tunnel.protocol import Answer

GATHER_SECONDS = 0.05
RETRY_SECONDS = 0.5
SMALL_DATA_KEYS = 20


@dataclass(frozen=True)
class Origin:
    """Who asked: the job that wants the answers, the tenant, and the request that it all began with."""

    job: str
    org_id: UUID
    request_id: str | None


class Answers:
    """While Redis is away answers stay here; if this process dies too, the commands are sent again under their ids."""

    def __init__(self) -> None:
        self._retry = threading.Event()
        self._batches: Batcher[tuple[Origin, list[Any]]] = Batcher(
            "settle", self._hand_over, seconds=GATHER_SECONDS, most=1_000
        )

    def deliver_to(self, origin: Origin, command_id: str) -> Deliver:
        """What takes one command's answer: kept as ``[command_id, status, code, error, data]``, large data left out."""

        def settle(answer: Answer) -> None:
            small = answer.data if isinstance(answer.data, dict) and len(answer.data) <= SMALL_DATA_KEYS else None
            self._batches.add((origin, [command_id, answer.status, answer.code, answer.error, small]))

        return settle

    def drain(self, timeout: float) -> bool:
        """Wait until all answers are handed over; False if that took longer."""
        return self._batches.drain(timeout)

    def _hand_over(self, batch: list[tuple[Origin, list[Any]]]) -> None:
        by_origin: dict[Origin, list[list[Any]]] = {}
        for origin, answer in batch:
            by_origin.setdefault(origin, []).append(answer)
        for origin, answers in by_origin.items():
            if not jobs.send(origin.job, str(origin.org_id), answers, request_id=origin.request_id):
                self._retry.wait(RETRY_SECONDS)
                for answer in answers:
                    self._batches.add((origin, answer))
