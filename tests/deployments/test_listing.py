"""Long lists: executions page by page, what a device has run, and dry runs."""

import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from sqlalchemy import select, text
from sqlalchemy.dialects import postgresql

from app import db
from app.billing import plans
from app.deployments import listing
from app.deployments.models import Execution
from app.devices.models import Shadow
from config.settings import settings
from tests import make
from tests.deployments.fleet import Fleet

MANY = 10_000


def named(page: Any) -> list[str]:
    return [item["device_name"] for item in page["items"]]


def test_executions_are_filtered(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org)
    fleet.devices = [make.device(org, name=name)[0] for name in ("pump-a", "pump-b", "valve_%", "valve-x")]
    fleet.connect()
    made = fleet.deploy()
    commands = fleet.step(made)
    fleet.answer(commands[:3])
    path = f"/deployments/{made['id']}/executions"
    assert named(api.get(f"{path}?q=PUMP", expect=200)) == ["pump-a", "pump-b"]
    assert named(api.get(f"{path}?q=_%25", expect=200)) == ["valve_%"]
    assert api.get(f"{path}?state=succeeded", expect=200)["total"] == 3
    assert api.get(f"{path}?state=in_progress&kind=rollback", expect=200)["total"] == 0
    assert named(api.get(f"{path}?device_id={fleet.devices[3].id}", expect=200)) == ["valve-x"]
    assert named(api.get(f"{path}?sort=-device_name&limit=1", expect=200)) == ["valve_%"]
    stranger = make.client(api.http.application, make.organization())
    stranger.get(path, expect=404)


def test_a_cursor_goes_through_all_and_finds_what_offset_finds(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 7)
    for device in fleet.devices[:3]:
        fleet.sql("UPDATE devices SET name = 'same \"name' WHERE id = :id", id=device.id)
    made = fleet.deploy()
    path = f"/deployments/{made['id']}/executions?limit=2"
    pages, cursor = [], ""
    while True:
        page = api.get(path + (f"&cursor={cursor}" if cursor else ""), expect=200)
        assert (page["total"], page["limit"], page["offset"]) == (7, 2, 0)
        pages += [item["id"] for item in page["items"]]
        cursor = page["next_cursor"]
        if not cursor:
            break
    counted = [item["id"] for at in (0, 2, 4, 6) for item in api.get(f"{path}&offset={at}", expect=200)["items"]]
    assert pages == counted
    assert len(set(pages)) == 7
    assert api.get(f"{path}&sort=-queued_at", expect=200)["next_cursor"] is None


@pytest.mark.parametrize("cursor", ["x", "%00", "bnVsbA", "WyJhIiwgImIiXQ", "WzEsIDJd", "WyJcdTAwMDAiLCAiMSJd", "é"])
def test_a_strange_cursor_is_the_callers_error(api: Any, org: UUID, cursor: str) -> None:
    made = Fleet(api, org, 1).deploy()
    assert "cursor" in api.get(f"/deployments/{made['id']}/executions?cursor={cursor}", expect=400)["details"]


def test_a_cursor_goes_with_no_other_order_and_no_offset(api: Any, org: UUID) -> None:
    made = Fleet(api, org, 3).deploy()
    path = f"/deployments/{made['id']}/executions?limit=1"
    cursor = api.get(path, expect=200)["next_cursor"]
    for more in ("&offset=1", "&sort=state"):
        assert "cursor" in api.get(f"{path}&cursor={cursor}{more}", expect=400)["details"]


@pytest.fixture
def many(api: Any, org: UUID) -> Any:
    """A deployment with 10,000 executions, beside another one as large."""
    fleet = Fleet(api, org, 1)
    made = [fleet.deploy(start=False) for _ in range(2)]
    for deployment in made:
        fleet.sql(
            "INSERT INTO executions (org_id, deployment_id, device_name, state) "
            "SELECT :org, :deployment, 'device-' || n, 'succeeded' FROM generate_series(1, :many) n",
            org=org, deployment=deployment["id"], many=MANY,
        )  # fmt: skip
    with psycopg.connect(settings().database_url, autocommit=True) as connection:
        connection.execute("ANALYZE executions")
    return made[0]


def plan_of(org: UUID, query: Any) -> str:
    statement = str(query.compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True}))
    with db.transaction(org) as session:
        (plan,) = session.connection().exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}").one()
    return json.dumps(plan)


def test_pages_of_ten_thousand_come_from_the_index(api: Any, org: UUID, many: Any) -> None:
    path = f"/deployments/{many['id']}/executions?limit=500&offset=5000"
    page = api.get(path, expect=200)
    assert page["total"] == MANY
    query = select(Execution).where(Execution.org_id == org, Execution.deployment_id == UUID(many["id"]))
    for cursor in (None, page["next_cursor"]):
        plan = plan_of(org, listing.by_name(query, 51, 0, cursor))
        assert "ix_executions_deployment_id_device_name" in plan
        assert '"Sort"' not in plan
        assert "Seq Scan" not in plan
    assert "ROW(device_name" in plan, "it begins at the cursor"
    following = api.get(f"/deployments/{many['id']}/executions?limit=2&cursor={page['next_cursor']}", expect=200)
    assert named(following) == named(api.get(path.replace("5000", "5500"), expect=200))[:2]


