"""The long form: every scenario and every control by name, and the figures that each gives."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.report import Figure, at_least, at_most, told
from tests.faults import billing, v1
from tests.faults.scenarios import (
    AT_A_START,
    CONVERGE_SECONDS,
    LEASE_SECONDS,
    POSTGRESQL_STOPPED_AT_ONCE,
    VALKEY_KILLED,
    Fault,
    Outcome,
    Plan,
    crash_at,
    flushed,
    frozen,
    gateway_left,
    killed,
    run,
    worker_overtaken,
)
from tests.faults.world import world
from tests.invariants.servers import Servers

DEVICES = 500
CONTROL_DEVICES = 100
CONTROL_SECONDS = 30.0
NOISE = {"duplicate_rate": 0.10, "reorder_rate": 0.10, "loss_rate": 0.05, "late_rate": 0.01}
SCHEDULER_LEASE = 8  # seconds: what a silent leader's database session lives

KILLS = [killed("worker"), killed("worker2")]
WEB_KILLS = [killed("web0"), killed("web1")]
SCHEDULER_KILLS = [killed("scheduler"), killed("scheduler2")]
CRASHES = [
    [*AT_A_START, crash_at("web.after-answer")],
    [crash_at("worker.after-commit"), crash_at("worker.after-send")],
    [crash_at("worker.before-commit"), crash_at("scheduler.after-send")],
]


@dataclass(frozen=True)
class Scenario:
    """``without``: protections that are taken away (see ``world``); ``faults``: of the devices' links."""

    plan: Plan
    devices: int = DEVICES
    faults: dict[str, float] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def outcome(self, servers: Servers, folder: Path) -> Outcome:
        with world(servers, folder, self.devices, without=self.without, faults=self.faults) as made:
            return run(made, self.plan)


SCENARIOS = {
    "web": Scenario(Plan([WEB_KILLS] * 5)),
    "worker": Scenario(Plan([KILLS] * 5)),
    "scheduler": Scenario(Plan([SCHEDULER_KILLS] * 5)),
    "valkey": Scenario(Plan([[VALKEY_KILLED]] * 5)),
    "postgresql": Scenario(Plan([[POSTGRESQL_STOPPED_AT_ONCE]] * 5)),
    "flushall": Scenario(Plan([[flushed(), flushed()]] * 5)),
    "frozen-worker": Scenario(Plan([[frozen("worker", 2 * LEASE_SECONDS)]] * 3, lease=LEASE_SECONDS)),
    "frozen-gateway": Scenario(Plan([[frozen("web1", 2 * LEASE_SECONDS)]] * 3, lease=LEASE_SECONDS)),
    "frozen-scheduler": Scenario(
        Plan([[frozen(name, 2 * SCHEDULER_LEASE)] for name in ("scheduler", "scheduler2", "scheduler")])
    ),
    "left-gateway": Scenario(Plan([[gateway_left()]] * 3, lease=LEASE_SECONDS)),
    # Its devices remember no command ids: that would hide whether the worker sends what is overtaken.
    "overtaken-worker": Scenario(Plan([[worker_overtaken()]] * 3, lease=LEASE_SECONDS), without=("dedup",)),
    # Nor does it look at the clock before it sends: the gateway alone must notice.
    "overtaken-gateway": Scenario(
        Plan([[worker_overtaken()]] * 3, lease=LEASE_SECONDS), without=("dedup", "send-limit")
    ),
    "crash-points": Scenario(Plan(CRASHES * 5)),
    "noise": Scenario(Plan([[]] * 3), faults=NOISE),
}


def control(*faults: Fault, without: tuple[str, ...], lease: float = 120, noise: float = 1) -> Scenario:
    """A scenario with fewer devices and a protection less. ``noise``: how much more the links lose than in "noise"."""
    plan = Plan([list(faults)], lease=lease, limit=CONTROL_SECONDS)
    links = {} if faults else {name: min(1.0, rate * noise) for name, rate in NOISE.items()}
    return Scenario(plan, CONTROL_DEVICES, links, without)


