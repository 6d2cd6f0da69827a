"""Bad links for simulated devices: what happens to an answer on its way, seeded so that a run can be had again."""

import random
from dataclasses import dataclass


@dataclass
class LinkFaults:
    """Rates from 0 to 1 per answer; `drop_rate` cuts the connection in the answer's stead. `hold_ms`: a reordered
    answer leaves up to that much later, so that later ones overtake it. `late_ms`: what a late one waits."""

    drop_rate: float = 0.0
    loss_rate: float = 0.0
    duplicate_rate: float = 0.0
    reorder_rate: float = 0.0
    late_rate: float = 0.0
    hold_ms: float = 300.0
    late_ms: float = 5000.0

    @property
    def any(self) -> bool:
        """Whether anything can go wrong at all."""
        return any((self.drop_rate, self.loss_rate, self.duplicate_rate, self.reorder_rate, self.late_rate))


@dataclass(frozen=True)
class Fate:
    """What becomes of one answer: the delays, in seconds, at which copies of it leave, or the connection's end."""

    sends: tuple[float, ...] = (0.0,)
    drop: bool = False


ON_TIME = Fate()


def fate_of(faults: LinkFaults, rng: random.Random) -> Fate:
    """Throw the dice for one answer."""
    if rng.random() < faults.drop_rate:
        return Fate((), drop=True)
    if rng.random() < faults.loss_rate:
        return Fate(())
    delay = 0.0
    if rng.random() < faults.late_rate:
        delay = faults.late_ms / 1000
    elif rng.random() < faults.reorder_rate:
        delay = rng.uniform(0, faults.hold_ms / 1000)
    if rng.random() < faults.duplicate_rate:
        return Fate((delay, delay + rng.uniform(0, faults.hold_ms / 1000)))
    return Fate((delay,))
