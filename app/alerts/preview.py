"""When a rule would have fired: ``rules.step`` over what is stored."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from app import db
from app.alerts import rules, service
from app.alerts.preview_queries import CHANGES, MATCHING
from app.alerts.rules import Rule, Standing
from config.settings import settings

WATCHED = 200  # devices; a week of one is 10,000 values
ENTRIES = 100_000  # log entries, the newest
SHOWN = 100  # subjects
SHOWN_INTERVALS = 20


@dataclass(frozen=True)
class Span:
    """From ``start`` until ``end`` a subject had one verdict."""

    start: datetime
    end: datetime
    verdict: str


@dataclass(frozen=True)
class Interval:
    """An alert: the condition held since, it fired, and it was over (None: not yet)."""

    since: datetime
    firing_at: datetime
    resolved_at: datetime | None


def intervals(spans: Iterable[Span], rule: Rule) -> list[Interval]:
    """The alerts that ``step`` makes of spans that follow one another."""
    found: list[Interval] = []
    standing: Standing | None = None
    fired: datetime | None = None
    for span in spans:
        before, standing = standing, rules.step(standing, span.verdict, rule, span.start)
        if fired and standing is None:
            assert before is not None
            found.append(Interval(before.since, fired, span.start))
            fired = None
        if fired is None and standing and span.verdict == rules.BREACHED:
            moment = max(span.start, standing.since + rule.wait)
            if moment < span.end:
                fired, standing = moment, Standing("firing", standing.since)
    if fired and standing:
        found.append(Interval(standing.since, fired, None))
    return found


def preview(org_id: UUID, given: dict[str, Any], *, days: int) -> dict[str, Any]:
    """When the rule of a creating request would have fired within the last days. Raises ValidationFailed."""
    given = {name: value for name, value in given.items() if name != "channels"}
    columns = service.checked(org_id, given)
    finish: datetime = db.session.scalar(select(func.now()))  # type: ignore[assignment]
    begin = finish - timedelta(days=days)
    values = {"org": org_id, "begin": begin, "finish": finish, **_values(columns)}
    rows = db.session.execute(CHANGES[columns["type"]], values).all()
    rule = _rule(columns)
    subjects = [
        _subject(list(changes), rule, begin, finish) for _key, changes in groupby(rows, lambda row: row.subject)
    ]
    fired = sorted((one for one in subjects if one["fired"]), key=lambda one: (-one["fired"], one["subject"]))
    matching = len(subjects)
    if columns["type"] != "deployment_failed":
        matching = db.session.scalar(MATCHING, {"org": org_id, "rule": values["rule"]})
    return {
        "from_": begin,
        "to": finish,
        "watched": min(matching, WATCHED) if columns["type"] != "deployment_failed" else matching,
        "matching": matching,
        "fired_subjects": len(fired),
        "fired": sum(one["fired"] for one in fired),
        "subjects": fired[:SHOWN],
    }


def _values(columns: dict[str, Any]) -> dict[str, Any]:
    """What the statement of a type is told of the rule."""
    deciding = ("type", "target", "for_seconds", "no_data", *rules.SPECIAL)
    told: dict[str, Any] = {"rule": db.as_json({name: columns.get(name) for name in deciding}), "most": WATCHED}
    if columns["type"] == "device_offline":
        told["offline_after"] = settings().offline_after
    if columns["type"] == "log_match":
        told["entries"] = ENTRIES
    return told


def _rule(columns: dict[str, Any]) -> Rule:
    return Rule(
        for_seconds=0 if columns["type"] == "log_match" else columns["for_seconds"],
        no_data=columns.get("no_data") or "keep",
    )


def _subject(changes: list[Any], rule: Rule, begin: datetime, finish: datetime) -> dict[str, Any]:
    first = changes[0]
    known = [change for change in changes if change.start is not None]
    found = intervals(_spans(known, first.known_from, rule, begin, finish), rule)
    return {
        "subject": first.subject,
        "device_id": first.device_id,
        "device_name": first.name if first.device_id else None,
        "deployment_id": first.deployment_id,
        "fired": len(found),
        "firing_seconds": int(sum(((one.resolved_at or finish) - one.firing_at).total_seconds() for one in found)),
        "intervals": found[-SHOWN_INTERVALS:],
    }


def _spans(
    changes: list[Any], known_from: datetime | None, rule: Rule, begin: datetime, finish: datetime
) -> Iterator[Span]:
    """The verdicts from ``begin`` to ``finish``, with the silences between them."""
    silent = rules.verdict(rule, [])
    told = max(begin, known_from) if known_from else None
    for number, change in enumerate(changes):
        following = changes[number + 1].start if number + 1 < len(changes) else finish
        start, end = max(change.start, begin), min(following, change.until or following, finish)
        if told and told < start:
            yield Span(told, start, silent)
        if start < end:
            yield Span(start, end, change.verdict)
        told = max(start, end)
    if told and told < finish:
        yield Span(told, finish, silent)
