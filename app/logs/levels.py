"""How grave a log entry is: four levels, and whatever else agents and their libraries call them."""

from typing import Any

from app.journal import LEVELS

DEBUG, INFO, WARNING, ERROR = range(len(LEVELS))

_NAMES = {
    **dict.fromkeys(("trace", "verbose", "debug", "fine", "finer", "finest"), DEBUG),
    **dict.fromkeys(("info", "information", "informational", "notice", "log", "success", "ok"), INFO),
    **dict.fromkeys(("warning", "warn"), WARNING),
    **dict.fromkeys(
        ("error", "err", "fatal", "critical", "crit", "severe", "alert", "emerg", "emergency", "panic"), ERROR
    ),
}
_INITIALS = {"t": DEBUG, "d": DEBUG, "v": DEBUG, "i": INFO, "n": INFO, "w": WARNING, "e": ERROR, "c": ERROR, "f": ERROR}
_SYSLOG = (ERROR, ERROR, ERROR, ERROR, WARNING, INFO, INFO, DEBUG)  # RFC 5424: 0 is an emergency, 7 debugging


def grade(level: Any) -> int | None:
    """The place in ``LEVELS`` of what somebody calls a level; None for what is none.

    Names in any case, their initials, syslog's severities 0 to 7, and the numbers of Python's logging (10 to 50).
    """
    if isinstance(level, str):
        word = level.strip().lower()
        if word in _NAMES:
            return _NAMES[word]
        return _INITIALS.get(word) if not word.isdecimal() or len(word) > 9 else _of_number(int(word))
    if isinstance(level, bool) or not isinstance(level, int | float):
        return None
    return _of_number(level)


def _of_number(level: float) -> int | None:
    if level in range(len(_SYSLOG)):
        return _SYSLOG[int(level)]
    if 10 <= level < 1_000:
        return min(int(level) // 10 - 1, ERROR)
    return None
