"""The plans there are, as ``config/plans.toml`` (EDGEFLOW_PLANS_FILE) has them.

A file that cannot be used ends the start, as a setting does: sold by mistake, a plan costs more than a restart.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import marshmallow
from marshmallow import ValidationError, validate
from marshmallow.fields import Integer, Nested, String

from config.settings import SettingsError, settings

ROOT = Path(__file__).parents[1]
DEFAULT = "free"
QUOTAS = ("devices", "flows", "members", "deployments_per_month", "metric_points_per_day")
UNLIMITED = "unlimited"
MOST = 2**53 - 1  # what every reader of JSON takes for the same number
MOST_TRIAL_DAYS = 730  # Stripe: a trial lasts at most two years
MOST_DAYS = 36_500


@dataclass(frozen=True)
class Price:
    """For one ``interval`` (month or year): ``amount`` in the least unit of ``currency`` (ISO 4217, lower case).

    ``stripe_price`` is Stripe's id of it.
    """

    amount: int
    currency: str
    interval: str
    stripe_price: str


@dataclass(frozen=True)
class Retention:
    """How long things are kept, and answered."""

    raw: timedelta
    minutes: timedelta
    hours: timedelta
    logs: timedelta


@dataclass(frozen=True)
class Plan:
    """``id`` is what an organization's row says, ``name`` what people read.

    ``price`` is None for one that is not sold. ``quotas`` has every name of ``QUOTAS``; None is unlimited.
    """

    id: str
    name: str
    price: Price | None
    trial_days: int
    quotas: Mapping[str, int | None]
    retention: Retention


@cache
def plans() -> dict[str, Plan]:
    """The plans of this process by id, the smallest first, read once. Raises SettingsError."""
    return load(settings().plans_file)


def plans_or_exit() -> dict[str, Plan]:
    """For entry points: ``plans``, or the end of the process with the one line that tells why (code 1)."""
    try:
        return plans()
    except SettingsError as error:
        raise SystemExit(f"cannot start: {error}") from None


def load(file: Path) -> dict[str, Plan]:
    """The plans of a file (from the project's folder). Raises SettingsError with one line that names file and key."""
    path = ROOT / file
    try:
        read = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"EDGEFLOW_PLANS_FILE: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # neither UTF-8 nor TOML
        raise SettingsError(f"{path}: is no TOML: {' '.join(str(error).split())}") from None
    try:
        found = {key: _plan(key, values) for key, values in read.items()}
        _demand_sense(found)
    except ValidationError as error:
        raise SettingsError(f"{path}: {_first(error.messages)}") from None
    return found


class _Table(marshmallow.Schema):
    class Meta:
        unknown = marshmallow.RAISE

    error_messages = {"unknown": "there is no such key", "type": "must be a table"}


def _words(meaning: str) -> dict[str, Any]:
    return {"required": "is missing", "invalid": meaning, "null": meaning}


def _text(pattern: str, meaning: str) -> String:
    return String(required=True, validate=validate.Regexp(pattern, error=meaning), error_messages=_words(meaning))


def _whole(least: int, most: int, **options: Any) -> Integer:
    return _integer(least, most, f"must be a whole number between {least} and {most}", **options)


def _quota() -> Integer:
    meaning = f'must be a whole number between 0 and {MOST}, or "{UNLIMITED}"'
    return _integer(0, MOST, meaning, allow_none=True, load_default=None)


def _integer(least: int, most: int, meaning: str, **options: Any) -> Integer:
    within = validate.Range(least, most, error=meaning)
    return Integer(strict=True, pre_load=_numeral, validate=within, error_messages=_words(meaning), **options)


def _numeral(value: Any) -> Any:
    """As read, but no limit is None, and a flag a text: Python takes it for the whole number 1 or 0."""
    if value == UNLIMITED:
        return None
    return str(value) if isinstance(value, bool) else value


def _table(schema: type[marshmallow.Schema], **options: Any) -> Nested:
    return Nested(schema, error_messages={"required": "is missing", "type": "must be a table"}, **options)


class _PriceTable(_Table):
    amount = _whole(1, MOST, required=True)
    currency = _text(r"[a-z]{3}\Z", "must be a currency's ISO 4217 code in lower case, like `eur`")
    interval = _text(r"(month|year)\Z", "must be month or year")
    stripe_price = _text(r"\w{1,255}\Z", "must be the id of a price at Stripe, like `price_…`")


_QuotaTable = _Table.from_dict({name: _quota() for name in QUOTAS})
_RetentionTable = _Table.from_dict({item.name: _whole(1, MOST_DAYS, required=True) for item in fields(Retention)})


class _PlanTable(_Table):
    name = _text(r"\S(.{0,98}\S)?\Z", "must be a text of at most 100 characters")
    price = _table(_PriceTable, load_default=None)
    trial_days = _whole(0, MOST_TRIAL_DAYS, load_default=0)
    quotas = _table(_QuotaTable, load_default=lambda: dict.fromkeys(QUOTAS))
    retention = _table(_RetentionTable, required=True)


def _plan(key: str, values: Any) -> Plan:
    """One plan of the file. Raises ValidationError, whose messages are by the file's keys."""
    try:
        read: Any = _PlanTable().load(values)
    except ValidationError as error:
        raise ValidationError({key: error.messages}) from None
    kept = Retention(**{kind: timedelta(days=days) for kind, days in read["retention"].items()})
    price = Price(**read["price"]) if read["price"] else None
    return Plan(key, read["name"], price, read["trial_days"], read["quotas"], kept)


def _demand_sense(found: dict[str, Plan]) -> None:
    """What no single plan can tell. Raises ValidationError."""
    if DEFAULT not in found:
        raise ValidationError({DEFAULT: ["is missing: it holds where there is no subscription"]})
    if found[DEFAULT].price:
        raise ValidationError({DEFAULT: {"price": ["must be absent: nobody subscribes to this plan"]}})
    sold: set[str] = set()
    for one in found.values():
        if one.trial_days and not one.price:
            raise ValidationError({one.id: {"trial_days": ["wants a price"]}})
        if one.price and one.price.stripe_price in sold:
            raise ValidationError({one.id: {"price": {"stripe_price": ["is another plan's, too"]}}})
        sold |= {one.price.stripe_price} if one.price else set()


def _first(messages: Any) -> str:
    """``pro.price.amount: must be …``"""
    return next(_lines(messages, ()))


def _lines(messages: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(messages, dict):
        for key, inner in messages.items():
            yield from _lines(inner, path if key == "_schema" else (*path, str(key)))
    else:
        yield f"{'.'.join(path)}: {messages[0]}"
