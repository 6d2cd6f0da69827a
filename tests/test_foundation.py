"""The frame around every route: errors, ids, documentation."""

from typing import Any


def test_router_errors_have_the_one_shape(app: Any) -> None:
    answer = app.test_client().get("/api/v1/nope", headers={"X-Request-Id": "abc-1"})
    expected = {"error": "resource not found", "code": "NOT_FOUND", "status": 404, "request_id": "abc-1"}
    assert (answer.status_code, answer.json, answer.headers["X-Request-Id"]) == (404, expected, "abc-1")


def test_health_answers(app: Any) -> None:
    assert app.test_client().get("/healthz").status_code == 200
    checks = app.test_client().get("/readyz").json["checks"]
    assert (checks["postgresql"], checks["migrations"], checks["redis"]) == (True, True, True)


def test_documentation_names_no_outside_host(app: Any) -> None:
    page = app.test_client().get("/api/v1/docs").text
    assert "swagger-ui-bundle.js" in page
    assert "https://" not in page
    assert app.test_client().get("/api/v1/docs/assets/swagger-ui-bundle.js").status_code == 200
