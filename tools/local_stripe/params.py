"""Form bodies as Stripe takes them: ``items[0][price]=…&expand[]=…&metadata[a]=b``."""

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

from tools.local_stripe import errors

_KEY = re.compile(r"\[([^\]]*)\]")
_FREE_FORM = ("metadata", "payload")  # their keys are the caller's, numbers among them


class Params:
    """Parameters of one request. Values are text until asked for as something else; ``""`` unsets, as at Stripe."""

    def __init__(self, values: dict[str, Any], prefix: str = "") -> None:
        self.values, self._prefix = values, prefix

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def __iter__(self) -> Iterator[str]:
        return iter(self.values)

    def name(self, name: str) -> str:
        """The parameter's full name for an error: ``items[0][price]``."""
        return f"{self._prefix}[{name}]" if self._prefix else name

    def allow(self, names: Iterable[str]) -> None:
        """Raises parameter_unknown for any other."""
        for name in sorted(set(self.values) - set(names)):
            full = self.name(name)
            raise errors.malformed(f"Received unknown parameter: {full}", full, "parameter_unknown")

    def text(self, name: str, default: str | None = None) -> str | None:
        """None where it is not there or empty."""
        value = self.values.get(name)
        if value is None or value == "":
            return default
        if not isinstance(value, str):
            raise errors.malformed("Invalid string", self.name(name))
        return value

    def required(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            raise errors.missing(self.name(name))
        return value

    def choice(self, name: str, choices: Iterable[str], default: str) -> str:
        value = self.text(name, default) or default
        if value not in (choices := tuple(choices)):
            raise errors.malformed(f"Invalid {name}: must be one of {', '.join(choices)}", self.name(name))
        return value

    def integer(self, name: str, default: int | None = None) -> int | None:
        value = self.text(name)
        if value is None:
            return default
        if not re.fullmatch(r"-?\d{1,18}", value):
            raise errors.malformed(f"Invalid integer: {value}", self.name(name), "parameter_invalid_integer")
        return int(value)

    def boolean(self, name: str, default: bool = False) -> bool:
        value = self.text(name)
        if value is None:
            return default
        if value not in ("true", "false"):
            raise errors.malformed(f"Invalid boolean: {value}", self.name(name))
        return value == "true"

    def nested(self, name: str) -> "Params":
        """An object parameter; an empty one where it is not there."""
        value = self.values.get(name) or {}
        if not isinstance(value, dict):
            raise errors.malformed("Invalid object", self.name(name))
        return Params(value, self.name(name))

    def objects(self, name: str) -> list["Params"]:
        """An array of objects."""
        value = self.values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise errors.malformed("Invalid array", self.name(name))
        return [Params(item, f"{self.name(name)}[{index}]") for index, item in enumerate(value)]

    def texts(self, name: str) -> list[str]:
        """An array of strings."""
        value = self.values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise errors.malformed("Invalid array", self.name(name))
        return list(value)

    def metadata(self, before: dict[str, str] | None = None) -> dict[str, str]:
        """``before`` with the keys given merged in: an empty value removes one, an empty parameter all."""
        if self.values.get("metadata") == "":
            return {}
        merged = {**(before or {}), **self.nested("metadata").values}
        return {key: value for key, value in merged.items() if value != ""}


def parse(encoded: str) -> Params:
    """Raises ParameterError for what does not nest."""
    values: dict[str, Any] = {}
    for key, value in parse_qsl(encoded, keep_blank_values=True):
        _insert(values, [key.partition("[")[0], *_KEY.findall(key)], value)
    return Params({name: value if name in _FREE_FORM else _arrays(value) for name, value in values.items()})


def _insert(values: dict[str, Any], path: list[str], value: str) -> None:
    for step in path[:-1]:
        step = step or str(len(values))
        values = values.setdefault(step, {})
        if not isinstance(values, dict):
            raise errors.malformed(f"Invalid parameter: {'.'.join(path)}", path[0])
    values[path[-1] or str(len(values))] = value


def _arrays(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    items = {key: item if key in _FREE_FORM else _arrays(item) for key, item in value.items()}
    if items and all(key.isdecimal() for key in items):
        return [items[key] for key in sorted(items, key=int)]
    return items
