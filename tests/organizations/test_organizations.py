"""Organizations as their members see them, and switching between them."""

from typing import Any
from uuid import uuid4

import pytest

from tests import make
from tests.auth import people
from tests.auth.people import Person
from tests.make import Client


@pytest.fixture
def owner(app: Any) -> Person:
    return people.register(app)


def in_two(app: Any, owner: Person) -> Person:
    """Somebody with an organization of his own who is a viewer of the owner's, too."""
    person = people.register(app, organization_name="Own")
    invitation = {"email": person.email, "role": "viewer"}
    made = owner.api.post(f"/organizations/{owner.org}/members", invitation, expect=201)
    person.api.post("/organizations/invitations/accept", {"token": made["invitation_token"]}, expect=200)
    return person


def test_settings_and_name_change_by_field(app: Any, owner: Person) -> None:
    path = f"/organizations/{owner.org}"
    changed = owner.api.put(path, {"settings": {"time_zone": "UTC"}}, expect=200)
    assert (changed["name"], changed["settings"], changed["role"]) == ("Acme", {"time_zone": "UTC"}, "owner")
    renamed = owner.api.put(path, {"name": "Acme & Co"}, expect=200)
    assert (renamed["name"], renamed["settings"]) == ("Acme & Co", {"time_zone": "UTC"})
    assert renamed["updated_at"] > renamed["created_at"]
    assert owner.api.get(path, expect=200) == renamed
    assert owner.api.get("/organizations", expect=200)["items"] == [renamed]
    assert owner.api.put(path, {}, expect=200) == renamed


@pytest.mark.parametrize(
    "wrong",
    [{"name": ""}, {"name": "x" * 201}, {"name": None}, {"settings": []}, {"settings": {"x": "y" * 33_000}},
     {"settings": {"a": "b\0"}}, {"plan": "pro"}],
)  # fmt: skip
def test_changes_that_are_refused(owner: Person, wrong: dict[str, Any]) -> None:
    answer = owner.api.put(f"/organizations/{owner.org}", wrong, expect=400)
    assert list(answer["details"]) == list(wrong)


def test_settings_nested_too_deep(owner: Person) -> None:
    deep: Any = {}
    for _ in range(400):
        deep = {"a": deep}
    owner.api.put(f"/organizations/{owner.org}", {"settings": deep}, expect=400)


@pytest.mark.parametrize("role", ["owner", "admin", "operator", "viewer"])
def test_who_may_do_what(app: Any, owner: Person, role: str) -> None:
    person = owner if role == "owner" else people.joins(app, owner, role)
    path, manages = f"/organizations/{owner.org}", role in ("owner", "admin")
    for caller in (person.api, make.client(app, owner.org, role)):
        assert caller.get(path, expect=200)["role"] == role
        caller.get(f"{path}/members", expect=200)
        caller.put(path, {"name": "Renamed"}, expect=200 if manages else 403)
        caller.get(f"{path}/invitations", expect=200 if manages else 403)
        invitation = {"email": people.address(), "role": "viewer"}
        caller.post(f"{path}/members", invitation, expect=201 if manages else 403)


def test_another_organization_is_not_there(app: Any, owner: Person) -> None:
    stranger = people.register(app)

    def answers(org: Any) -> list[Any]:
        path = f"/organizations/{org}"
        calls = (("GET", path, None), ("PUT", path, {"name": "Mine"}), ("GET", f"{path}/members", None),
                 ("POST", f"{path}/members", {"email": people.address(), "role": "viewer"}),
                 ("PUT", f"{path}/members/{owner.id}", {"role": "viewer"}),
                 ("DELETE", f"{path}/members/{owner.id}", None), ("GET", f"{path}/invitations", None),
                 ("DELETE", f"{path}/invitations/{uuid4()}", None))  # fmt: skip
        found = [stranger.api.request(*call) for call in calls]
        return [(answer.status_code, {**answer.json, "request_id": ""}) for answer in found]

    foreign, random = answers(owner.org), answers(uuid4())
    assert foreign == random
    assert {status for status, _body in foreign} == {404}
    assert owner.api.get(f"/organizations/{owner.org}", expect=200)["name"] == "Acme"


