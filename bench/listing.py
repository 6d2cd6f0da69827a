"""``GET /deployments/{id}/executions`` of a large deployment: the first page, one in the middle by cursor, and the
first one of a state that 1 in 100 are in, or nearly all.
"""

import statistics
import time
from typing import Any
from uuid import UUID

import httpx
from sqlalchemy import text

from app import db
from bench import platform
from bench.platform import House
from bench.report import Figure, at_most, told

TIMES = 40
LIMIT = 50
SLOWER = 2  # a page may cost so many times the first one
FAILED_EVERY = 100


def figures(house: House, rows: int) -> list[Figure]:
    """Median times of each kind of page, among ``rows`` executions."""
    org_id, token = house.sign_up()
    platform.devices(rows, org_id)
    with httpx.Client(
        base_url=f"{house.url()}/api/v1", headers={"Authorization": f"Bearer {token}"}, timeout=60
    ) as http:
        path = f"/deployments/{_deployment(http, org_id)}/executions"
        middle = _cursor(http, path, rows // 2)
        first = _median(http, path, {"limit": LIMIT})
        others = {
            "by_cursor": {"limit": LIMIT, "cursor": middle},
            "by_rare_state": {"limit": LIMIT, "state": "failed"},
            "by_common_state": {"limit": LIMIT, "state": "succeeded"},
        }
        found = [told("executions.first_page.p50_ms", first, f"ms, of {rows} rows")]
        for name, query in others.items():
            taken = _median(http, path, query)
            found.append(told(f"executions.{name}.p50_ms", taken, f"ms, of {rows} rows"))
            found.append(at_most(f"executions.{name}_over_first_page", taken / first, "times", SLOWER))
        return found


def _deployment(http: httpx.Client, org_id: UUID) -> str:
    """One that has gone through all its devices, without any of them being there."""
    definition = {"nodes": [{"id": "a", "type": "debug"}], "connections": []}
    flow = _posted(http, "/flows", {"name": "listed", "definition": definition})
    _posted(http, f"/flows/{flow['id']}/publish", None)
    body = {"flow_id": flow["id"], "target": {"all": True}, "start": True}
    made = str(_posted(http, "/deployments", body)["id"])
    _posted(http, f"/deployments/{made}/cancel", None)
    statement = (
        "UPDATE executions e "
        "SET state = CASE mod(n.number, :every) WHEN 0 THEN 'failed' ELSE 'succeeded' END, attempt = 1 "
        "FROM (SELECT id, row_number() OVER (ORDER BY id) AS number FROM executions WHERE deployment_id = :id) n "
        "WHERE e.id = n.id"
    )
    with db.transaction(org_id) as session:
        session.execute(text(statement), {"id": made, "every": FAILED_EVERY})
    return made


def _posted(http: httpx.Client, path: str, body: Any) -> Any:
    answer = http.post(path, json=body)
    answer.raise_for_status()
    return answer.json()


def _cursor(http: httpx.Client, path: str, skip: int) -> str:
    """Where the page after so many rows begins."""
    query = {"limit": min(500, max(1, skip // 4)), "offset": skip // 2}
    page = http.get(path, params=query).raise_for_status().json()
    return str(page["next_cursor"])


def _median(http: httpx.Client, path: str, query: dict[str, Any]) -> float:
    """Milliseconds; the first few are for caches and plans."""
    taken = []
    for _ in range(TIMES):
        began = time.perf_counter()
        http.get(path, params=query).raise_for_status()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[TIMES // 4 :]) * 1000
