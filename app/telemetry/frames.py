"""What a telemetry frame holds, pure: points and log lines that can be stored, and what of it cannot.

A device's clock decides nothing: a time that is too far off is replaced by that of arrival, and kept beside it.
"""

import json
import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

AHEAD, BEHIND = timedelta(minutes=10), timedelta(days=7)
NAME_LENGTH, TAGS, TAG_LENGTH = 200, 8, 200
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST, LATEST = -62_135_596_800_000, 253_402_300_799_000
"""Milliseconds since 1970 that a timestamp can hold everywhere: the years 1 to 9999."""

Key = str | tuple[str, str]
"""A metric of a device: its name, with the tags as canonical JSON if there are any."""
Point = tuple[Key, int, float, int | None]
"""Key, microseconds since 1970, value, and what the device claimed the time to be where that was not taken."""
Line = tuple[datetime, datetime | None, Any, str, Any]
"""Time, claimed time if another, level, message, fields (level and fields as the device gave them)."""

_good_names: set[str] = set()
_good_tags: dict[bytes, str] = {}
_MEMORY = 50_000


@dataclass
class Contents:
    """``malformed``: how much is no point or line, by kind; ``beyond``: points whose name or tags are too large."""

    points: list[Point] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    malformed: Counter[str] = field(default_factory=Counter)
    beyond: Counter[str] = field(default_factory=Counter)


class _Beyond(Exception):
    """A name or tags larger than can be stored; the words say which."""


def read(body: bytes, arrived: datetime) -> Contents:
    """The contents of a frame that arrived then. Never raises: what cannot be read is counted."""
    found = Contents()
    frame = _parse(body)
    if frame is None:
        found.malformed["frame"] += 1
        return found
    clock = _Clock(arrived)
    for kind, take in (("metrics", _take_points), ("logs", _take_lines)):
        items = frame.get(kind)
        if isinstance(items, list):
            take(items, clock, found)
        elif items is not None:
            found.malformed[kind] += 1
    return found


def _parse(body: bytes) -> dict[str, Any] | None:
    try:
        frame = orjson.loads(body)
    except orjson.JSONDecodeError:
        frame = _parse_loosely(body)
    return frame if isinstance(frame, dict) else None


def _parse_loosely(body: bytes) -> Any:
    """Python agents write NaN and Infinity, which are no JSON: one such value must not cost the rest of the frame."""
    try:
        return json.loads(body, parse_constant=lambda _name: None)
    except (ValueError, RecursionError):
        return None


class _Clock:
    """Which times of a device are taken, by the moment of arrival."""

    def __init__(self, arrived: datetime) -> None:
        self.arrived = arrived
        self.arrived_us = (arrived - EPOCH) // timedelta(microseconds=1)
        self.earliest = self.arrived_us // 1000 - BEHIND // timedelta(milliseconds=1)
        self.latest = self.arrived_us // 1000 + AHEAD // timedelta(milliseconds=1)

    def read(self, claimed: Any) -> tuple[int, int | None]:
        """The time to store (microseconds), and the claimed one if that is another. Raises ValueError for no time."""
        if type(claimed) is not int and (type(claimed) is not float or not math.isfinite(claimed)):
            raise ValueError("no time")
        if self.earliest <= claimed <= self.latest:
            return int(claimed * 1000), None
        return self.arrived_us, int(min(max(claimed, EARLIEST), LATEST)) * 1000


def _take_points(items: list[Any], clock: _Clock, found: Contents) -> None:
    """The hot loop of ingest: what is as it should be costs a few comparisons."""
    points, names, earliest, latest = found.points, _good_names, clock.earliest, clock.latest
    for item in items:
        try:
            name, moment, value = item if len(item) == 3 else item[:3]
            key: Key = name if name in names else _name(name)
            if len(item) != 3:
                key = _tagged(name, item)
            if type(value) is not float:
                value = _number(value)
            elif not math.isfinite(value):
                raise ValueError("not finite")
            if type(moment) is int and earliest <= moment <= latest:
                points.append((key, moment * 1000, value, None))
            else:
                points.append((key, *_timed(clock, moment, value)))
        except _Beyond as fault:
            found.beyond[str(fault)] += 1
        except (TypeError, ValueError, OverflowError, KeyError):
            found.malformed["point"] += 1


def _timed(clock: _Clock, moment: Any, value: float) -> tuple[int, float, int | None]:
    taken, claimed = clock.read(moment)
    return taken, value, claimed


def _number(value: Any) -> float:
    if not isinstance(value, bool | int):
        raise ValueError("no number")
    return float(value)


def _name(name: Any) -> str:
    """A metric's name that can be stored, remembered as such."""
    if not isinstance(name, str) or not name or not name.isprintable():
        raise ValueError("no name")
    if len(name) > NAME_LENGTH:
        raise _Beyond(f"names of more than {NAME_LENGTH} characters")
    if len(_good_names) >= _MEMORY:
        _good_names.clear()
    _good_names.add(name)
    return name


def _tagged(name: str, item: list[Any]) -> Key:
    if len(item) != 4:
        raise ValueError("not three or four things")
    tags = item[3]
    if not tags and (tags is None or isinstance(tags, dict)):
        return name
    if not isinstance(tags, dict):
        raise ValueError("tags are no object")
    written = orjson.dumps(tags, option=orjson.OPT_SORT_KEYS)
    return name, _good_tags.get(written) or _tags(tags, written)


def _tags(tags: dict[str, Any], written: bytes) -> str:
    """Tags as canonical JSON whose values are texts, remembered by how the device wrote them."""
    if len(tags) > TAGS:
        raise _Beyond(f"more than {TAGS} tags")
    texts = {_tag(key): _tag(value) for key, value in tags.items()}
    canonical = orjson.dumps(texts, option=orjson.OPT_SORT_KEYS).decode()
    if len(_good_tags) >= _MEMORY:
        _good_tags.clear()
    _good_tags[written] = canonical
    return canonical


def _tag(part: Any) -> str:
    if isinstance(part, bool):
        part = "true" if part else "false"
    if not isinstance(part, str | int | float):
        raise ValueError("no text")
    text = str(part)
    if not text.isprintable():
        raise ValueError("no text")
    if len(text) > TAG_LENGTH:
        raise _Beyond(f"tags of more than {TAG_LENGTH} characters")
    return text


def _take_lines(items: list[Any], clock: _Clock, found: Contents) -> None:
    for item in items:
        try:
            found.lines.append(_line(item, clock))
        except (TypeError, ValueError, OverflowError):
            found.malformed["log"] += 1


def _line(item: Any, clock: _Clock) -> Line:
    """A line's place in time and its message; what level and fields mean is for the store of logs to say."""
    if not isinstance(item, list) or len(item) not in (3, 4) or not isinstance(item[2], str):
        raise ValueError("no log line")
    moment, level, message, *fields = item
    taken, claimed = clock.read(moment)
    return _moment(taken), None if claimed is None else _moment(claimed), level, message, fields[0] if fields else None


def _moment(us: int) -> datetime:
    return EPOCH + timedelta(microseconds=us)


def flatten(reading: Any) -> list[tuple[str, float]]:
    """The numbers of a nested object by their dotted paths: of ``{"load_avg": {"1min": 3}}`` ``load_avg.1min``."""
    found = list[tuple[str, float]]()
    left = [("", reading)]
    while left:
        path, value = left.pop()
        if isinstance(value, dict):
            left += [(f"{path}.{key}" if path else str(key), part) for key, part in value.items()]
        elif isinstance(value, int | float) and path:
            found.append((path, value))
    return found[::-1]