def test_switching_by_the_header(app: Any, owner: Person) -> None:
    person = in_two(app, owner)
    listed = person.api.get("/organizations", expect=200)
    assert [(item["name"], item["role"]) for item in listed["items"]] == [("Own", "owner"), ("Acme", "viewer")]
    there = {"X-Organization-Id": owner.org}
    seen = person.api.get("/auth/profile", headers=there, expect=200)["organization"]
    assert (seen["name"], seen["role"]) == ("Acme", "viewer")
    person.api.get("/auth/api-keys", headers=there, expect=403)
    person.api.get("/auth/api-keys", expect=200)


def test_a_foreign_header_looks_like_a_random_one(app: Any, owner: Person) -> None:
    stranger = people.register(app)
    for path in ("/organizations", "/auth/profile", "/auth/api-keys", f"/organizations/{stranger.org}"):
        bodies = [
            {**stranger.api.get(path, headers={"X-Organization-Id": str(org)}, expect=403), "request_id": ""}
            for org in (owner.org, uuid4())
        ]
        assert bodies[0] == bodies[1]
    stranger.api.get("/organizations", headers={"X-Organization-Id": "mine"}, expect=400)


def test_the_path_decides_the_organization_and_the_role_there(app: Any, owner: Person) -> None:
    person = in_two(app, owner)
    person.api.put(f"/organizations/{owner.org}", {"name": "Mine"}, expect=403)
    there = {"X-Organization-Id": owner.org}
    person.api.put(f"/organizations/{person.org}", {"name": "Mine"}, headers=there, expect=200)
    assert len(person.api.get(f"/organizations/{owner.org}/members", expect=200)["items"]) == 2
    once = {"Idempotency-Key": "once"}
    body = {"email": people.address(), "role": "viewer"}
    calls = [owner.api.post(f"/organizations/{owner.org}/members", body, headers=once, expect=201) for _ in range(2)]
    assert calls[0] == calls[1]


def test_an_api_key_has_one_organization(app: Any, owner: Person) -> None:
    program = make.client(app, owner.org, "operator")
    page = program.get("/organizations", expect=200)
    assert (page["total"], page["items"][0]["id"], page["items"][0]["role"]) == (1, owner.org, "operator")
    assert page["items"][0].keys() == owner.api.get("/organizations", expect=200)["items"][0].keys()


def test_lists_page_and_sort(app: Any, owner: Person) -> None:
    in_two(app, owner)
    path = f"/organizations/{owner.org}/members"
    first = owner.api.get(f"{path}?limit=1")
    assert (first.json["total"], first.json["items"][0]["user_id"]) == (2, owner.id)
    assert 'rel="next"' in first.headers["Link"]
    assert owner.api.get(f"{path}?sort=-joined_at", expect=200)["items"][1]["user_id"] == owner.id
    for query in ("limit=0", "limit=501", "offset=-1", "sort=password_hash", "lmit=1"):
        for listed in (path, "/organizations", f"/organizations/{owner.org}/invitations", "/auth/api-keys"):
            assert owner.api.get(f"{listed}?{query}").status_code == 400, (listed, query)
    for sort in ("name", "-created_at"):
        owner.api.get(f"/organizations?sort={sort}", expect=200)
        make.client(app, owner.org).get(f"/organizations?sort={sort}", expect=200)


def test_the_documentation_names_every_operation(app: Any) -> None:
    paths = Client(app, {}).get("/openapi.json", expect=200)["paths"]
    ours = [item for path, item in paths.items() if path.startswith(("/api/v1/auth/", "/api/v1/organizations"))]
    operations = [item[method] for item in ours for method in set(item) - {"parameters"}]
    assert len(operations) == 20
    assert [operation for operation in operations if not operation.get("summary")] == []
