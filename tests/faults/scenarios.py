"""Rollouts, one after the other, with faults in the middle of each."""

import os
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.faults.checker import Findings, check
from tests.faults.world import World

CONVERGE_SECONDS = 60.0
STRATEGY = {"timeout_seconds": 60, "retries": 10, "retry_backoff_seconds": 1}
LEASE_SECONDS = 5
STALE = ("late or unknown answers", "too late to send", "commands dropped", "session lost")
"""What the platform logs when it turns something stale away."""


@dataclass(frozen=True)
class Fault:
    """``share``: how much of a rollout is done when it comes; None: it comes before the rollout is asked for."""

    call: Callable[[World], None]
    share: float | None = 0.1


@dataclass(frozen=True)
class Plan:
    """``rounds``: one rollout each, with its faults a moment apart. ``limit``: seconds that convergence may take."""

    rounds: Sequence[Sequence[Fault]]
    lease: float = 60
    limit: float = CONVERGE_SECONDS

    def strategy(self, devices: int) -> dict[str, Any]:
        """A rollout takes ten waves, so that faults come in the middle of it."""
        return {**STRATEGY, "timeout_seconds": self.lease, "max_in_flight": max(1, devices // 10)}


@dataclass
class Outcome:
    """``converged``: seconds from the last fault of each rollout until it was over; ``stuck``: rollouts that were not
    within the limit. ``rejected``: how often something stale was turned away; ``repeats``: requests asked again."""

    faults: int
    rollouts: int
    devices: int
    converged: list[float]
    stuck: int
    findings: Findings
    rejected: int
    restarts: int
    repeats: int

    @property
    def median(self) -> float:
        return statistics.median(self.converged)

    @property
    def broken(self) -> int:
        return self.stuck + len(self.findings.all)


def run(world: World, plan: Plan) -> Outcome:
    """Carry a plan out, then compare."""
    converged = [_round(world, plan, faults) for faults in plan.rounds]
    world.until(lambda: _at_rest(world), 10)
    return Outcome(
        faults=sum(fault.share is not None for faults in plan.rounds for fault in faults),
        rollouts=len(world.user.accepted),
        devices=len(world.members),
        converged=converged,
        stuck=sum(seconds >= plan.limit for seconds in converged),
        findings=check(world),
        rejected=world.parts.said(*STALE),
        restarts=world.parts.restarts,
        repeats=world.user.repeats,
    )


def _round(world: World, plan: Plan, faults: Sequence[Fault]) -> float:
    world.publish()
    for fault in faults:
        if fault.share is None:
            fault.call(world)
    deployment_id = world.user.deploy(world.flow_id, plan.strategy(len(world.members)))
    last = time.monotonic()
    for number, fault in enumerate(one for one in faults if one.share is not None):
        if number:
            time.sleep(world.rng.uniform(0.3, 2.0))
        world.under_way(deployment_id, fault.share or 0)
        last = time.monotonic()
        fault.call(world)
    world.until(lambda: world.over(deployment_id), max(1.0, last + plan.limit - time.monotonic()))
    return time.monotonic() - last


def _at_rest(world: World) -> bool:
    """Whether late answers are noted, and devices that lost their gateway are back."""
    query = "SELECT count(*) FROM deployments WHERE id = ANY (%(ids)s::uuid[]) AND next_check_at IS NOT NULL"
    waiting = world.rows(query, ids=world.user.accepted)[0][0]
    return not waiting and world.fleet.report()["connected"] == len(world.members)


def killed(name: str) -> Fault:
    """A part is killed with all its processes."""
    return Fault(lambda world: world.parts.kill(name))


def crash_at(point: str) -> Fault:
    """A process dies at a named point."""

    def crash(world: World) -> None:
        world.parts.arm(point)
        world.parts.reached(point)

    return Fault(crash, share=0.0)


def crash_at_the_start() -> Fault:
    """The web process dies between the commit of a start and the job that was to follow; the user asks again."""
    return Fault(lambda world: world.parts.arm("web.after-commit"), share=None)


def was_reached(point: str) -> Fault:
    return Fault(lambda world: _none(world.parts.reached(point, 1)), share=0.0)


def _none(_: Any) -> None:
    return None


def flushed() -> Fault:
    """FLUSHALL, a hundred times within a second or two, so that every message under way is lost."""

    def flush(world: World) -> None:
        for _ in range(100):
            world.flush()
            time.sleep(0.01)

    return Fault(flush)


def server_lost(name: str, kill: Callable[[World], None]) -> Fault:
    """PostgreSQL or Valkey goes, and is started again a moment later."""

    def lose(world: World) -> None:
        kill(world)
        time.sleep(world.rng.uniform(0.1, 1.0))
        world.servers.start(name)

    return Fault(lose)


AT_A_START = [crash_at_the_start(), was_reached("web.after-commit")]
VALKEY_KILLED = server_lost("valkey", lambda world: world.servers.kill("valkey"))
POSTGRESQL_STOPPED_AT_ONCE = server_lost("postgres", lambda world: world.servers.stop_at_once())


def frozen(name: str, seconds: float) -> Fault:
    """A part stands still for ``seconds`` and goes on."""

    def freeze(world: World) -> None:
        with world.parts.frozen(name):
            time.sleep(seconds)

    return Fault(freeze)


def gateway_left() -> Fault:
    """A gateway stands still for twice the lease, its devices go to another; when it wakes, it must not undo that."""

    def leave(world: World) -> None:
        with world.parts.frozen("web0"):
            world.fleet.move(1)
            time.sleep(2 * LEASE_SECONDS)
            world.until(lambda: world.fleet.report()["connected"] == len(world.members), 20)
        undone, deadline = dict[str, str](), time.monotonic() + 3
        while time.monotonic() < deadline:
            undone.update(_offline(world))
        world.remarks += [f"connected device {one} was marked offline by its old gateway" for one in undone]
        world.fleet.move(0)

    return Fault(leave)


def _offline(world: World) -> list[Any]:
    """``(device, reason)`` of those that the database holds for disconnected."""
    query = """
        SELECT device_id::text, disconnect_reason FROM connections
        WHERE device_id = ANY (%(ids)s::uuid[]) AND disconnected_at IS NOT NULL
    """
    return world.rows(query, ids=[member.device_id for member in world.members])


def worker_overtaken() -> Fault:
    """A worker stops between its claim and the sending; another brings this version and a newer one to all devices;
    then it goes on, and what it had to send must not be sent."""

    def overtake(world: World) -> None:
        world.parts.arm("worker.before-send")
        stopped = world.parts.reached("worker.before-send")
        try:
            for newer in (False, True):
                if newer:
                    world.publish()
                    world.user.deploy(world.flow_id, STRATEGY)
                world.until(lambda: world.over(world.user.accepted[-1]), CONVERGE_SECONDS)
        finally:
            os.kill(stopped, signal.SIGCONT)
        time.sleep(2)  # what it sends now arrives

    return Fault(overtake)