CONTROLS = {
    "idempotency": control(*AT_A_START, without=("idempotency",)),
    "reconciler": control(flushed(), without=("reconciler",)),
    "redelivery": control(without=("redelivery",), noise=2),
    "dedup": control(without=("dedup",), noise=2),
    "send-limit": control(worker_overtaken(), without=("dedup", "send-limit", "turns"), lease=LEASE_SECONDS),
    "epoch": control(gateway_left(), without=("epoch",), lease=LEASE_SECONDS),
}

V1_AGENTS, V1_KILLS = 1_000, 10


def scenario(name: str, servers: Servers, folder: Path) -> list[Figure]:
    """Run a scenario by its name; what it found is printed line by line."""
    outcome = SCENARIOS[name].outcome(servers, folder)
    for line in outcome.findings.all[:20]:
        print(f"   {line}", flush=True)
    return figures(f"faults {name}", outcome)


def figures(name: str, outcome: Outcome) -> list[Figure]:
    return [
        told(f"{name}: faults", outcome.faults, "faults"),
        told(f"{name}: rollouts of {outcome.devices} devices", outcome.rollouts, "rollouts"),
        at_most(f"{name}: lost", len(outcome.findings.lost), "findings", 0),
        at_most(f"{name}: done twice", len(outcome.findings.twice), "findings", 0),
        at_most(f"{name}: contradictions", len(outcome.findings.torn), "findings", 0),
        at_most(f"{name}: converged, longest", max(outcome.converged), "s", CONVERGE_SECONDS),
        told(f"{name}: converged, median", outcome.median, "s"),
        told(f"{name}: stale turned away", outcome.rejected, "times"),
    ]


def control_of(name: str, servers: Servers, folder: Path) -> list[Figure]:
    """Without the protection the comparison must find something, or the rollout must not come to its end."""
    outcome = CONTROLS[name].outcome(servers, folder)
    for line in outcome.findings.all[:3]:
        print(f"   {line}", flush=True)
    return [at_least(f"faults control without {name}: broken", outcome.broken, "findings", 1)]


def v1_agents(servers: Servers, folder: Path) -> list[Figure]:
    with world(servers, folder, V1_AGENTS, kind="v1", web=1) as made:
        outcome = v1.run(made, V1_KILLS, in_the_storm=3, budget=v1.BUDGET_SECONDS)
    print(f"   failures: {outcome.failures}", flush=True)
    return [
        told("faults v1: agents", outcome.agents, "agents"),
        told("faults v1: gateway kills", outcome.kills, "kills"),
        at_most("faults v1: gave up", outcome.gave_up, "agents", 0),
        at_most("faults v1: tries needed, most", outcome.most_tries, "tries", 5),
        at_most("faults v1: all back, longest", max(outcome.back), "s", v1.BUDGET_SECONDS),
    ]


def v1_control(servers: Servers, folder: Path) -> list[Figure]:
    """A gateway that stays away for longer than the agents' waits together (at a tenth of their length) loses them."""
    with world(servers, folder, 50, kind="v1", web=1, time_scale=0.1) as made:
        outcome = v1.run(made, 1, in_the_storm=2, budget=10, away=v1.BUDGET_SECONDS / 10 + 2)
    return [
        at_least("faults control v1, gateway away for longer than its waits: gave up", outcome.gave_up, "agents", 1)
    ]


Run = Callable[[Servers, Path], list[Figure]]


def runs() -> dict[str, Run]:
    """Everything by name, in the order in which it is run."""
    named: dict[str, Run] = {}
    for name in SCENARIOS:
        named[name] = lambda servers, folder, name=name: scenario(name, servers, folder)  # type: ignore[misc]
    named["v1"] = v1_agents
    named["billing"] = billing.deaths
    named["billing-order"] = billing.order
    for name in CONTROLS:
        named[f"control-{name}"] = lambda servers, folder, name=name: control_of(name, servers, folder)  # type: ignore[misc]
    named["control-v1"] = v1_control
    named["control-billing"] = billing.control
    return named
