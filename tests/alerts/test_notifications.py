"""What channels are told of a rule's alerts: once, together, in order, again when it failed, and no more when seen."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app import db, jobs
from app.alerts import channels, delivery, notifications
from app.alerts.channels import email, webhook
from app.alerts.channels.outcome import Outcome
from app.alerts.models import AlertRule
from app.clock import now
from tests import make
from tests.alerts import rows
from tests.alerts.receivers import MailServer, Receiver, status
from workers import notifications as actors

pytestmark = pytest.mark.usefixtures("private_targets")


def hook(receiver: Receiver, path: str = "") -> dict[str, Any]:
    return {"type": "webhook", "url": f"{receiver.url}{path}"}


def plan(made: AlertRule) -> int:
    with db.transaction(made.org_id):
        return notifications.plan_for(made.org_id, made.id)


def tell(made: AlertRule) -> int:
    """Plan and send."""
    planned = plan(made)
    assert not delivery.deliver(made.org_id)
    return planned


def kinds(receiver: Receiver) -> list[str]:
    return [request.json["kind"] for request in receiver.requests]


def in_system(ask: Callable[[], Any]) -> Any:
    with db.transaction(system=True):
        return ask()


def test_many_alerts_are_one_message_for_each_channel(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver, "/a"), hook(receiver, "/b"))
    rows.fire(rule, 500)
    assert tell(rule) == 2
    assert sorted(request.path for request in receiver.requests) == ["/hook/a", "/hook/b"]
    first, second = receiver.requests
    assert first.delivery != second.delivery
    told = first.json
    assert told["id"] == first.delivery
    assert (told["kind"], told["count"], told["more"]) == ("firing", 500, 490)
    assert told["title"] == "[firing] Pump too hot: pump-000 and 499 more"
    assert [alert["device_name"] for alert in told["alerts"]] == [f"pump-{number:03}" for number in range(10)]
    assert told["alerts"][0]["value"] == 81.5
    assert told["rule"]["id"] == str(rule.id)
    assert (told["rule"]["metric"], told["rule"]["threshold"], told["rule"]["severity"]) == (
        "temperature", 80.0, "critical",
    )  # fmt: skip
    assert first.is_signed_with(channels.opened(rule.channels[0 if first.path.endswith("a") else 1]).secret or "")


def test_a_job_that_runs_again_tells_nothing_twice(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule, 3)
    assert [tell(rule) for _ in range(3)] == [1, 0, 0]
    assert kinds(receiver) == ["firing"]


def test_jobs_that_run_at_once_tell_nothing_twice(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver))
    for turn in range(5):
        ids = rows.fire(rule, 20, name=f"turn-{turn}")
        with ThreadPoolExecutor(8) as pool:
            planned = list(pool.map(lambda _: plan(rule), range(8)))
            assert sum(planned) == 1, planned
            list(pool.map(lambda _: delivery.deliver(org), range(8)))
        rows.resolve(rule, ids)
        rows.age(rule, 61)
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(lambda _: plan(rule), range(8))) == 1
            list(pool.map(lambda _: delivery.deliver(org), range(8)))
        rows.age(rule, 61)
    assert len(receiver.deliveries) == len(set(receiver.deliveries)) == 10
    assert [request.json["count"] for request in receiver.requests] == [20] * 10


def test_a_job_waits_for_what_another_is_about_to_tell(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule)
    with ThreadPoolExecutor(1) as pool:
        with db.transaction(org):
            assert notifications.plan_for(org, rule.id) == 1
            pool.submit(rows.fire, rule, name="meanwhile").result(10)
            other = pool.submit(plan, rule)
            threading.Event().wait(0.3)
            assert not other.done()
        assert other.result(10) == 0
    rows.age(rule, 61)
    assert plan(rule) == 1


def test_over_is_told_once_and_only_of_what_was_told(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver))
    told = rows.fire(rule, 2)
    tell(rule)
    short = rows.fire(rule, 1, name="short")
    rows.resolve(rule, short)  # over before anybody heard of it
    rows.resolve(rule, told)
    assert [tell(rule) for _ in range(2)] == [1, 0]
    assert kinds(receiver) == ["firing", "resolved"]
    assert receiver.requests[1].json["count"] == 2
    assert receiver.requests[1].json["alerts"][0]["resolved_at"] is not None


def test_what_fires_soon_after_is_gathered(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule, 1)
    tell(rule)
    for number in range(3):
        rows.fire(rule, 1, name=f"later-{number}")
        assert tell(rule) == 0
        assert (org, rule.id) not in in_system(notifications.untold)
    rows.age(rule, notifications.GROUP_SECONDS + 1)
    assert (org, rule.id) in in_system(notifications.untold)
    assert tell(rule) == 1
    assert [request.json["count"] for request in receiver.requests] == [1, 3]


def test_a_reminder_comes_until_somebody_acknowledges(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver), repeat_seconds=600)
    ids = rows.fire(rule, 3)
    tell(rule)
    for expected in (2, 3):
        rows.age(rule, 599)
        assert (org, rule.id) not in in_system(notifications.due_reminders)
        assert tell(rule) == 0
        rows.age(rule, 2)
        assert (org, rule.id) in in_system(notifications.due_reminders)
        assert [tell(rule) for _ in range(2)] == [1, 0]
        assert len(receiver.requests) == expected
    assert kinds(receiver)[1:] == ["reminder", "reminder"]
    rows.change(rule, ids[:2], acknowledged_at=now())
    rows.age(rule, 601)
    tell(rule)
    assert receiver.requests[-1].json["count"] == 1
    rows.change(rule, ids, acknowledged_at=now())
    rows.age(rule, 601)
    assert (org, rule.id) not in in_system(notifications.due_reminders)
    assert tell(rule) == 0


def test_without_an_interval_there_is_no_reminder(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver), repeat_seconds=0)
    rows.fire(rule)
    tell(rule)
    rows.age(rule, 100_000)
    assert (org, rule.id) not in in_system(notifications.due_reminders)
    assert tell(rule) == 0


def test_a_silenced_rule_tells_when_its_silence_ends(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver))
    over = rows.fire(rule, 1, name="told")
    tell(rule)
    rows.set_rule(rule, silenced_until=now() + timedelta(hours=1))
    rows.fire(rule, 2, name="silent")
    missed = rows.fire(rule, 1, name="missed")
    rows.resolve(rule, [*over, *missed])
    rows.age(rule, 100_000)
    assert (org, rule.id) not in in_system(notifications.untold) + in_system(notifications.due_reminders)
    assert tell(rule) == 0
    rows.set_rule(rule, silenced_until=now() - timedelta(seconds=1))
    assert (org, rule.id) in in_system(notifications.untold)
    assert tell(rule) == 2
    last = {request.json["kind"]: request.json for request in receiver.requests[1:]}
    assert [alert["device_name"] for alert in last["firing"]["alerts"]] == ["silent-000", "silent-001"]
    assert [alert["device_name"] for alert in last["resolved"]["alerts"]] == ["told-000"]


def test_a_rule_without_channels_tells_once_it_has_one(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org)
    rows.fire(rule)
    assert tell(rule) == 0
    stored, _ = channels.prepare([hook(receiver)])
    rows.set_rule(rule, channels=stored)
    assert tell(rule) == 1


def test_another_tenants_rule_is_out_of_reach(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule)
    stranger = make.organization()
    with db.transaction(stranger):
        assert notifications.plan_for(stranger, rule.id) == 0
    plan(rule)
    delivery.deliver(stranger)
    assert receiver.requests == []


def test_a_failure_is_tried_again_later_and_later_under_one_id(org: UUID, receiver: Receiver) -> None:
    receiver.answers = [status(503), status(500)]
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule)
    tell(rule)
    for failures, pause in ((1, 10), (2, 20)):
        (message,) = rows.notifications(rule)
        assert (message.state, message.failures, message.attempt) == ("queued", failures, failures)
        assert message.next_attempt_at is not None
        assert abs((message.next_attempt_at - now()).total_seconds() - pause) < 3
        delivery.deliver(org)  # not due yet
        assert len(receiver.requests) == failures
        rows.age(rule, pause)
        delivery.deliver(org)
    (message,) = rows.notifications(rule)
    assert (message.state, message.attempt, message.error) == ("delivered", 3, None)
    assert set(receiver.deliveries) == {str(message.id)}
    assert [(one.attempt, one.status_code, one.error) for one in rows.attempts(rule)] == [
        (1, 503, "answered 503"), (2, 500, "answered 500"), (3, 204, None),
    ]  # fmt: skip


def test_the_pauses_double_up_to_an_hour() -> None:
    pauses = [delivery.pause_after(failures) for failures in range(1, 13)]
    assert pauses == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]
    assert delivery.pause_after(10_000) == 3600


def test_after_a_day_it_has_failed(org: UUID, receiver: Receiver) -> None:
    receiver.always = status(500)
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule)
    plan(rule)
    tries = 0
    while rows.notifications(rule)[0].state == "queued":
        delivery.deliver(org)
        tries += 1
        assert len(receiver.requests) == tries < 50
        rows.age(rule, delivery.pause_after(tries))
    (message,) = rows.notifications(rule)
    assert (message.state, message.error, message.next_attempt_at) == ("failed", "answered 500", None)
    elapsed = sum(delivery.pause_after(number) for number in range(1, tries))
    assert 22 * 3600 < elapsed <= 24 * 3600


def test_messages_of_one_channel_stay_in_order(org: UUID, receiver: Receiver) -> None:
    with Receiver() as broken:
        broken.always = status(500)
        rule = rows.rule(org, hook(receiver), hook(broken))
        ids = rows.fire(rule)
        tell(rule)
        rows.resolve(rule, ids)
        tell(rule)
        assert (kinds(receiver), kinds(broken)) == (["firing", "resolved"], ["firing"])
        assert in_system(delivery.due).count(org) == 0  # what waits for another is not due
        broken.always = status(204)
        rows.age(rule, 10)
        delivery.deliver(org)
        assert kinds(broken) == ["firing", "firing", "resolved"]


def test_no_reminder_is_added_to_what_has_not_arrived(org: UUID, receiver: Receiver) -> None:
    receiver.always = status(500)
    rule = rows.rule(org, hook(receiver), repeat_seconds=600)
    rows.fire(rule)
    tell(rule)
    rows.age(rule, 700)
    assert plan(rule) == 0
    assert len(rows.notifications(rule)) == 1


def test_a_channel_that_was_set_right_gets_what_waits(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, {"type": "webhook", "url": "http://127.0.0.1:9/nobody"})
    rows.fire(rule)
    tell(rule)
    stored, _ = channels.prepare([{**channels.masked_one(rule.channels[0]), "url": receiver.url}], rule.channels)
    rows.set_rule(rule, channels=stored)
    rows.age(rule, 10)
    delivery.deliver(org)
    assert kinds(receiver) == ["firing"]


def test_a_channel_that_was_removed_is_left_alone(org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule)
    plan(rule)
    rows.set_rule(rule, channels=[])
    delivery.deliver(org)
    (message,) = rows.notifications(rule)
    assert (message.state, message.error) == ("failed", "the channel was removed from the rule")
    assert receiver.requests == []


def test_a_worker_that_stood_still_neither_sends_nor_overwrites(org: UUID, receiver: Receiver) -> None:
    """R3: its lease is over, another worker has taken the message."""
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule)
    plan(rule)
    with db.transaction(org):
        old = delivery.claim(org)
    assert old is not None
    rows.age(rule, delivery.LEASE_SECONDS + 1)
    delivery.deliver(org)
    assert len(receiver.requests) == 1
    stale = delivery.Claimed(old.id, old.attempt, old.channel, old.payload, send_before=0.0)
    outcome = delivery.send(stale)
    assert not outcome.delivered
    assert len(receiver.requests) == 1
    with db.transaction(org):
        assert delivery.record(org, old, outcome, 5) is None
    (message,) = rows.notifications(rule)
    assert (message.state, message.attempt, message.error) == ("delivered", 2, None)
    lost = rows.attempts(rule)[0]
    assert lost.error == "it is not known whether it arrived: the worker that sent it ended"


def test_of_one_organization_few_messages_are_under_way(org: UUID) -> None:
    """Receivers that never answer take but a few of the threads; another organization's messages go meanwhile."""
    hold, rules = threading.Event(), []
    stuck = Receiver()
    stuck.always = lambda handler: (hold.wait(20), status(204)(handler))[1]
    other = make.organization()
    with stuck, Receiver() as quick, ThreadPoolExecutor(10) as pool:
        for _ in range(6):
            rules.append(rows.rule(org, hook(stuck)))
            rows.fire(rules[-1])
            plan(rules[-1])
        waiting = [pool.submit(delivery.deliver, org) for _ in range(6)]
        until(lambda: len(stuck.requests) == delivery.AT_ONCE)
        mine = rows.rule(other, hook(quick))
        rows.fire(mine)
        tell(mine)
        assert kinds(quick) == ["firing"]
        assert len(stuck.requests) == delivery.AT_ONCE
        hold.set()
        for job in waiting:
            job.result(30)
        assert len(set(stuck.deliveries)) == 6


