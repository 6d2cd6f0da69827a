"""Quotas hold where things are made: at the last place one comes in, however many try at once."""

import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from app import db
from app.billing import plans, quotas
from app.clock import rfc3339
from app.errors import QuotaExceeded
from app.flows import service as flows
from config import plans as plans_file
from config import settings as configuration
from tests import make
from tests.auth import people
from tests.deployments.fleet import DEFINITION, Fleet
from tests.devices.helpers import at_once

KEPT = "retention = { raw = 7, minutes = 30, hours = 365, logs = 7 }"
FEW = 3
MORE = 6
PLANS = f"""\
[free]
name = "Free"
{KEPT}
quotas = {{ devices = 3, flows = 3, members = 3, deployments_per_month = 3, metric_points_per_day = 3 }}
[pro]
name = "Pro"
{KEPT}
quotas = {{ devices = 6, flows = 6, members = 6, deployments_per_month = 6, metric_points_per_day = 6 }}
[enterprise]
name = "Enterprise"
{KEPT}
"""
MADE = ("devices", "flows", "members", "deployments_per_month")
AT_ONCE = 50


def read_anew() -> None:
    configuration.settings.cache_clear()
    plans_file.plans.cache_clear()


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Plans that are soon used up."""
    (tmp_path / "plans.toml").write_text(PLANS)
    monkeypatch.setenv("EDGEFLOW_PLANS_FILE", str(tmp_path / "plans.toml"))
    read_anew()
    yield monkeypatch
    monkeypatch.undo()
    read_anew()


@pytest.fixture
def free_of_billing(small: pytest.MonkeyPatch) -> None:
    small.setenv("EDGEFLOW_BILLING", "off")
    read_anew()


def sql(org: UUID, statement: str, **values: Any) -> Any:
    with db.transaction(org) as session:
        return session.execute(text(statement), {"org": org, **values})


def subscribe(org: UUID, plan: str) -> None:
    sql(org, "UPDATE organizations SET plan = :plan WHERE id = :org", plan=plan)


def used(api: Any, org: UUID, quota: str) -> int:
    """As lists of the API show it."""
    if quota == "members":
        paths = [f"/organizations/{org}/members", f"/organizations/{org}/invitations"]
    else:
        paths = [f"/{quota.partition('_')[0]}"]
    return sum(api.get(path, expect=200)["total"] for path in paths)


def counted(api: Any) -> int:
    """Deployments of this month, as the quota counts them."""
    items = api.get("/billing/quotas", expect=200)["items"]
    return next(item["used"] for item in items if item["quota"] == "deployments_per_month")


class Maker:
    """Makes what a quota counts, over the API; a device and a published flow are there already if it needs them."""

    def __init__(self, app: Any, org: UUID, quota: str) -> None:
        self.app, self.org, self.quota = app, org, quota
        self.key = make.api_key(org)
        self.api = make.Client(app, {"X-API-Key": self.key})
        self.flow_id = ""
        if quota == "deployments_per_month":
            make.device(org)
            self.flow_id = self.api.post("/flows", {"name": "f", "definition": DEFINITION}, expect=201)["id"]
            self.api.post(f"/flows/{self.flow_id}/publish", expect=200)

    @property
    def request(self) -> tuple[str, dict[str, Any]]:
        return {
            "devices": ("/devices", {"name": "pump"}),
            "flows": ("/flows", {"name": "f", "definition": DEFINITION}),
            "members": (f"/organizations/{self.org}/members", {"email": people.address(), "role": "viewer"}),
            "deployments_per_month": ("/deployments", {"flow_id": self.flow_id, "target": {"all": True}}),
        }[self.quota]

    def __call__(self, _number: int = 0, **options: Any) -> Any:
        """A client of its own, as every thread needs."""
        return make.Client(self.app, {"X-API-Key": self.key}).post(*self.request, **options)

    def used(self) -> int:
        return used(self.api, self.org, self.quota)

    def fill(self, places: int = FEW) -> None:
        """Until so many are used."""
        while self.used() < places:
            self(expect=201)

    def race(self) -> list[Any]:
        """``AT_ONCE`` requests for the last place."""
        self.fill(FEW - 1)
        return at_once(AT_ONCE, self)


@pytest.mark.parametrize("quota", MADE)
def test_many_at_the_last_place_make_one(app: Any, org: UUID, quota: str) -> None:
    maker = Maker(app, org, quota)
    answers = maker.race()
    assert Counter(answer.status_code for answer in answers) == {201: 1, 402: AT_ONCE - 1}
    assert maker.used() == FEW
    for answer in answers:
        if answer.status_code == 402:
            body = answer.get_json()
            assert {*body} == {"error", "code", "status", "request_id", "quota", "limit", "used"}
            assert (body["code"], body["status"]) == ("QUOTA_EXCEEDED", 402)
            assert (body["quota"], body["limit"], body["used"]) == (quota, FEW, FEW)


@pytest.mark.parametrize("quota", MADE)
def test_without_the_lock_more_would_come_in(app: Any, org: UUID, quota: str, monkeypatch: pytest.MonkeyPatch) -> None:
    maker = Maker(app, org, quota)
    # Nobody waits, and everybody has counted before anybody commits.
    slowly = text(f"SELECT plan, used FROM ({quotas._STAND[quota].text}) stand, pg_sleep(0.3)")
    monkeypatch.setattr(quotas, "_LOCK", text("SELECT CAST(:org AS text), CAST(:quota AS text)"))
    monkeypatch.setitem(quotas._STAND, quota, slowly)
    made = sum(answer.status_code == 201 for answer in maker.race())
    assert made > 1
    assert maker.used() > FEW


@pytest.mark.parametrize("quota", MADE)
def test_other_organizations_are_not_in_the_way(app: Any, org: UUID, quota: str) -> None:
    """Neither their rows nor their locks."""
    full, other = Maker(app, org, quota), Maker(app, make.organization(), quota)
    full.fill()
    with db.transaction(org):
        db.session.execute(quotas._LOCK, {"org": org, "quota": quota})
        with ThreadPoolExecutor(1) as pool:
            pool.submit(other, expect=201).result(5)
    full(expect=402)


def test_the_refusal_says_what_to_do(app: Any) -> None:
    told = {}
    for quota in MADE:
        maker = Maker(app, make.organization(), quota)
        maker.fill()
        told[quota] = maker(expect=402)["error"]
    assert told == {
        "devices": "the plan Free includes 3 devices, and 3 are used: delete a device, or change the plan",
        "flows": "the plan Free includes 3 flows, and 3 are used: delete a flow, or change the plan",
        "members": "the plan Free includes 3 members and open invitations, and 3 are used: "
        "remove a member, withdraw an invitation, or change the plan",
        "deployments_per_month": "the plan Free includes 3 deployments a month, and 3 are used: "
        "wait for the next month, or change the plan",
    }


@pytest.mark.parametrize("quota", MADE)
def test_a_refused_creation_leaves_nothing_and_may_be_repeated(app: Any, org: UUID, quota: str) -> None:
    maker = Maker(app, org, quota)
    maker.fill()
    entries = sql(org, "SELECT count(*) FROM log_entries WHERE org_id = :org").scalar()
    key = {"Idempotency-Key": "again"}
    path, body = maker.request
    maker.api.post(path, body, headers=key, expect=402)
    assert maker.used() == FEW
    assert sql(org, "SELECT count(*) FROM log_entries WHERE org_id = :org").scalar() == entries
    subscribe(org, "pro")
    maker.api.post(path, body, headers=key, expect=201)
    assert maker.used() == FEW + 1


WAITING = text(
    "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
    "WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
)


@contextmanager
def held_up(org: UUID, call: Callable[[], Any]) -> Iterator[Future[Any]]:
    """``call``, once it waits for a flow that this transaction makes; it goes on when the block ends."""
    with ThreadPoolExecutor(1) as pool, db.transaction(org):
        flows.create(org, "ada", name="f", description="", definition=DEFINITION)
        waiting = pool.submit(call)
        deadline = time.monotonic() + 10
        with db.engine().connect() as beside:
            while not beside.scalar(WAITING):
                assert time.monotonic() < deadline
                time.sleep(0.01)
        yield waiting


@pytest.mark.parametrize(
    ("before", "meanwhile", "there", "expected"),
    [("pro", "free", FEW - 1, 402), ("free", "pro", FEW - 1, 201), ("pro", "enterprise", MORE - 1, 201)],
)
def test_the_plan_that_holds_is_that_of_the_moment(
    app: Any, org: UUID, before: str, meanwhile: str, there: int, expected: int
) -> None:
    """It changes while a creation waits for another one's end."""
    subscribe(org, before)
    maker = Maker(app, org, "flows")
    maker.fill(there)
    with held_up(org, maker) as waiting, ThreadPoolExecutor(1) as other:
        other.submit(subscribe, org, meanwhile).result(5)
    answer = waiting.result(5)
    assert answer.status_code == expected
    if expected == 402:
        assert (answer.get_json()["limit"], answer.get_json()["used"]) == (FEW, FEW)


