"""Every route stands in the contract or on a list, and says who may call it."""

import re
from collections.abc import Iterator
from typing import Any

from tests.guards.contract import BEYOND, CONTRACT, PUBLIC, UNDOCUMENTED, pairs


def routes(app: Any) -> Iterator[tuple[tuple[str, str], Any]]:
    """``((method, path), view function of that method)`` of the whole application."""
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<[^>]+>", "{id}", rule.rule)
        view = app.view_functions[rule.endpoint]
        for method in rule.methods - {"HEAD", "OPTIONS"}:
            yield (method, path), getattr(getattr(view, "view_class", None), method.lower(), view)


def documented(app: Any) -> set[tuple[str, str]]:
    paths = app.test_client().get("/api/v1/openapi.json").json["paths"]
    return {
        (method.upper(), re.sub(r"{\w+}", "{id}", path))
        for path, operations in paths.items()
        for method in operations.keys() & {"get", "post", "put", "delete", "patch"}
    }


def test_the_contract_has_68_endpoints() -> None:
    assert len(pairs(CONTRACT)) == 68


def test_the_application_has_the_contracts_routes_and_the_listed_ones_and_no_others(app: Any) -> None:
    expected = pairs(CONTRACT) | pairs(BEYOND) | pairs(UNDOCUMENTED)
    assert {route for route, _view in routes(app)} == expected


def test_every_route_is_in_the_document(app: Any) -> None:
    assert documented(app) == (pairs(CONTRACT) | pairs(BEYOND)) - pairs(UNDOCUMENTED)


def test_every_route_names_a_permission_or_is_public(app: Any) -> None:
    notes = {route: getattr(view, "_apidoc", {}) for route, view in routes(app)}
    assert {route for route, note in notes.items() if "access" not in note} == pairs(PUBLIC) | pairs(UNDOCUMENTED)
    assert {route for route, note in notes.items() if note.get("public")} == pairs(PUBLIC)
