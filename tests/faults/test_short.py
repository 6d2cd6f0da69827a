"""The short form of ``make faults``: a fault of each kind against a small fleet with bad links, and two controls."""

from collections.abc import Iterator

import pytest

from tests.faults import v1
from tests.faults.parts import Parts
from tests.faults.scenarios import (
    AT_A_START,
    CONVERGE_SECONDS,
    POSTGRESQL_STOPPED_AT_ONCE,
    VALKEY_KILLED,
    Plan,
    crash_at,
    flushed,
    frozen,
    killed,
    run,
)
from tests.faults.suite import NOISE
from tests.faults.world import populated
from tests.invariants.servers import Servers

pytestmark = [pytest.mark.xdist_group("faults"), pytest.mark.slow]

DEVICES = 40
FORGETFUL = 20  # with these losses one in a thousand runs would have none asked again
FROZEN_SECONDS = 6  # twice the time after which a command is sent again
ROUNDS = [
    [*AT_A_START, killed("worker"), killed("scheduler")],
    [crash_at("web.after-answer"), crash_at("worker.after-commit"), flushed()],
    [crash_at("worker.after-send"), crash_at("scheduler.after-send"), VALKEY_KILLED, killed("web1")],
    [crash_at("worker.before-commit"), POSTGRESQL_STOPPED_AT_ONCE, frozen("worker2", FROZEN_SECONDS)],
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    with Servers(tmp_path_factory.mktemp("faults-servers"), durable=True) as running:
        yield running


@pytest.fixture(scope="module")
def parts(servers: Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parts]:
    with Parts(tmp_path_factory.mktemp("faults"), servers.environ) as running:
        yield running


def test_nothing_is_lost_and_nothing_done_twice_whatever_dies(servers: Servers, parts: Parts) -> None:
    with populated(servers, parts, DEVICES, faults=NOISE) as world:
        outcome = run(world, Plan(ROUNDS))
    assert outcome.findings.all == []
    assert max(outcome.converged) < CONVERGE_SECONDS
    assert outcome.restarts >= 2 * len(ROUNDS) - 1
    assert outcome.repeats


def test_the_comparison_notices_devices_that_forget_and_users_that_repeat(servers: Servers, parts: Parts) -> None:
    lossy = {"loss_rate": 0.3}
    with populated(servers, parts, FORGETFUL, careless=True, without_dedup=True, faults=lossy) as world:
        outcome = run(world, Plan([AT_A_START], limit=20))
    assert any("applied" in line for line in outcome.findings.twice)
    assert any("no answer named it" in line for line in outcome.findings.twice)


def test_no_v1_agent_gives_up_when_its_gateway_is_killed(servers: Servers, parts: Parts) -> None:
    with populated(servers, parts, 50, kind="v1", time_scale=0.3) as world:
        outcome = v1.run(world, 2, in_the_storm=2, budget=v1.BUDGET_SECONDS * 0.3)
    assert outcome.gave_up == 0, outcome.failures