def test_half_of_the_threads_wait_for_receivers(monkeypatch: pytest.MonkeyPatch, org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule)
    plan(rule)
    with rows.settings_with(monkeypatch, delivery, worker_threads=4), delivery._Slot() as one, delivery._Slot() as two:
        assert (one, two) == (True, True)
        assert not delivery.deliver(org)
        assert receiver.requests == []
        assert org in in_system(delivery.due)
    delivery.deliver(org)
    assert kinds(receiver) == ["firing"]


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    done = threading.Event()
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        done.wait(0.02)
    raise AssertionError("it did not happen in time")


def test_whatever_goes_wrong_in_sending_is_a_failed_try(
    org: UUID, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: Any) -> Outcome:
        raise RuntimeError("with a secret in its text")

    rule = rows.rule(org, hook(receiver))
    rows.fire(rule)
    plan(rule)
    monkeypatch.setattr(webhook, "send", broken)
    delivery.deliver(org)
    (message,) = rows.notifications(rule)
    assert (message.state, message.error) == ("queued", "not sent: RuntimeError")


def test_mail_and_webhook_of_one_rule(org: UUID, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    server = MailServer()
    server.start()
    try:
        rule = rows.rule(org, hook(receiver), {"type": "email", "to": ["ada@example.com"]})
        rows.fire(rule, 12)
        with rows.settings_with(monkeypatch, email, smtp_url=server.url):
            assert tell(rule) == 2
    finally:
        server.stop()
    assert kinds(receiver) == ["firing"]
    ((recipients, mail),) = server.mails
    assert recipients == ["ada@example.com"]
    assert b"Subject: [firing] Pump too hot: pump-000 and 11 more" in mail


def sent_jobs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(jobs, "send", lambda name, *args, **_options: asked.append((name, *args)))
    return asked


def test_the_actors_find_what_lost_jobs_left(org: UUID, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = sent_jobs(monkeypatch)
    rule = rows.rule(org, hook(receiver), repeat_seconds=600)
    rows.fire(rule)
    actors.redrive()
    assert ("alerts.notify", str(org), str(rule.id)) in asked
    actors.notify(str(org), str(rule.id))
    assert asked[-1] == ("alerts.deliver", str(org))
    asked.clear()
    actors.redrive()
    assert ("alerts.deliver", str(org)) in asked
    assert ("alerts.notify", str(org), str(rule.id)) not in asked
    actors.deliver(str(org))
    rows.age(rule, 601)
    asked.clear()
    actors.redrive()
    assert not [one for one in asked if str(org) in one]
    actors.remind()
    assert ("alerts.notify", str(org), str(rule.id)) in asked
    assert kinds(receiver) == ["firing"]


def test_the_log_shows_each_try_and_no_secret(api: Any, org: UUID, receiver: Receiver) -> None:
    receiver.answers = [status(500)]
    rule = rows.rule(org, {**hook(receiver), "url": f"{receiver.url}?key=private"})
    rows.fire(rule, 2)
    tell(rule)
    page = api.get(f"/alerts/{rule.id}/notifications", expect=200)
    (shown,) = page["items"]
    assert (page["total"], shown["kind"], shown["state"], shown["payload"]["count"]) == (1, "firing", "queued", 2)
    assert shown["channel"]["url"] == f"{receiver.url}?{channels.MASK}"
    (attempt,) = shown["attempts"]
    assert (attempt["attempt"], attempt["status_code"], attempt["error"]) == (1, 500, "answered 500")
    assert attempt["ms"] >= 0
    secret = channels.opened(rule.channels[0]).secret or "?"
    answer = api.get(f"/alerts/{rule.id}/notifications").get_data(as_text=True)
    assert not any(private in answer for private in (secret, "private", "gAAAA"))
    assert api.get(f"/alerts/{rule.id}/notifications?state=failed", expect=200)["total"] == 0
    assert api.get(f"/alerts/{rule.id}/notifications?kind=firing&sort=created_at", expect=200)["total"] == 1


def test_replay_sends_again_under_the_same_id(api: Any, org: UUID, receiver: Receiver) -> None:
    receiver.answers = [status(410)]
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule)
    tell(rule)
    (message,) = rows.notifications(rule)
    assert message.state == "failed"
    for expected in (2, 3):
        path = f"/alerts/{rule.id}/notifications/{message.id}/replay"
        queued = api.post(path, expect=202)
        assert (queued["id"], queued["state"]) == (str(message.id), "queued")
        delivery.deliver(org)
        assert rows.notifications(rule)[0].state == "delivered"
        assert receiver.deliveries == [str(message.id)] * expected


def test_replay_counts_its_day_anew(api: Any, org: UUID, receiver: Receiver) -> None:
    receiver.always = status(500)
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule)
    tell(rule)
    rows.age(rule, 90_000)
    delivery.deliver(org)
    (message,) = rows.notifications(rule)
    assert message.state == "failed"
    api.post(f"/alerts/{rule.id}/notifications/{message.id}/replay", expect=202)
    delivery.deliver(org)
    (message,) = rows.notifications(rule)
    assert (message.state, message.failures) == ("queued", 1)


