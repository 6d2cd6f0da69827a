"""What the cloud may change on a device while it runs: by `configure` or through the shadow's desired state."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agent import storage
from agent.hosts import ForbiddenHost, Hosts
from agent.protocol import INVALID_PAYLOAD, CommandError

REPORTED = ("heartbeat_interval", "log_level", "report_interval", "telemetry_interval")
LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
MAX_KEYS = 100
LOOPBACK = Hosts()


class Settings:
    """A small dictionary of settings, checked, kept on disk when it has a path, that tells who listens.

    `hosts`: where `local_url` may lead.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.hosts = LOOPBACK
        self._path = path
        self._values: dict[str, Any] = (storage.read_json(path) or {}) if path else {}
        self._listeners: list[Callable[[], None]] = []

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` after every change."""
        self._listeners.append(listener)

    def get(self, key: str) -> Any:
        """One setting, None when it is not set."""
        return self._values.get(key)

    def all(self) -> dict[str, Any]:
        """Every setting, as a copy."""
        return dict(self._values)

    def apply(self, changes: dict[str, Any]) -> None:
        """Take over `changes` (None removes a key); raises CommandError INVALID_PAYLOAD and then changes nothing."""
        checked = {key: self._check(key, value) for key, value in changes.items()}
        merged = {key: value for key, value in {**self._values, **checked}.items() if value is not None}
        if len(merged) > MAX_KEYS:
            raise CommandError(INVALID_PAYLOAD, f"more than {MAX_KEYS} settings")
        if merged == self._values:
            return
        if self._path:
            storage.write_json(self._path, merged)
        self._values = merged
        for listener in self._listeners:
            listener()

    def _check(self, key: str, value: Any) -> Any:
        checked = check(key, value)
        if key == "local_url" and checked is not None:
            try:
                self.hosts.check(checked)
            except ForbiddenHost as error:
                raise CommandError(INVALID_PAYLOAD, f"local_url: {error}") from error
        return checked

    def understood(self, desired: dict[str, Any]) -> dict[str, Any]:
        """The part of `desired` that this device understands and has taken over: what it may report."""
        taken = {}
        for key in REPORTED:
            if desired.get(key) is None:
                continue
            try:
                self.apply({key: desired[key]})
                taken[key] = desired[key]
            except CommandError as error:
                logging.getLogger("agent.shadow").warning("desired %s is not taken over: %s", key, error)
        return taken


def check(key: str, value: Any) -> Any:
    """The value if `key` may have it; raises CommandError INVALID_PAYLOAD."""
    if value is None:
        return None
    rule = CHECKS.get(key)
    if rule and not rule[0](value):
        raise CommandError(INVALID_PAYLOAD, f"{key} must be {rule[1]}")
    return value


def _is_url(value: Any) -> bool:
    if not isinstance(value, str) or len(value) > 2000:
        return False
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


def _is_interval(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 1 <= value <= 3600


def _is_interval_or_none(value: Any) -> bool:
    return _is_interval(value) or (value == 0 and not isinstance(value, bool))


CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "heartbeat_interval": (_is_interval, "a number of seconds from 1 to 3600"),
    "report_interval": (_is_interval, "a number of seconds from 1 to 3600"),
    "telemetry_interval": (_is_interval_or_none, "a number of seconds from 1 to 3600, or 0"),
    "log_level": (lambda value: isinstance(value, str) and value.upper() in LEVELS, f"one of {', '.join(LEVELS)}"),
    "server_url": (_is_url, "an http(s) URL"),
    "local_url": (_is_url, "an http(s) URL"),
}
