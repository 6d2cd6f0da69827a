"""S1: no credential of one tenant ever reads or changes a row of another.

Generated from the OpenAPI document: every operation, with every kind of credential, with own, foreign and random ids.
"""

import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from flask_jwt_extended import create_access_token
from sqlalchemy import text

from app import db
from app.auth.models import Session
from app.clock import now
from tests.guards import crawler, population
from tests.guards.crawler import FOREIGN, OWN, RANDOM, Operation, Request
from tests.guards.population import Population
from tests.guards.test_schema import TENANT_TABLES

Headers = Callable[[], dict[str, str]]

# 503: the population's devices are offline, Stripe is away; 501: not built yet.
HONEST = {501, 503}


@pytest.fixture(scope="module")
def operations(app: Any) -> list[Operation]:
    return crawler.operations(app.test_client().get("/api/v1/openapi.json").json)


@pytest.fixture
def mine() -> Population:
    return population.populate("Mine")


@pytest.fixture(scope="module")
def theirs() -> Population:
    return population.populate("Theirs")


def sign_in(app: Any, who: Population) -> dict[str, str]:
    """A fresh sign-in of the owner, since an operation may end the one that it came with."""
    with db.transaction() as session:
        opened = Session(user_id=who.user_id, org_id=who.org_id, expires_at=now() + timedelta(hours=1))
        session.add(opened)
    with app.app_context():
        token = create_access_token(str(who.user_id), additional_claims={"sid": str(opened.id)})
    return {"Authorization": f"Bearer {token}"}


@pytest.fixture(params=["owner", "owner's key", "viewer's key", "device's key"])
def credentials(request: Any, app: Any, mine: Population) -> Headers:
    return {
        "owner": lambda: sign_in(app, mine),
        "owner's key": lambda: {"X-API-Key": mine.owner_key},
        "viewer's key": lambda: {"X-API-Key": mine.viewer_key},
        "device's key": lambda: {"X-API-Key": mine.device_key},
    }[request.param]


def send(app: Any, request: Request, headers: dict[str, str]) -> Any:
    answer = app.test_client().open(request.url, method=request.method, json=request.body, headers=headers)
    if answer.mimetype == "text/event-stream":
        beginning = next(iter(answer.response))  # there is no end
        answer.close()
        answer.set_data(beginning)
    return answer


def state(who: Population) -> dict[str, str]:
    """A digest of all of a tenant's rows, table by table; ``last_used_at`` and the like included."""
    digests = ", ".join(
        f"(SELECT md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) FROM {table} t "
        f"WHERE {'id' if table == 'organizations' else 'org_id'} = :org) AS {table}"
        for table in TENANT_TABLES
    )
    person = "(SELECT u::text FROM users u WHERE id = :user) AS users"
    with db.transaction(system=True) as session:
        row = session.execute(text(f"SELECT {digests}, {person}"), {"org": who.org_id, "user": who.user_id}).one()
    return dict(row._mapping)


def said(answer: Any, request: Request) -> tuple[int, str]:
    """What an answer tells, apart from its request id and from the ids that the request itself named."""
    words = re.sub(r'"request_id":"[^"]*"', "", answer.text)
    for identifier in request.ids:
        words = words.replace(identifier, "ID")
    return answer.status_code, words


def secrets_of(who: Population) -> set[str]:
    return {
        str(value)
        for value in (
            who.org_id, who.user_id, who.key_id, who.invitation_id, who.device_id, who.flow_id, who.deployment_id,
            who.invoice_id, who.payment_method_id, f"{who.user_id}@example.com",
        )
    }  # fmt: skip


def test_the_crawler_finds_every_kind_of_id(operations: list[Operation]) -> None:
    assert {place for operation in operations for place in operation.places} == crawler.FIELDS.keys()


def test_a_foreign_id_answers_as_one_that_does_not_exist(
    app: Any, operations: list[Operation], credentials: Headers, mine: Population, theirs: Population
) -> None:
    before, told = state(theirs), []
    for operation in operations:
        for way in crawler.choices(operation):
            nobody = {place: OWN if kind == OWN else RANDOM for place, kind in way.items()}
            answers = []
            for ids in (way, nobody):
                request = crawler.request(operation, ids, mine, theirs)
                answers.append(said(send(app, request, credentials()), request))
            if answers[0] != answers[1]:
                told.append((str(operation), way, *answers))
    assert told == []
    assert state(theirs) == before


def test_own_ids_work_show_nothing_foreign_and_change_nothing_foreign(
    app: Any, operations: list[Operation], credentials: Headers, mine: Population, theirs: Population
) -> None:
    before, faults = state(theirs), []
    for operation in operations:
        request = crawler.request(operation, dict.fromkeys(operation.places, OWN), mine, theirs)
        answer = send(app, request, credentials())
        if answer.status_code >= 500 and answer.status_code not in HONEST:
            faults.append((str(operation), answer.status_code, answer.text))
        if any(secret in answer.text for secret in secrets_of(theirs)):
            faults.append((str(operation), "shows", answer.text))
        if state(theirs) != before:
            faults.append((str(operation), "changed", [t for t, d in state(theirs).items() if before[t] != d]))
            before = state(theirs)
    assert faults == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."},
        {"Authorization": "Bearer garbage"},
        {"X-API-Key": "edgeflow_garbage"},
        {"X-API-Key": "device_garbage"},
    ],
    ids=["none", "unsigned", "garbage", "unknown key", "unknown device"],
)
def test_without_valid_credentials_every_operation_answers_401(
    app: Any, operations: list[Operation], headers: dict[str, str], mine: Population, theirs: Population
) -> None:
    before, let_in = state(theirs), []
    for operation in operations:
        request = crawler.request(operation, dict.fromkeys(operation.places, FOREIGN), mine, theirs)
        answer = send(app, request, headers)
        if operation.protected and (answer.status_code, answer.json["code"]) != (401, "UNAUTHORIZED"):
            let_in.append((str(operation), answer.status_code, answer.text))
    assert let_in == []
    assert state(theirs) == before


def test_another_organization_named_in_the_header_answers_as_one_that_does_not_exist(
    app: Any, operations: list[Operation], mine: Population, theirs: Population
) -> None:
    before, told = state(theirs), []
    nowhere = uuid4()
    for operation in (operation for operation in operations if operation.protected):
        answers = set()
        for organization in (theirs.org_id, nowhere):
            request = crawler.request(operation, dict.fromkeys(operation.places, OWN), mine, theirs)
            headers = {**sign_in(app, mine), "X-Organization-Id": str(organization)}
            answers.add(said(send(app, request, headers), request))
        if len(answers) > 1:
            told.append((str(operation), *answers))
    assert told == []
    assert state(theirs) == before
