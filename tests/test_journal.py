"""The platform's journal: each kind of event once, for the right organization, with its change or not at all."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from app import db, journal
from app.auth.models import ApiKey
from app.tokens import digest
from app.tunnel import queries, sweep
from app.tunnel.protocol import Connect
from app.tunnel.queries import Admitted
from tests import make
from tests.auth import people
from tests.deployments.fleet import Fleet
from tests.logs.entries import journal as entries
from tests.statements import counted


def one(org: UUID | str, kind: str) -> Any:
    (entry,) = entries(UUID(str(org)), kind)
    return entry


def level(entry: Any) -> str:
    return journal.LEVELS[entry.level]


def test_an_entry_names_who_acts_and_in_which_request(app: Any, org: UUID) -> None:
    made = make.client(app, org).post("/devices", {"name": "pump"}, expect=201)
    entry = one(org, "device.created")
    assert (entry.message, level(entry), str(entry.device_id)) == ("device pump created", "info", made["id"])
    assert entry.fields["actor"] == "api_key:test-owner"
    assert len(entry.fields["request_id"]) >= 16


def test_an_entry_is_rolled_back_with_its_change(org: UUID) -> None:
    with db.transaction(org) as session:
        journal.note(org, "device.created", "device pump created")
        assert session.scalar(text("SELECT count(*) FROM log_entries")) == 1
        session.rollback()
    assert entries(org) == []


def test_a_request_that_fails_leaves_no_entry(app: Any, org: UUID) -> None:
    owner = people.register(app)
    before = len(entries(UUID(owner.org), "member.role_changed"))
    path = f"/organizations/{owner.org}/members/{owner.id}"
    owner.api.put(path, {"role": "viewer"}, expect=409)
    owner.api.delete(path, expect=409)
    assert len(entries(UUID(owner.org), "member.role_changed")) == before
    assert entries(UUID(owner.org), "member.removed") == []


def test_nobody_writes_in_another_organizations_journal(org: UUID) -> None:
    with pytest.raises(Exception, match="row-level security"), db.transaction(make.organization()):
        journal.note(org, "device.created", "not mine")
    assert entries(org) == []


def test_many_entries_are_one_statement_and_strange_ones_spoil_none(org: UUID) -> None:
    notes = [journal.Note(org, "kind", f"no {n} \0", fields={"given": "\0", "none": None}) for n in range(500)]
    notes.append(journal.Note(None, "kind", "of a user without an organization", user_id=uuid4()))
    with db.transaction(system=True):
        journal.note_many(notes)
    written = entries(org, "kind")
    assert len(written) == 500
    assert (written[0].message, written[0].fields) == ("no 0 �", {"given": "�"})


def test_later_entries_are_written_soon_and_in_bounds(org: UUID, monkeypatch: Any) -> None:
    for number in range(1_500):
        journal.later(journal.Note(org, "later", str(number)))
    assert journal.drain(5)
    assert len(entries(org, "later")) == 1_500
    monkeypatch.setattr(journal, "WAITING", 10)
    for number in range(50):
        journal.later(journal.Note(org, "bounded", str(number)))
    assert journal.drain(5)
    assert 10 <= len(entries(org, "bounded")) < 50
    journal.later(journal.Note(org, "after", "room again"))
    assert journal.drain(5)
    assert one(org, "after")


def test_devices_are_born_and_end(api: Any, org: UUID) -> None:
    made = api.post("/devices", {"name": "pump"}, expect=201)
    agent = {"provisioning_code": made["provisioning_code"], "hardware_info": {"serial": "1"}}
    for _ in range(2):
        api.post("/devices/provision", agent, expect=201)
    path = f"/devices/{made['id']}"
    api.put(path, {"name": "pump 2"}, expect=200)
    for disabled in (True, True, False, False):
        api.put(path, {"disabled": disabled}, expect=200)
    api.delete(path, expect=204)
    told = [(entry.kind, entry.message) for entry in entries(org) if entry.device_id == UUID(made["id"])]
    assert told == [
        ("device.created", "device pump created"),
        ("device.provisioned", "device pump provisioned"),
        ("device.provisioned", "device pump provisioned again"),
        ("device.disabled", "device pump 2 disabled"),
        ("device.enabled", "device pump 2 enabled"),
        ("device.deleted", "device pump 2 deleted"),
    ]
    secrets = (made["api_key"], made["provisioning_code"], make.api_key(org))
    assert not [entry for entry in entries(org) for secret in secrets if secret in str(entry)]


def test_an_error_that_a_device_reports_is_told_once(app: Any, org: UUID) -> None:
    device, key = make.device(org)
    mine = make.Client(app, {"X-API-Key": key})
    for reported in ({"error": "valve " * 200}, {"error": "valve " * 200}, {"rpm": 3}, {"error": None}):
        mine.put(f"/devices/{device.id}/shadow", {"reported": reported}, expect=200)
    entry = one(org, "shadow.error")
    assert (level(entry), entry.device_id) == ("error", device.id)
    assert entry.message.startswith("the device reports an error: valve valve")
    assert len(entry.message) < 600


def test_keys_are_made_used_and_deleted(app: Any) -> None:
    owner = people.register(app)
    made = owner.api.post("/auth/api-keys", {"name": "ci", "role": "operator"}, expect=201)
    program = make.Client(app, {"X-API-Key": made["key"]})
    for _ in range(3):
        program.get("/devices", expect=200)
    use(made["key"], "date_trunc('hour', now())")
    program.get("/devices", expect=200)
    assert len(entries(UUID(owner.org), "api_key.used")) == 1
    use(made["key"], "date_trunc('hour', now()) - interval '61 seconds'")
    program.get("/devices", expect=200)
    assert len(entries(UUID(owner.org), "api_key.used")) == 2
    owner.api.delete(f"/auth/api-keys/{made['id']}", expect=204)
    assert [entries(UUID(owner.org), kind)[0].message for kind in KEY_KINDS] == [
        "API key ci created", "API key ci used", "API key ci deleted",
    ]  # fmt: skip
    assert made["key"][16:] not in str(entries(UUID(owner.org)))


KEY_KINDS = ("api_key.created", "api_key.used", "api_key.deleted")


def use(key: str, moment: str) -> None:
    with db.transaction(system=True) as session:
        session.execute(
            text(f"UPDATE {ApiKey.__tablename__} SET last_used_at = {moment} WHERE key_hash = :hash"),
            {"hash": digest(key)},
        )


def test_people_sign_in_and_out(app: Any) -> None:
    owner = people.register(app)
    org = UUID(owner.org)
    again = people.login(app, owner.email)
    again.api.post("/auth/change-password", {"current_password": people.PASSWORD, "new_password": "another " * 3},
                   expect=204)  # fmt: skip
    again.api.post("/auth/logout", expect=204)
    told = [(entry.kind, entry.message) for entry in entries(org)]
    assert told == [
        ("auth.signed_in", f"{owner.email}: signed in"),
        ("auth.signed_in", f"{owner.email}: signed in"),
        ("auth.password_changed", f"{owner.email}: password changed"),
        ("auth.signed_out", f"{owner.email}: signed out"),
    ]
    assert people.PASSWORD not in str(entries(org))


def test_a_wrong_password_is_told_to_the_users_organization_and_not_by_the_request(app: Any) -> None:
    owner = people.register(app)
    body = {"email": owner.email, "password": "wrong horse battery"}
    make.Client(app, {}).post("/auth/login", body, expect=401)
    make.Client(app, {}).post("/auth/login", {**body, "email": people.address()}, expect=401)
    assert journal.drain(5)
    entry = one(owner.org, "auth.failed")
    assert (level(entry), entry.fields["user_id"]) == ("warning", owner.id)
    assert "wrong horse" not in str(entry)


def test_a_stolen_refresh_token_is_told_although_the_request_is_refused(app: Any) -> None:
    owner = people.register(app)
    anybody = make.Client(app, {})
    anybody.post("/auth/refresh", {"refresh_token": owner.refresh_token}, expect=200)
    with db.transaction(system=True) as session:
        session.execute(text("UPDATE refresh_tokens SET used_at = used_at - interval '1 minute'"))
    anybody.post("/auth/refresh", {"refresh_token": owner.refresh_token}, expect=401)
    entry = one(owner.org, "auth.refresh_reused")
    assert level(entry) == "warning"
    assert owner.refresh_token not in str(entry)


def test_members_come_change_and_go(app: Any) -> None:
    owner = people.register(app)
    guest = people.joins(app, owner, "viewer")
    path = f"/organizations/{owner.org}/members/{guest.id}"
    for role in ("operator", "operator"):
        owner.api.put(path, {"role": role}, expect=200)
    owner.api.delete(path, expect=204)
    told = [entry.message for entry in entries(UUID(owner.org)) if entry.kind.startswith("member.")]
    assert told == [
        f"{guest.email} was invited", f"{guest.email} has joined", f"{guest.email} is operator now",
        f"{guest.email} was removed",
    ]  # fmt: skip


def hello(device_id: UUID, key: str) -> Connect:
    return Connect(device_id=str(device_id), api_key=key, version="2.0.0", protocol=2, capabilities=[])  # type: ignore[arg-type]


def admit(*devices: tuple[Any, str]) -> list[Admitted]:
    known = queries.admit("here", [(hello(device.id, key), "192.0.2.7") for device, key in devices], lambda: False)
    return [known[device.id] for device, _key in devices]  # type: ignore[misc]


def test_connections_begin_and_end_with_a_reason(org: UUID) -> None:
    device, key = make.device(org)
    (first,) = admit((device, key))
    (second,) = admit((device, key))
    queries.gone([(device.id, first.epoch, "an old one")])
    for _ in range(2):
        queries.gone([(device.id, second.epoch, "closed")])
    told = [(entry.kind, entry.message, entry.device_id, entry.fields["epoch"]) for entry in entries(org)]
    assert told == [
        ("device.connected", "connected", device.id, first.epoch),
        ("device.connected", "connected, in place of an older connection", device.id, second.epoch),
        ("device.disconnected", "disconnected: closed", device.id, second.epoch),
    ]
    assert entries(org)[0].fields["address"] == "192.0.2.7"
    assert key not in str(entries(org))


def test_a_refused_connect_is_no_connection(org: UUID) -> None:
    device, _key = make.device(org)
    assert queries.admit("here", [(hello(device.id, "device_wrong"), None)], lambda: False) == {}
    assert entries(org) == []


def test_the_sweep_tells_of_silence_and_a_device_that_lives_after_all(org: UUID) -> None:
    device, key = make.device(org)
    (admitted,) = admit((device, key))
    with db.transaction(org) as session:
        session.execute(text("UPDATE connections SET last_seen_at = now() - interval '1 hour'"))
    for _ in range(2):
        with db.transaction(system=True):
            sweep.sweep()
    ended = one(org, "device.disconnected")
    assert ended.fields["reason"] in ("silent", "gateway lost")
    assert level(ended) == "warning"
    heard = queries.Heard(device.id, admitted.epoch, 0.0, 0, 0, 0, None)
    for _ in range(2):
        assert queries.heard([heard]) == {device.id}
    assert [entry.message for entry in entries(org, "device.connected")] == ["connected", "connected after all"]


def test_a_storm_of_connects_is_one_statement_a_batch(org: UUID) -> None:
    devices = make.devices(200, org)
    with counted() as seen:
        admitted = admit(*devices)
        queries.gone([(one.device_id, one.epoch, "closed") for one in admitted])
    assert len(entries(org, "device.connected")) == len(entries(org, "device.disconnected")) == 200
    assert len([one for one in seen if "SET LOCAL ROLE" not in one]) == 2


def test_deployments_and_devices_parts_in_them_are_told_set_wise(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 3)
    made = fleet.deploy(name="watch", strategy={"retries": 0, "on_failure": "pause", "failure_threshold": 10})
    commands = fleet.step(made)
    fleet.answer(commands[:2])
    fleet.answer(commands[2:], "UNSUPPORTED_NODE_TYPE", error="no gpio")
    fleet.step(made)
    assert fleet.read(made)["status"] in ("paused", "failed")
    statuses = entries(org, "deployment.status")
    assert [entry.fields["status"] for entry in statuses] == ["created", "in_progress", fleet.read(made)["status"]]
    assert [entry.message for entry in statuses[:2]] == [
        "deployment watch is created", "deployment watch: running: 0 of 3 done, 3 next",
    ]  # fmt: skip
    assert level(statuses[-1]) in ("warning", "error")
    assert {entry.fields["deployment_id"] for entry in statuses} == {made["id"]}
    succeeded, rejected = entries(org, "execution.succeeded"), entries(org, "execution.rejected")
    assert {entry.device_id for entry in succeeded + rejected} == {device.id for device in fleet.devices}
    assert (len(succeeded), len(rejected)) == (2, 1)
    assert (level(rejected[0]), level(succeeded[0])) == ("error", "info")
    assert rejected[0].message.endswith("rejected: no gpio")
    assert entries(org, "execution.in_progress") == []


def test_a_deployment_tells_how_it_ended(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    made = fleet.deploy(name="watch")
    fleet.answer(fleet.step(made))
    fleet.step(made)
    assert entries(org, "deployment.status")[-1].message == "deployment watch: succeeded: 2 of 2 devices"


def test_a_deployment_that_is_rolled_back_by_the_database_leaves_no_entry(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    made = fleet.deploy(start=False)
    fleet.sql("DELETE FROM devices")
    fleet.act(made, "start", expect=409)
    assert [entry.fields["status"] for entry in entries(org, "deployment.status")] == ["created"]
