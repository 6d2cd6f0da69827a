"""Metrics as a list of points and nothing else: what every answer must equal, worked out the slow way."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.clock import rfc3339


@dataclass(frozen=True)
class Point:
    """``at``: seconds since 1970."""

    series: int
    at: float
    value: float


def newest(points: Iterable[Point]) -> float:
    return max((point.at, point.value) for point in points)[1]


AGGREGATES = {
    "avg": lambda found: sum(point.value for point in found) / len(found),
    "min": lambda found: min(point.value for point in found),
    "max": lambda found: max(point.value for point in found),
    "sum": lambda found: sum(point.value for point in found),
    "count": len,
    "last": newest,
}


def buckets(points: Sequence[Point], seconds: int, until: float) -> dict[tuple[int, int], tuple[Any, ...]]:
    """``{(series, bucket): (count, sum, min, max, last, last_at)}`` of the buckets that begin before ``until``."""
    gathered: dict[tuple[int, int], list[Point]] = {}
    for point in points:
        begin = int(point.at // seconds) * seconds
        if begin < until:
            gathered.setdefault((point.series, begin), []).append(point)
    return {
        key: (
            len(found),
            sum(point.value for point in found),
            min(point.value for point in found),
            max(point.value for point in found),
            newest(found),
            max(point.at for point in found),
        )
        for key, found in gathered.items()
    }


def line(points: Sequence[Point], begin: float, end: float, step: int, agg: str) -> list[list[Any]]:
    """The points of an answer: one for each multiple of the step whose bucket meets the range."""
    made = []
    bucket = int(begin // step) * step
    while bucket < end:
        found = [point for point in points if bucket <= point.at < bucket + step]
        made.append([rfc3339(datetime.fromtimestamp(bucket, UTC)), AGGREGATES[agg](found) if found else None])
        bucket += step
    return made