STEPS = st.lists(st.sampled_from(["make", "make", "make", "delete", "free", "pro", "enterprise"]), max_size=25)


@given(STEPS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_history_of_plans_and_flows(steps: list[str]) -> None:
    org, made, plan = make.organization(), [], "free"
    for step in steps:
        if step == "make":
            limit = plans.plan(plan).quotas["flows"]
            try:
                with db.transaction(org):
                    made.append(flows.create(org, "ada", name="f", description="", definition=DEFINITION).id)
                assert limit is None or len(made) <= limit
            except QuotaExceeded as refusal:
                assert limit is not None
                assert len(made) >= limit
                assert refusal.extra == {"quota": "flows", "limit": limit, "used": len(made)}  # noqa: PT017
        elif step == "delete":
            with db.transaction(org):
                for flow_id in made[-1:]:
                    flows.delete(org, flow_id)
            made = made[:-1]
        else:
            subscribe(org, plan := step)
        with db.transaction(org):
            assert quotas.overview(org)["items"][1]["used"] == len(made)


class TestProvisioning:
    @pytest.fixture
    def over(self, api: Any, org: UUID) -> Any:
        """A device with an unused code, and an organization that has more devices than its plan includes."""
        subscribe(org, "pro")
        made = [api.post("/devices", {"name": "pump"}, expect=201) for _ in range(FEW + 1)]
        subscribe(org, "free")
        return made

    @staticmethod
    def body(made: Any) -> dict[str, Any]:
        info = {"hardware_info": {"serial": made["id"]}, "network_info": {}}
        return {"provisioning_code": made["provisioning_code"], **info}

    def test_a_code_of_a_full_organization_stays_usable(self, app: Any, api: Any, org: UUID, over: Any) -> None:
        device, stranger = over[0], make.Client(app, {})
        refusal = stranger.post("/devices/provision", self.body(device), expect=402)
        assert refusal["code"] == "QUOTA_EXCEEDED"
        assert (refusal["quota"], refusal["limit"], refusal["used"]) == ("devices", FEW, FEW + 1)
        row = sql(org, "SELECT fingerprint, provisioned_at, hardware_info FROM devices WHERE id = :id", id=device["id"])
        assert row.one() == (None, None, None)
        keys = sql(org, "SELECT expires_at FROM device_keys WHERE device_id = :id", id=device["id"])
        assert keys.all() == [(None,)]
        api.delete(f"/devices/{over[-1]['id']}", expect=204)
        assert stranger.post("/devices/provision", self.body(device), expect=201)["device_id"] == device["id"]

    def test_devices_that_are_there_come_again(self, app: Any, org: UUID, over: Any) -> None:
        stranger = make.Client(app, {})
        subscribe(org, "pro")
        stranger.post("/devices/provision", self.body(over[0]), expect=201)
        subscribe(org, "free")
        stranger.post("/devices/provision", self.body(over[0]), expect=201)

    def test_a_wrong_code_says_nothing_of_quotas(self, app: Any, over: Any) -> None:
        body = self.body(over[0]) | {"provisioning_code": "code_wrong"}
        make.Client(app, {}).post("/devices/provision", body, expect=401)


class TestMembers:
    """The owner has one of the places."""

    @pytest.fixture
    def owner(self, app: Any) -> people.Person:
        return people.register(app)

    @staticmethod
    def invite(owner: people.Person, expect: int = 201, **fields: Any) -> Any:
        body = {"email": people.address(), "role": "viewer", **fields}
        return owner.api.post(f"/organizations/{owner.org}/members", body, expect=expect)

    def test_an_invitation_holds_a_place_until_it_ends(self, owner: people.Person) -> None:
        first, _second = [self.invite(owner) for _ in range(FEW - 1)]
        self.invite(owner, expect=402)
        owner.api.delete(f"/organizations/{owner.org}/invitations/{first['id']}", expect=204)
        late = self.invite(owner)
        self.invite(owner, expect=402)
        sql(UUID(owner.org), "UPDATE invitations SET expires_at = now() WHERE id = :id", id=late["id"])
        self.invite(owner)
        assert self.invite(owner, expect=402)["used"] == FEW

    def test_inviting_again_takes_no_further_place(self, owner: people.Person) -> None:
        offers = [self.invite(owner) for _ in range(FEW - 1)]
        again = self.invite(owner, email=offers[0]["email"].upper(), role="operator")
        assert again["id"] != offers[0]["id"]
        assert used(owner.api, UUID(owner.org), "members") == FEW

    def test_inviting_again_wants_the_organization_within_its_limit(self, owner: people.Person) -> None:
        subscribe(UUID(owner.org), "pro")
        offers = [self.invite(owner) for _ in range(FEW)]
        subscribe(UUID(owner.org), "free")
        assert self.invite(owner, expect=402, email=offers[0]["email"])["used"] == FEW + 1

    def test_an_expired_invitation_that_is_replaced_takes_one(self, owner: people.Person) -> None:
        offers = [self.invite(owner) for _ in range(FEW - 1)]
        sql(UUID(owner.org), "UPDATE invitations SET expires_at = now() WHERE id = :id", id=offers[0]["id"])
        self.invite(owner)
        assert self.invite(owner, expect=402, email=offers[0]["email"])["used"] == FEW
        listed = owner.api.get(f"/organizations/{owner.org}/invitations", expect=200)["items"]
        assert offers[0]["id"] in [item["id"] for item in listed]

    @pytest.mark.parametrize("way", ["registering", "joining"])
    def test_accepting_wants_the_organization_within_its_limit(self, app: Any, owner: people.Person, way: str) -> None:
        org = UUID(owner.org)
        subscribe(org, "pro")
        person = people.register(app)
        email = people.address() if way == "registering" else person.email
        token = self.invite(owner, email=email)["invitation_token"]
        others = [self.invite(owner) for _ in range(FEW - 1)]
        subscribe(org, "free")

        def accept(expect: int) -> Any:
            if way == "joining":
                return person.api.post("/organizations/invitations/accept", {"token": token}, expect=expect)
            body = people.registration(email=email, invitation_token=token)
            del body["organization_name"]
            return make.Client(app, {}).post("/auth/register", body, expect=expect)

        refusal = accept(402)
        assert (refusal["quota"], refusal["limit"], refusal["used"]) == ("members", FEW, FEW + 1)
        assert used(owner.api, org, "members") == FEW + 1
        owner.api.delete(f"/organizations/{owner.org}/invitations/{others[0]['id']}", expect=204)
        accept(200 if way == "joining" else 201)
        assert owner.api.get(f"/organizations/{owner.org}/members", expect=200)["total"] == 2

    def test_registering_an_organization_is_never_limited(
        self, app: Any, small: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "none.toml").write_text(re.sub(r"= 3\b", "= 0", PLANS))
        small.setenv("EDGEFLOW_PLANS_FILE", str(tmp_path / "none.toml"))
        read_anew()
        owner = people.register(app)
        owner.api.post("/devices", {"name": "pump"}, expect=402)


class TestDeployments:
    @pytest.fixture
    def fleet(self, api: Any, org: UUID) -> Fleet:
        return Fleet(api, org, 2)

    def test_what_is_made_of_one_does_not_count(self, fleet: Fleet) -> None:
        """Rolled back, and begun anew."""
        made = [fleet.deploy(start=False) for _ in range(FEW - 1)]
        last = fleet.deploy()
        fleet.finish(last)
        fleet.deploy(expect=402)
        fleet.act(last, "rollback")
        fleet.finish(last)
        fleet.act(made[0], "start")
        assert used(fleet.api, fleet.org, "deployments_per_month") == FEW

    def test_a_dry_run_says_whether_it_would_be_refused(self, fleet: Fleet) -> None:
        fleet.publish()

        def told() -> Any:
            body = {"flow_id": fleet.flow_id, "target": {"all": True}}
            return fleet.api.post("/deployments?dry_run=true", body, expect=200)["quota"]

        for number in range(FEW):
            assert told() == {
                "quota": "deployments_per_month",
                "limit": FEW,
                "used": number,
                "would_use": number + 1,
                "refused": False,
            }
            fleet.deploy(start=False)
        assert (told()["would_use"], told()["refused"]) == (FEW + 1, True)
        subscribe(fleet.org, "enterprise")
        assert (told()["limit"], told()["refused"]) == (None, False)

    def test_each_month_begins_anew(self, fleet: Fleet) -> None:
        for _ in range(FEW):
            fleet.deploy(start=False)
        fleet.deploy(expect=402)
        fleet.sql("UPDATE usage_months SET month = month - interval '1 month'")
        for number in range(FEW):
            assert counted(fleet.api) == number
            fleet.deploy(start=False)
        fleet.deploy(expect=402)
        months = sql(fleet.org, "SELECT deployments FROM usage_months ORDER BY month").scalars().all()
        assert months == [FEW, FEW]

    def test_what_was_deleted_was_made_all_the_same(self, fleet: Fleet) -> None:
        """A flow takes its deployments with it; that gives no places back."""
        for number in range(FEW):
            another = Fleet(fleet.api, fleet.org)
            another.act(another.deploy(start=False), "cancel")
            fleet.api.delete(f"/flows/{another.flow_id}", expect=204)
            assert used(fleet.api, fleet.org, "deployments_per_month") == 0
            assert counted(fleet.api) == number + 1
        assert fleet.api.get("/billing/usage", expect=200)["totals"]["deployments"] == FEW
        refusal = fleet.deploy(expect=402)
        assert (refusal["quota"], refusal["used"]) == ("deployments_per_month", FEW)

    def test_claims_at_the_limit_never_pass_it(self, org: UUID) -> None:
        """Twenty at once, of which some give up what they claimed: a place that is given up is free again."""

        together = threading.Barrier(20)

        def claim(number: int) -> bool:
            together.wait(10)
            try:
                with db.transaction(org) as session:
                    quotas.claim(org, "deployments_per_month")
                    session.execute(text("SELECT pg_sleep(0.05)"))  # a claim is not over before its commit
                    if number % 4 == 0:
                        raise InterruptedError
            except (QuotaExceeded, InterruptedError):
                return False
            return True

        for _ in range(5):
            sql(org, "DELETE FROM usage_months")
            assert sum(at_once(20, claim)) == FEW
            assert sql(org, "SELECT deployments FROM usage_months").scalar() == FEW

    def test_an_unlimited_plan_counts_as_well(self, org: UUID) -> None:
        """It may become smaller in the course of the month."""
        subscribe(org, "enterprise")

        def claim(_number: int) -> None:
            with db.transaction(org):
                quotas.claim(org, "deployments_per_month")

        at_once(20, claim)
        subscribe(org, "free")
        with db.transaction(org), pytest.raises(QuotaExceeded) as refusal:
            quotas.claim(org, "deployments_per_month")
        assert refusal.value.extra["used"] == 20

    def test_a_deployment_that_cannot_be_is_refused_as_that(self, fleet: Fleet) -> None:
        for _ in range(FEW):
            fleet.deploy(start=False)
        fleet.deploy(expect=404, flow_id=str(uuid4()))
        fleet.deploy(expect=400, target={"tags": ["none such"]})


def test_what_is_there_when_the_plan_becomes_smaller_stays(api: Any, org: UUID) -> None:
    subscribe(org, "pro")
    made = [api.post("/devices", {"name": "pump"}, expect=201)["id"] for _ in range(MORE)]
    subscribe(org, "free")
    refusal = api.post("/devices", {"name": "pump"}, expect=402)
    assert (refusal["limit"], refusal["used"]) == (FEW, MORE)
    api.put(f"/devices/{made[0]}", {"name": "valve"}, expect=200)
    assert api.get("/devices", expect=200)["total"] == MORE
    for device_id in made[FEW - 1 :]:
        api.post("/devices", {"name": "pump"}, expect=402)
        api.delete(f"/devices/{device_id}", expect=204)
    api.post("/devices", {"name": "pump"}, expect=201)


def test_a_plan_that_is_sold_no_more_counts_as_the_free_one(api: Any, org: UUID) -> None:
    subscribe(org, "gone")
    for _ in range(FEW):
        api.post("/devices", {"name": "pump"}, expect=201)
    assert "the plan Free includes" in api.post("/devices", {"name": "pump"}, expect=402)["error"]


@pytest.fixture
def populated(app: Any, org: UUID) -> UUID:
    """Two devices, four flows, an owner, an open and an ended invitation, two deployments, seven points today."""
    subscribe(org, "pro")
    make.user(org)
    make.device(org)
    maker = Maker(app, org, "deployments_per_month")
    for _ in range(3):
        Maker(app, org, "flows")(expect=201)
    for _ in range(3):
        maker(expect=201)
    for _ in range(2):
        Maker(app, org, "members")(expect=201)
    sql(org, "UPDATE invitations SET expires_at = now() WHERE id = (SELECT id FROM invitations LIMIT 1)")
    month = "date_trunc('month', now(), 'UTC')"
    sql(org, f"INSERT INTO usage_months VALUES (:org, {month} - interval '1 month', 1000)")
    sql(org, f"UPDATE usage_months SET deployments = 2 WHERE month = {month}")
    midnight = "date_trunc('day', now(), 'UTC')"
    sql(org, f"INSERT INTO usage_points (org_id, hour, points, refused) VALUES (:org, {midnight}, 7, 2)")
    sql(org, f"INSERT INTO usage_points (org_id, hour, points) VALUES (:org, {midnight} - interval '1 hour', 1000)")
    return org


COUNTS = {"devices": 2, "flows": 4, "members": 2, "deployments_per_month": 2, "metric_points_per_day": 7}


def test_the_overview(populated: UUID) -> None:
    before = datetime.now(UTC)
    with db.transaction(populated):
        found = quotas.overview(populated)
    assert found["plan"] == "pro"
    assert [item["quota"] for item in found["items"]] == list(plans.QUOTAS)
    assert {item["quota"]: item["used"] for item in found["items"]} == COUNTS
    assert {item["limit"] for item in found["items"]} == {MORE}
    ends = {item["quota"]: item["resets_at"] for item in found["items"]}
    assert [ends[quota] for quota in quotas.LASTING] == [None] * 3
    assert rfc3339(ends["metric_points_per_day"])[11:] == "00:00:00Z"
    assert timedelta(0) <= ends["metric_points_per_day"] - before <= timedelta(days=1)
    assert rfc3339(ends["deployments_per_month"])[8:] == "01T00:00:00Z"
    assert timedelta(0) <= ends["deployments_per_month"] - before <= timedelta(days=31)


def test_what_would_be_too_much(populated: UUID) -> None:
    """Of what lasts: the month's deployments and the day's points pass by themselves."""
    with db.transaction(populated):
        assert quotas.too_much(populated, "free") == [{"quota": "flows", "limit": FEW, "used": 4}]
        assert quotas.too_much(populated, "pro") == quotas.too_much(populated, "enterprise") == []


@given(st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)))
def test_when_a_count_begins_anew(moment: datetime) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("app.clock.now", lambda: moment)
        month, day = quotas.resets_at("deployments_per_month"), quotas.resets_at("metric_points_per_day")
    assert month is not None
    assert day is not None
    for end in (month, day):
        assert end > moment
        assert end.time() == datetime.min.time()
    assert month.day == 1
    last = month - timedelta(microseconds=1)
    assert (last.year, last.month) == (moment.year, moment.month)
    assert (day - timedelta(microseconds=1)).date() == moment.date()


def test_without_billing_nothing_is_limited(app: Any, org: UUID, free_of_billing: None) -> None:
    for quota in MADE:
        maker = Maker(app, org, quota)
        for _ in range(FEW + 1):
            maker(expect=201)
    with db.transaction(org):
        assert set(quotas.limits(org).values()) == {None}
        items = quotas.overview(org)["items"]
        assert {item["limit"] for item in items} == {None}
        assert all(item["used"] > FEW for item in items if item["quota"] in MADE)
        assert quotas.too_much(org, "free") == []
        assert quotas.outlook(org, "devices") | {"used": 0, "would_use": 0} == {
            "quota": "devices", "limit": None, "used": 0, "would_use": 0, "refused": False,
        }  # fmt: skip


def test_an_unlimited_plan_waits_for_nobody(app: Any, org: UUID) -> None:
    subscribe(org, "enterprise")
    maker = Maker(app, org, "flows")
    with db.transaction(org):
        db.session.execute(quotas._LOCK, {"org": org, "quota": "flows"})
        with ThreadPoolExecutor(1) as pool:
            pool.submit(maker, expect=201).result(5)
