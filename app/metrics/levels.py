"""The levels that points are rolled up to. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

RAW = "metric_points"
# A sum that leaves the range of numbers is an error, and one device's nonsense would stop everybody's roll-ups.
SUMMED = "least(greatest(value, -1e290), 1e290)"


@dataclass(frozen=True)
class Level:
    """Buckets of ``seconds``, made from the table ``source``; ``kept`` names its retention in a plan.

    ``span``: how many seconds of data a roll-up transaction begins with.
    """

    name: str
    seconds: int
    source: str
    kept: str
    span: int

    @property
    def table(self) -> str:
        return f"{RAW}_{self.name}"


LEVELS = (
    Level("1m", 60, RAW, "minutes", 60),
    Level("5m", 300, f"{RAW}_1m", "minutes", 300),
    Level("1h", 3600, f"{RAW}_5m", "hours", 3600),
)
"""From fine to coarse: each divides the next, and is its source."""


def serving(step: int) -> Sequence[Level]:
    """The levels that a query with this step (seconds) may read, coarsest first.

    The first is the coarsest whose buckets make up a step; the others serve what it has not reached yet.
    """
    return [level for level in reversed(LEVELS) if step % level.seconds == 0]