def test_who_may_see_and_replay(app: Any, org: UUID, receiver: Receiver) -> None:
    rule = rows.rule(org, hook(receiver))
    rows.fire(rule)
    plan(rule)
    (message,) = rows.notifications(rule)
    viewer, stranger = make.client(app, org, "viewer"), make.client(app, make.organization())
    replay = f"/alerts/{rule.id}/notifications/{message.id}/replay"
    assert viewer.get(f"/alerts/{rule.id}/notifications", expect=200)["total"] == 1
    viewer.post(replay, expect=403)
    stranger.get(f"/alerts/{rule.id}/notifications", expect=404)
    stranger.post(replay, expect=404)
    operator = make.client(app, org, "operator")
    operator.post(f"/alerts/{uuid4()}/notifications/{message.id}/replay", expect=404)
    operator.post(f"/alerts/{rule.id}/notifications/{uuid4()}/replay", expect=404)


def test_the_database_holds_no_secret_in_clear(org: UUID, receiver: Receiver) -> None:
    secret = f"private-{uuid4()}"
    rule = rows.rule(org, {**hook(receiver), "url": f"{receiver.url}?token={secret}", "secret": secret})
    rows.fire(rule)
    tell(rule)
    assert receiver.requests[0].path.endswith(secret)
    assert receiver.requests[0].is_signed_with(secret)
    with db.transaction(org) as session:
        for table in ("alert_rules", "notifications", "notification_attempts"):
            found = session.execute(text(f"SELECT t::text FROM {table} t")).scalars().all()
            assert found
            assert not any(secret in row for row in found)
