"""Flows over the API: drafts, versions, what stands in the way of a deletion."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from tests import make

DEFINITION = {"nodes": [{"id": "a", "type": "inject", "wires": [["b"]]}, {"id": "b", "type": "debug"}]}
OTHER = {"nodes": [{"id": "a", "type": "debug"}], "connections": []}


def draft(api: Any, **fields: Any) -> Any:
    return api.post("/flows", {"name": "Watch", "definition": DEFINITION, **fields}, expect=201)


def test_a_draft_is_created_read_and_changed(api: Any) -> None:
    flow = draft(api, description="first")
    assert (flow["status"], flow["latest_version"], flow["has_unpublished_changes"]) == ("draft", None, True)
    assert api.get(f"/flows/{flow['id']}", expect=200) == flow
    changed = api.put(f"/flows/{flow['id']}", {"name": "Guard", "definition": OTHER}, expect=200)
    assert (changed["name"], changed["description"], changed["definition"]) == ("Guard", "first", OTHER)
    assert changed["content_hash"] != flow["content_hash"]
    assert changed["updated_at"] > flow["updated_at"]


def test_creation_tells_where_the_flow_is(api: Any) -> None:
    answer = api.post("/flows", {"name": "Watch", "definition": DEFINITION})
    assert answer.headers["Location"] == f"/api/v1/flows/{answer.json['id']}"


def test_faults_are_told_with_their_path(api: Any) -> None:
    broken = {"nodes": [*DEFINITION["nodes"], {"id": "a", "type": "debug"}]}
    error = api.post("/flows", {"name": "Watch", "definition": broken}, expect=400)
    assert error["details"] == {"definition.nodes.2.id": ["Another node has this id."]}
    big = {"nodes": [{"id": "a", "type": "debug", "config": {"text": "x" * 1024 * 1024}}]}
    assert api.post("/flows", {"name": "Watch", "definition": big}, expect=400)["details"] == {
        "definition": ["Larger than 1 MiB."]
    }
    error = api.post("/flows", {"name": "", "definition": DEFINITION, "colour": 1}, expect=400)
    assert error["details"].keys() == {"name", "colour"}


def test_a_published_version_never_changes(api: Any) -> None:
    flow = draft(api)
    published = api.post(f"/flows/{flow['id']}/publish", expect=200)
    assert (published["version"], published["status"], published["has_unpublished_changes"]) == (1, "published", False)
    changed = api.put(f"/flows/{flow['id']}", {"definition": OTHER}, expect=200)
    assert (changed["latest_version"], changed["has_unpublished_changes"]) == (1, True)
    assert api.get(f"/flows/{flow['id']}/versions/1", expect=200)["definition"] == DEFINITION
    assert api.post(f"/flows/{flow['id']}/publish", expect=200)["version"] == 2
    listed = api.get(f"/flows/{flow['id']}/versions", expect=200)
    assert [(item["version"], "definition" in item) for item in listed["items"]] == [(2, False), (1, False)]
    api.get(f"/flows/{flow['id']}/versions/3", expect=404)


def test_an_unchanged_draft_answers_the_version_that_is_there(api: Any) -> None:
    flow = draft(api)
    api.post(f"/flows/{flow['id']}/publish", expect=200)
    api.put(f"/flows/{flow['id']}", {"name": "Another name", "definition": DEFINITION}, expect=200)
    assert api.post(f"/flows/{flow['id']}/publish", expect=200)["version"] == 1
    assert api.get(f"/flows/{flow['id']}/versions", expect=200)["total"] == 1


def test_publishing_at_the_same_moment_makes_one_version(app: Any, org: Any) -> None:
    flow = draft(make.client(app, org))
    clients = [make.client(app, org) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda one: one.post(f"/flows/{flow['id']}/publish", expect=200), clients))
    assert [answer["version"] for answer in answers] == [1, 1, 1, 1]


def test_lists_filter_sort_and_leave_the_definition_out(api: Any) -> None:
    for name in ("pump 100%", "Pump two", "valve"):
        flow = draft(api, name=name)
    api.post(f"/flows/{flow['id']}/publish", expect=200)

    def names(query: str) -> list[str]:
        return [item["name"] for item in api.get(f"/flows?{query}", expect=200)["items"]]

    assert names("q=PUMP&sort=name") == ["Pump two", "pump 100%"]
    assert names("q=100%25") == ["pump 100%"]
    assert names("status=published") == ["valve"]
    assert names("sort=-created_at&limit=1") == ["valve"]
    assert "definition" not in api.get("/flows", expect=200)["items"][0]
    api.get("/flows?sort=colour", expect=400)


def test_a_flow_is_deleted_unless_a_deployment_uses_it(api: Any, org: Any) -> None:
    make.device(org)
    flow = draft(api)
    api.post(f"/flows/{flow['id']}/publish", expect=200)
    made = api.post("/deployments", {"flow_id": flow["id"], "target": {"all": True}}, expect=201)
    assert "Watch v1" in api.delete(f"/flows/{flow['id']}", expect=409)["error"]
    api.post(f"/deployments/{made['id']}/cancel", expect=200)
    api.delete(f"/flows/{flow['id']}", expect=204)
    api.get(f"/flows/{flow['id']}", expect=404)


def test_roles_and_other_tenants(app: Any, api: Any, org: Any) -> None:
    flow = draft(api)
    viewer = make.client(app, org, "viewer")
    viewer.get(f"/flows/{flow['id']}", expect=200)
    viewer.post("/flows", {"name": "x", "definition": OTHER}, expect=403)
    viewer.post(f"/flows/{flow['id']}/publish", expect=403)
    stranger = make.client(app, make.organization())
    for path in (f"/flows/{flow['id']}", f"/flows/{flow['id']}/versions", f"/flows/{uuid4()}"):
        assert stranger.get(path, expect=404)["error"] == "flow not found"
    stranger.delete(f"/flows/{flow['id']}", expect=404)
    stranger.post(f"/flows/{flow['id']}/publish", expect=404)
