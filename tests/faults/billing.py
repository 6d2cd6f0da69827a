"""The worker is killed before and after each call to Stripe: nobody is charged twice, and nothing is forgotten."""

from pathlib import Path

from bench.report import Figure, at_least, at_most, told
from tests.billing.e2e import kills
from tests.billing.e2e.kills import Death
from tests.billing.e2e.shop import open_shop
from tests.invariants.servers import Servers

DEATHS = 50
CREATED = ("POST /v1/customers", "POST /v1/subscriptions")


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


def _died(servers: Servers, folder: Path, *, keyless: bool = False) -> tuple[int, int]:
    """How many workers died, and after how many lives the books were not as they must be."""
    died = wrong = 0
    with open_shop(folder, servers) as shop:
        everywhere, right = kills.rehearse(shop)
        shop.gate.keyless = keyless
        chosen = (
            kills.some(everywhere, DEATHS) if not keyless else [Death("subscribe", one, "after") for one in CREATED]
        )
        for these, kept in kills.lives(shop, chosen):
            died += len(these)
            if kept != right:
                wrong += 1
                print(f"   {these}: {kept} instead of {right}", flush=True)
    return died, wrong
