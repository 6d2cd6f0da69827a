"""The comparison at the end: what HTTP answered, what the database holds, what the devices have done.

Each finding is one line. ``lost``: something that was accepted is not there, or has not come to its end. ``twice``:
something happened more than once. ``torn``: the database, its events and the devices tell different stories.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.faults.world import World

FINAL = ("succeeded", "already_installed", "failed", "timed_out", "rejected", "canceled", "removed", "superseded")
DONE = ("succeeded", "already_installed")


@dataclass
class Findings:
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)

    @property
    def all(self) -> list[str]:
        return [*self.lost, *self.twice, *self.torn]


def check(world: World) -> Findings:
    """Compare, once everything stands still."""
    found, told = Findings(torn=list(world.remarks)), world.fleet.report()
    executions = world.rows(_EXECUTIONS, org=_org(world))
    _accepted(world, found)
    _one_each(world, executions, found)
    _ledgers(world, executions, told["ledger"], found)
    _versions(world, told["flows"], found)
    _events(world, found)
    return found


def _org(world: World) -> Any:
    return world.rows("SELECT org_id FROM flows WHERE id = %(id)s", id=world.flow_id)[0][0]


_EXECUTIONS = "SELECT deployment_id::text, device_id::text, state FROM executions WHERE org_id = %(org)s"


def _accepted(world: World, found: Findings) -> None:
    """What was answered with 2xx is there and has ended, and nothing else is there."""
    query = "SELECT id::text, status, next_check_at IS NULL FROM deployments WHERE org_id = %(org)s"
    stored = {row[0]: row for row in world.rows(query, org=_org(world))}
    for deployment_id in world.user.accepted:
        if deployment_id not in stored:
            found.lost.append(f"deployment {deployment_id} was answered and is not there")
    for deployment_id, status, at_rest in stored.values():
        if status not in ("succeeded", "failed", "canceled") or not at_rest:
            found.lost.append(f"deployment {deployment_id} is {status}, not at its end")
    for deployment_id in stored.keys() - set(world.user.accepted):
        found.twice.append(f"deployment {deployment_id} is there, and no answer named it")


def _one_each(world: World, executions: Iterable[Any], found: Findings) -> None:
    """Each deployment has each device once, in a final state."""
    devices = {member.device_id for member in world.members}
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for deployment_id, device_id, state in executions:
        seen[deployment_id][device_id] += 1
        if state not in FINAL:
            found.lost.append(f"device {device_id} is {state} in deployment {deployment_id}")
    for deployment_id in world.user.accepted:
        found.lost += [f"{deployment_id} lacks device {one}" for one in devices - seen[deployment_id].keys()]
        found.twice += [
            f"{deployment_id} has device {one} {n} times" for one, n in seen[deployment_id].items() if n > 1
        ]


_ASKED = """
SELECT data->>'device_id', deployment_id::text, command_id::text FROM deployment_events
WHERE org_id = %(org)s AND kind = 'execution' AND data->>'state' = 'in_progress'
"""


def _ledgers(world: World, executions: Iterable[Any], ledgers: dict[str, dict[str, int]], found: Findings) -> None:
    """No device applied an id twice, or one that nobody gave it; and whoever succeeded did apply one.

    An event loses its command id to a late answer, so such an event vouches for one id that is not named any more.
    """
    asked: dict[tuple[str, str], list[str | None]] = defaultdict(list)
    for device_id, deployment_id, command_id in world.rows(_ASKED, org=_org(world)):
        asked[device_id, deployment_id].append(command_id)
    given: dict[str, list[str | None]] = defaultdict(list)
    for (device_id, _deployment), ids in asked.items():
        given[device_id] += ids
    for device_id, ledger in ledgers.items():
        found.twice += [f"device {device_id} applied {one} {n} times" for one, n in ledger.items() if n > 1]
        unknown = ledger.keys() - set(given[device_id])
        if len(unknown) > given[device_id].count(None):
            found.torn.append(f"device {device_id} applied what nobody asked: {sorted(unknown)}")
    for deployment_id, device_id, state in executions:
        ids = asked[device_id, deployment_id]
        if state in DONE and None not in ids and not ledgers.get(device_id, {}).keys() & set(ids):
            found.torn.append(f"device {device_id} is {state} in {deployment_id} and has applied nothing")


_INSTALLED = "SELECT device_id::text, version FROM installations WHERE flow_id = %(flow)s AND replaced_at IS NULL"
_HELD_TWICE = """
SELECT device_id::text FROM installations WHERE flow_id = %(flow)s AND replaced_at IS NULL
GROUP BY device_id HAVING count(*) > 1
"""


def _versions(world: World, flows: dict[str, list[dict[str, Any]]], found: Findings) -> None:
    """Each device runs what the ledger of installations says."""
    recorded = dict(world.rows(_INSTALLED, flow=world.flow_id))
    for device_id, listed in flows.items():
        running = {flow["version"] for flow in listed if flow["id"] == world.flow_id and flow["status"] == "running"}
        if running != ({recorded[device_id]} if recorded.get(device_id) else set()):
            found.torn.append(f"device {device_id} runs {running}, recorded is {recorded.get(device_id)}")
    found.twice += [f"device {row[0]} has two current versions" for row in world.rows(_HELD_TWICE, flow=world.flow_id)]


_LAST_EVENTS = """
WITH last AS (
    SELECT DISTINCT ON (v.data->>'execution_id') v.data->>'execution_id' AS id, v.data->>'state' AS state
    FROM deployment_events v WHERE v.org_id = %(org)s AND v.kind = 'execution'
    ORDER BY v.data->>'execution_id', v.id DESC
)
SELECT e.id::text, e.state, last.state FROM executions e LEFT JOIN last ON last.id = e.id::text
WHERE e.org_id = %(org)s AND e.state IS DISTINCT FROM coalesce(last.state, 'queued')
UNION ALL
SELECT d.id::text, d.status, v.status FROM deployments d LEFT JOIN LATERAL (
    SELECT data->>'status' AS status FROM deployment_events
    WHERE deployment_id = d.id AND kind = 'status' ORDER BY id DESC LIMIT 1) v ON true
WHERE d.org_id = %(org)s AND d.status IS DISTINCT FROM v.status
"""


def _events(world: World, found: Findings) -> None:
    """The events end where the rows stand."""
    for row_id, state, told in world.rows(_LAST_EVENTS, org=_org(world)):
        found.torn.append(f"{row_id} is {state}, its events say {told}")
