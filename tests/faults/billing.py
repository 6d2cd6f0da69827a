"""The worker is killed before and after each call to Stripe: nobody is charged twice, and nothing is forgotten."""

import os
import subprocess
import sys
from pathlib import Path

from bench.report import Figure, at_least, at_most, told
from tests.billing.e2e import kills
from tests.billing.e2e.kills import Death
from tests.billing.e2e.shop import open_shop
from tests.invariants.servers import Servers
from tests.platform import ROOT

DEATHS = 50
PERMUTATIONS = 1_000


def deaths(servers: Servers, folder: Path) -> list[Figure]:
    died, wrong = _died(servers, folder)
    return [
        told("faults billing: workers killed at a call to Stripe", died, "kills"),
        at_least("faults billing: kills wanted", died, "kills", DEATHS),
        at_most("faults billing: customers whose books differ", wrong, "customers", 0),
    ]


def control(servers: Servers, folder: Path) -> list[Figure]:
    """Without its keys Stripe makes things a second time."""
    _died_without, wrong = _died(servers, folder, keyless=True)
    return [at_least("faults control without billing keys: books that differ", wrong, "customers", 1)]


def order(_servers: Servers, _folder: Path) -> list[Figure]:
    """S5, on servers of its own."""
    command = [sys.executable, "-m", "pytest", "-q", "tests/billing/test_permutations.py", "-n", "auto"]
    environ = {**os.environ, "EDGEFLOW_TEST_PERMUTATIONS": str(PERMUTATIONS)}
    failed = subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode
    return [
        told("faults billing: orders of a 12-event history, with repeats", PERMUTATIONS, "orders"),
        at_most("faults billing: orders that end otherwise, or not at all", failed, "exit code", 0),
    ]


def _died(servers: Servers, folder: Path, *, keyless: bool = False) -> tuple[int, int]:
    """How many workers died, and after how many lives the books were not as they must be."""
    died = wrong = 0
    with open_shop(folder, servers) as shop:
        everywhere, right = kills.rehearse(shop)
        shop.gate.keyless = keyless
        chosen = [Death("subscribe", "POST /v1/customers", "after")] if keyless else kills.some(everywhere, DEATHS)
        for these, kept in kills.lives(shop, chosen):
            died += len(these)
            if kept != right:
                wrong += 1
                print(f"   {these}: {kept} instead of {right}", flush=True)
    return died, wrong
