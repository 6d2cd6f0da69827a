"""What a rule would have done: the same as ``rules.step``, moment by moment, over what is stored."""

import random
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app import db
from app.alerts import rules
from app.alerts.preview import Span, intervals
from app.alerts.rules import Rule, Standing
from app.clock import now, rfc3339
from tests.alerts.watched import RULE, Watched

T0 = datetime(2026, 1, 1, tzinfo=now().tzinfo)
GRID = 15


@pytest.fixture
def watched(api: Any, org: UUID) -> Watched:
    return Watched(api, org)


def minutes(watched: Watched, points: list[tuple[datetime, float]], tags: str = "") -> None:
    """One-minute roll-ups whose last values these are."""
    device = watched.devices[0]
    with db.transaction(watched.org) as session:
        series = session.execute(
            text(
                "INSERT INTO metric_series (org_id, device_id, name, tags_key) VALUES (:org, :device, 'temperature', "
                ":tags) RETURNING id"
            ),
            {"org": watched.org, "device": device.id, "tags": tags},
        ).scalar()
        session.execute(
            text(
                "INSERT INTO metric_points_1m (org_id, series_id, time, count, sum, min, max, last, last_at) "
                "VALUES (:org, :series, :time, 1, :value, :value, :value, :value, :time)"
            ),
            [{"org": watched.org, "series": series, "time": at, "value": value} for at, value in points],
        )


def stepped(
    points: list[tuple[datetime, float]], rule: Rule, finish: datetime
) -> list[tuple[datetime, datetime | None]]:
    """Naively: look every 15 s at the newest value."""
    found: list[tuple[datetime, datetime | None]] = []
    standing: Standing | None = None
    moment = points[0][0]
    while moment < finish:
        newest = max((point for point in points if point[0] <= moment), key=lambda point: point[0])
        fresh = [newest[1]] if moment - newest[0] < rule.stale else []
        before, standing = standing, rules.step(standing, rules.verdict(rule, fresh), rule, moment)
        fired, fires = (one is not None and one.state == "firing" for one in (before, standing))
        if fires and not fired:
            found.append((moment, None))
        if fired and not fires:
            found[-1] = (found[-1][0], moment)
        moment += timedelta(seconds=GRID)
    return found


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("no_data", rules.NO_DATA)
def test_a_preview_is_what_step_gives(api: Any, org: UUID, seed: int, no_data: str) -> None:
    watched, chance = Watched(api, org), random.Random(seed)
    rule = {"threshold": 80, "clear_threshold": 75, "for_seconds": chance.choice([0, 60, 150]), "no_data": no_data}
    begin = now().replace(second=0, microsecond=0) - timedelta(hours=5)
    times = sorted(chance.sample(range(240), 90))
    points = [(begin + timedelta(minutes=minute), float(chance.choice([70, 78, 85]))) for minute in times]
    minutes(watched, points)
    watched.sql("UPDATE devices SET created_at = :at WHERE org_id = :org", at=begin + timedelta(hours=4), org=org)
    answer = api.post("/alerts/preview?days=1", {**RULE, **rule}, expect=200)
    expected = stepped(points, Rule(**rule), datetime.fromisoformat(answer["to"]))
    found = [one for subject in answer["subjects"] for one in subject["intervals"]][-20:]
    shown = [(one["firing_at"], one["resolved_at"]) for one in found]
    assert shown == [(rfc3339(fired), over and rfc3339(over)) for fired, over in expected][-20:]
    assert answer["fired"] == len(expected)


def test_intervals() -> None:
    def span(start: int, end: int, verdict: str) -> Span:
        return Span(T0 + timedelta(seconds=start), T0 + timedelta(seconds=end), verdict)

    spans = [span(0, 60, "breached"), span(60, 90, "cleared"), span(90, 151, "breached"), span(151, 200, "holding")]
    (only,) = intervals(spans, Rule(for_seconds=60))
    assert only.since == T0 + timedelta(seconds=90)  # the first was over when it would have fired
    assert (only.firing_at, only.resolved_at) == (T0 + timedelta(seconds=150), None)


def test_nothing_is_kept(watched: Watched) -> None:
    before = watched.sql("SELECT count(*) FROM alert_rules WHERE org_id = :org", org=watched.org).scalar()
    answer = watched.api.post("/alerts/preview", RULE, expect=200)
    assert (answer["fired"], answer["watched"], answer["matching"]) == (0, 1, 1)
    assert watched.sql("SELECT count(*) FROM alert_rules WHERE org_id = :org", org=watched.org).scalar() == before
    assert "threshold" in watched.api.post("/alerts/preview", {**RULE, "threshold": None}, expect=400)["details"]


def test_offline_devices(watched: Watched) -> None:
    moments = [("device.disconnected", 7200), ("device.connected", 7000), ("device.disconnected", 5000),
               ("device.connected", 1400)]  # fmt: skip
    for kind, ago in moments:
        watched.sql(
            "INSERT INTO log_entries (org_id, device_id, time, level, source, kind, message) "
            "VALUES (:org, :device, now() - make_interval(secs => :ago), 1, 'platform', :kind, 'x')",
            org=watched.org, device=watched.devices[0].id, kind=kind, ago=ago,
        )  # fmt: skip
    body = {"name": "gone", "type": "device_offline", "for_seconds": 600}
    (subject,) = watched.api.post("/alerts/preview", body, expect=200)["subjects"]
    assert (subject["fired"], subject["firing_seconds"]) == (1, 3000)
    body["for_seconds"] = 0
    (subject,) = watched.api.post("/alerts/preview", body, expect=200)["subjects"]
    assert (subject["fired"], subject["firing_seconds"]) == (2, 3800)


def test_log_matches(watched: Watched) -> None:
    for ago in (1000, 990, 980, 500):
        watched.log("valve stuck", watched.devices[0])
        watched.sql(
            "UPDATE log_entries SET received_at = now() - make_interval(secs => :ago) "
            "WHERE org_id = :org AND received_at > now() - interval '1 minute'", org=watched.org, ago=ago,
        )  # fmt: skip
    body = {"name": "stuck", "type": "log_match", "query": {"q": "valve"}, "threshold": 3, "for_seconds": 60}
    (subject,) = watched.api.post("/alerts/preview", body, expect=200)["subjects"]
    assert subject["fired"] == 1
    assert 39 <= subject["firing_seconds"] <= 40
