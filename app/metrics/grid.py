"""The moments that a query is answered for. Pure; all in whole seconds since 1970."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.clock import rfc3339
from app.metrics.levels import LEVELS

MAX_POINTS = 11_000
"""Of one series; Prometheus has the same limit."""
DEFAULT_RANGE = timedelta(hours=1)
DEFAULT_POINTS = 300
DEFAULT_STEPS = (60, 300, 900, 1800, 3600, 10_800, 21_600, 43_200, 86_400)
"""What is chosen when no step is given: not below a minute, since that is how often many devices tell."""
STEPS = (1, 2, 5, 10, 15, 30, *DEFAULT_STEPS)
"""What is proposed instead of a step that is too small."""
MAX_STEP = STEPS[-1]


@dataclass(frozen=True)
class Grid:
    """``count`` buckets of ``step`` seconds, the first at ``start``: whole multiples of the step, since 1970.

    The first and the last bucket are whole, though a range may begin or end within them.
    """

    start: int
    step: int
    count: int

    @property
    def end(self) -> int:
        """Where the last bucket ends."""
        return self.start + self.step * self.count

    @property
    def times(self) -> list[str]:
        """Each bucket's beginning, RFC 3339."""
        return [rfc3339(datetime.fromtimestamp(self.start + number * self.step, UTC)) for number in range(self.count)]


def grid(begin: datetime, end: datetime, step: int) -> Grid:
    """The buckets that hold what lies from ``begin`` to before ``end``."""
    start = _seconds(begin) // step * step
    return Grid(start, step, max(0, -((start - _ceil(end)) // step)))


def default_step(begin: datetime, end: datetime, kept: Sequence[timedelta], now: datetime) -> int:
    """One that gives at most some 300 points, and that there is still data for.

    ``kept``: how long points are kept, and then each of the levels.
    """
    return next((step for step in DEFAULT_STEPS if _suits(begin, end, step, kept, now)), MAX_STEP)


def fitting_step(begin: datetime, end: datetime) -> int | None:
    """The smallest usual step with which a range has few enough points; None: it is too long for any."""
    return next((step for step in STEPS if grid(begin, end, step).count <= MAX_POINTS), None)


def _suits(begin: datetime, end: datetime, step: int, kept: Sequence[timedelta], now: datetime) -> bool:
    served = max(
        (time for level, time in zip(LEVELS, kept[1:], strict=True) if step % level.seconds == 0), default=kept[0]
    )
    return (end - begin) <= timedelta(seconds=step * DEFAULT_POINTS) and (begin >= now - served or step >= 3600)


def _seconds(moment: datetime) -> int:
    return int(moment.timestamp() // 1)


def _ceil(moment: datetime) -> int:
    return -int(-moment.timestamp() // 1)
