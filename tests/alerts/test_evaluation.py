"""Evaluations beside each other, cut off, and against a naive twin."""

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app import db
from app.alerts import evaluate, rules
from app.alerts.rules import Rule, Standing
from app.clock import now
from tests.alerts.watched import Watched, tick
from tests.statements import counted


@pytest.fixture
def watched(api: Any, org: UUID) -> Watched:
    return Watched(api, org)


def due_now() -> None:
    with db.transaction(system=True) as session:
        session.execute(text("UPDATE alert_rules SET next_evaluation_at = now() - interval '1 second' WHERE enabled"))


def only_of(org_id: UUID) -> None:
    """The rules of other tests rest."""
    with db.transaction(system=True) as session:
        statement = "UPDATE alert_rules SET next_evaluation_at = now() + interval '1 hour' WHERE org_id <> :org"
        session.execute(text(statement), {"org": org_id})


def together(count: int, work: Callable[[], None]) -> None:
    """Run it in so many threads at once; raises what one of them raised."""
    errors: list[BaseException] = []
    gate = threading.Barrier(count)

    def run() -> None:
        gate.wait()
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def one_batch() -> None:
    with db.transaction(system=True):
        evaluate.carry_on(evaluate.take(2))


def test_evaluations_at_once_share_the_rules(api: Any, org: UUID) -> None:
    watched = Watched(api, org, 3)
    made = [watched.rule() for _ in range(8)]
    for device in watched.devices:
        watched.send(99, device)
    due_now()
    only_of(org)
    for _ in range(3):
        together(4, one_batch)
    assert [len(watched.alerts(rule)) for rule in made] == [3] * 8
    assert [watched.kinds(rule) for rule in made] == [["firing"] * 3] * 8


def test_a_rule_that_somebody_holds_is_passed_over(watched: Watched) -> None:
    made = watched.rule()
    watched.send(99)
    due_now()
    with db.transaction(system=True):
        assert UUID(made["id"]) in evaluate.take(10_000)["metric"]
        others: list[Any] = []
        thread = threading.Thread(target=lambda: others.append(_taken()))
        thread.start()
        thread.join()
        assert made["id"] not in others[0]


def _taken() -> set[str]:
    with db.transaction(system=True):
        return {str(rule_id) for ids in evaluate.take(10_000).values() for rule_id in ids}


def test_the_database_allows_one_open_alert_of_a_subject(watched: Watched) -> None:
    made = watched.rule()
    insert = (
        "INSERT INTO alerts (org_id, rule_id, subject, state, since) VALUES (:org, :rule, 'x', :state, now()) "
        "ON CONFLICT (rule_id, subject) WHERE state IN ('pending', 'firing') DO NOTHING"
    )
    for state in ("pending", "firing", "resolved", "resolved"):
        watched.sql(insert, org=watched.org, rule=UUID(made["id"]), state=state)
    assert sorted(alert.state for alert in watched.alerts(made)) == ["pending", "resolved", "resolved"]


def test_the_rules_of_an_evaluation_that_died_are_due_again_at_once(watched: Watched) -> None:
    made = watched.rule()
    watched.send(99)
    due_now()

    def cut_off() -> None:
        with db.transaction(system=True):
            evaluate.carry_on(evaluate.take(10_000))
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        cut_off()
    assert watched.alerts(made) == []
    with db.transaction(system=True):
        evaluate.carry_on(evaluate.take(10_000))
    assert watched.kinds(made) == ["firing"]


def test_a_rule_is_evaluated_once_a_tick(watched: Watched) -> None:
    made = watched.rule()
    tick()
    assert made["id"] not in _taken()


def test_many_rules_are_one_statement(watched: Watched) -> None:
    """Set-wise: three times the rules and devices ask the database for nothing more."""
    sent = []
    for _ in range(2):
        for _ in range(3):
            watched.rule()
        with counted() as seen:
            tick()
        sent.append(len(seen))
    assert sent[0] == sent[1] > 0


class Twin:
    """The rule over one device, step by step in plain Python, at a clock of its own."""

    def __init__(self, rule: Rule) -> None:
        self.rule, self.now = rule, now()
        self.standing: Standing | None = None
        self.values: dict[str, tuple[datetime, float]] = {}
        self.history: list[str] = []

    def send(self, value: float, tags: str) -> None:
        self.values[tags] = (self.now, value)

    def after(self, seconds: int) -> str:
        self.now += timedelta(seconds=seconds)
        fresh = [value for at, value in self.values.values() if self.now - at < self.rule.stale]
        before = self.standing
        self.standing = rules.step(before, rules.verdict(self.rule, fresh), self.rule, self.now)
        fired = before is not None and before.state == "firing"
        fires = self.standing is not None and self.standing.state == "firing"
        if fired != fires:
            self.history.append("firing" if fires else "resolved")
        return self.standing.state if self.standing else "ok"


ruled = st.fixed_dictionaries(
    {
        "condition": st.sampled_from(sorted(rules.CONDITIONS)),
        "threshold": st.integers(0, 4),
        "for_seconds": st.sampled_from([0, 15, 40, 150]),
        "no_data": st.sampled_from(rules.NO_DATA),
        "slack": st.integers(0, 2),
    }
)
histories = st.lists(
    st.tuples(st.sampled_from([0, 15, 15, 30, 290, 300, 600]), st.lists(st.tuples(st.integers(0, 4), st.booleans()))),
    min_size=3,
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=ruled, history=histories)
def test_sql_and_the_pure_twin_agree(
    watched: Watched, fields: dict[str, Any], history: list[tuple[int, list[tuple[int, bool]]]]
) -> None:
    given_rule = dict(fields)
    slack = given_rule.pop("slack")
    if given_rule["condition"] in ("gt", "gte"):
        given_rule["clear_threshold"] = given_rule["threshold"] - slack
    if given_rule["condition"] in ("lt", "lte"):
        given_rule["clear_threshold"] = given_rule["threshold"] + slack
    watched.sql("DELETE FROM alert_rules WHERE org_id = :org", org=watched.org)
    watched.sql("DELETE FROM metric_series WHERE org_id = :org", org=watched.org)
    watched.pass_time(10_000)  # the device is no new one
    made, twin = watched.rule(**given_rule), Twin(Rule(**given_rule))
    states = []
    for seconds, values in history:
        for value, tagged in values:
            tags = '{"core":"1"}' if tagged else ""
            watched.send(value, tags=tags)
            twin.send(value, tags)
        states.append((watched.after(seconds).state(made), twin.after(seconds)))
    assert [stored for stored, _ in states] == [pure for _, pure in states]
    assert watched.kinds(made) == twin.history