def test_the_ledger_of_a_device(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 2)
    device = fleet.devices[0]
    one = {"device_ids": [str(device.id)]}
    first = fleet.finish(fleet.deploy(target=one))
    fleet.publish()
    second = fleet.finish(fleet.deploy(target=one))
    other = Fleet(api, org)
    third = fleet.finish(other.deploy(target=one))
    path = f"/devices/{device.id}/deployments"
    page = api.get(path, expect=200)
    assert [
        (item["flow_id"], item["version"], item["deployment_id"], item["deployment_name"], item["current"])
        for item in page["items"]
    ] == [
        (other.flow_id, 1, third["id"], "Watch v1", True),
        (fleet.flow_id, 2, second["id"], "Watch v2", True),
        (fleet.flow_id, 1, first["id"], "Watch v1", False),
    ]
    assert page["items"][2]["replaced_at"] == page["items"][1]["installed_at"]
    assert api.get(f"{path}?flow_id={fleet.flow_id}&current=true", expect=200)["items"] == page["items"][1:2]
    assert api.get(f"{path}?current=false", expect=200)["items"] == page["items"][2:]
    assert api.get(f"{path}?limit=1&offset=1", expect=200)["items"] == page["items"][1:2]
    fleet.act(first, "rollback")
    fleet.act(third, "rollback")
    fleet.finish(third)
    removed = api.get(path, expect=200)["items"][0]
    assert (removed["flow_id"], removed["version"], removed["current"]) == (other.flow_id, None, False)
    assert api.get(f"/devices/{fleet.devices[1].id}/deployments", expect=200)["items"] == []
    api.get(f"/devices/{uuid4()}/deployments", expect=404)
    make.client(api.http.application, make.organization()).get(path, expect=404)


def dry(fleet: Fleet, query: str = "", expect: int = 200, **fields: Any) -> Any:
    body = {"flow_id": fleet.flow_id, "target": {"all": True}, "start": True, **fields}
    return fleet.api.post(f"/deployments?dry_run=true{query}", body, expect=expect)


def rows(org: UUID) -> list[int]:
    tables = ("deployments", "deployment_stages", "executions", "deployment_events")
    with db.transaction(org) as session:
        return [session.scalar(text(f"SELECT count(*) FROM {table}")) or 0 for table in tables]


def test_a_dry_run_tells_what_would_happen_and_stores_nothing(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 4)
    a, b, c, d = fleet.devices
    make.device(org, name="disabled", disabled_at="2026-01-01T00:00:00Z")
    fleet.finish(fleet.deploy(target={"device_ids": [str(a.id), str(b.id)]}))
    fleet.publish()
    fleet.finish(fleet.deploy(target={"device_ids": [str(a.id)]}))
    fleet.disconnect(d)
    other = Fleet(api, org)
    busy = other.deploy(target={"device_ids": [str(d.id)]})
    for device, types in ((a, ["debug", "inject"]), (b, [{"type": "inject"}, {"name": "odd"}]), (c, "debug")):
        with db.transaction(org) as session:
            session.get_one(Shadow, device.id).reported = {"node_types": types}
    before = rows(org)
    told = dry(fleet)
    assert rows(org) == before
    assert told["totals"] == {
        "targets": 4, "offline": 1, "already_installed": 1, "version_changes": 1, "first_installations": 2, "busy": 1,
        "missing_node_types": 1, "node_types_unknown": 2, "health_unknown": 4, "left_out_disabled": 1,
    }  # fmt: skip
    assert (told["dry_run"], told["version"], told["total"]) == (True, 2, 4)
    limit = plans.plan("free").quotas["deployments_per_month"]
    effect = {"limit": limit, "used": 3, "would_use": 4, "refused": False}
    assert told["quota"] == {"quota": "deployments_per_month", **effect}
    seen = [
        (one["from_version"], one["to_version"], one["already_installed"], one["online"], one["missing_node_types"])
        for one in told["items"]
    ]
    assert seen == [
        (2, 2, True, True, []),
        (1, 2, False, True, ["debug"]),
        (None, 2, False, True, None),
        (None, 2, False, False, None),
    ]
    assert [one["busy_with"] for one in told["items"]] == [None, None, None, busy["id"]]
    page = dry(fleet, "&limit=1&offset=2", version=1)
    assert (named(page), page["version"], page["total"]) == ([c.name], 1, 4)


def test_a_dry_run_refuses_what_a_deployment_refuses(api: Any, org: UUID) -> None:
    fleet = Fleet(api, org, 1)
    dry(fleet, expect=409)
    fleet.publish()
    assert "version" in dry(fleet, expect=400, version=7)["details"]
    assert "target" in dry(fleet, expect=400, target={"tags": ["nowhere"]})["details"]
    dry(fleet, expect=404, flow_id=str(uuid4()))
    make.client(api.http.application, org, "viewer").post("/deployments?dry_run=true", {}, expect=403)
