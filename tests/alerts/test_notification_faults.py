"""Notifications by real workers and a real scheduler: lost jobs, killed workers, and neither."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app import db
from app.alerts import delivery
from app.alerts.models import AlertRule
from tests.alerts import rows
from tests.alerts.receivers import Receiver, status
from tests.platform import Platform

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("notification_faults")]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("platform"), environ={"EDGEFLOW_WEBHOOK_PRIVATE": "1"}) as one:
        yield one


def rules(org: UUID, receiver: Receiver, count: int) -> list[AlertRule]:
    """Rules that fire. Nobody asks for their notifications: as if each such job had been lost."""
    made = [rows.rule(org, {"type": "webhook", "url": receiver.url}, name=f"rule {n}") for n in range(count)]
    for rule in made:
        rows.fire(rule, 2)
    return made


def until(condition: Callable[[], bool], seconds: float, running: Platform) -> float:
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds, running.logs()
        time.sleep(0.05)
    return time.monotonic() - began


def states(org: UUID) -> Counter[str]:
    with db.transaction(org) as session:
        return Counter(session.execute(text("SELECT state FROM notifications")).scalars())


def end_leases(org: UUID) -> None:
    """What time would do within a minute."""
    with db.transaction(org) as session:
        session.execute(text("UPDATE notifications SET next_attempt_at = now() WHERE state = 'sending'"))


def test_lost_jobs_cost_seconds_and_nothing_comes_twice(org: UUID, receiver: Receiver, running: Platform) -> None:
    rules(org, receiver, 20)
    took = until(lambda: len(receiver.requests) >= 20, 15, running)
    assert took < 10
    until(lambda: states(org) == {"delivered": 20}, 5, running)
    time.sleep(4)  # further sweeps find nothing
    assert len(receiver.deliveries) == len(set(receiver.deliveries)) == 20
    with db.transaction(org) as session:
        assert session.execute(text("SELECT DISTINCT attempt FROM notification_attempts")).scalars().all() == [1]


def test_a_worker_that_is_killed_while_it_sends(org: UUID, receiver: Receiver, running: Platform) -> None:
    hold = threading.Event()
    receiver.answers = [lambda handler: (hold.wait(30), status(204)(handler))[1]]
    (rule,) = rules(org, receiver, 1)
    until(lambda: len(receiver.requests) == 1, 15, running)
    running.restart("worker")
    hold.set()
    rows.age(rule, delivery.LEASE_SECONDS)
    until(lambda: states(org) == {"delivered": 1}, 30, running)
    (message,) = rows.notifications(rule)
    assert receiver.deliveries == [str(message.id)] * 2
    assert [(one.attempt, bool(one.error)) for one in rows.attempts(rule)] == [(1, True), (2, False)]


def test_many_kills_lose_nothing(org: UUID, receiver: Receiver, running: Platform) -> None:
    receiver.always = lambda handler: (time.sleep(0.05), status(204)(handler))[1]
    made: list[AlertRule] = []
    for _ in range(4):
        made += rules(org, receiver, 10)
        before = len(receiver.requests)
        until(lambda before=before: len(receiver.requests) > before + 2, 30, running)  # type: ignore[misc]
        running.restart("worker")
        end_leases(org)
    deadline = time.monotonic() + 60
    while states(org) != {"delivered": 40}:
        assert time.monotonic() < deadline, (states(org), running.logs("worker"))
        time.sleep(1)
        if not running_worker_sends(running):
            end_leases(org)
    messages: list[Any] = [message for rule in made for message in rows.notifications(rule)]
    assert len(messages) == 40  # one for each rule, however often its job ran
    assert set(receiver.deliveries) == {str(message.id) for message in messages}
    again = len(receiver.deliveries) - 40
    lost = [one for one in rows.attempts(made[0]) if one.error]
    assert again <= len(lost) <= 4 * delivery.AT_ONCE


def running_worker_sends(running: Platform) -> bool:
    """Whether its lines are fresh enough that it may be sending."""
    log = running.folder / "worker.log"
    return time.time() - log.stat().st_mtime < 3
