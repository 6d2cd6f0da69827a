"""What the tests of devices share: tunnels as rows, jobs as Redis holds them, requests at the same time."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func

from app import db, jobs
from app.devices.models import Connection, epochs


def connect(org_id: UUID, device_id: UUID, *, silent: float = 0, gone: bool = False, gateway: str = "web-1") -> None:
    """Give the device a tunnel that was last heard from ``silent`` seconds ago; ``gone``: closed since."""
    with db.transaction(org_id) as session:
        session.add(
            Connection(
                org_id=org_id,
                device_id=device_id,
                epoch=session.scalar(epochs),
                gateway=gateway,
                connected_at=func.now() - timedelta(seconds=silent + 60),
                last_seen_at=func.now() - timedelta(seconds=silent),
                disconnected_at=func.now() if gone else None,
            )
        )


def jobs_for(name: str, *first: Any) -> list[list[Any]]:
    """The arguments of every job ``name`` that waits in Redis and begins with the arguments given."""
    stored: Any = jobs.broker().client.hgetall(f"{jobs.NAMESPACE}:{name.split('.')[0]}.msgs")
    messages = [json.loads(raw) for raw in stored.values()]
    wanted = [str(argument) for argument in first]
    return [m["args"] for m in messages if m["actor_name"] == name and m["args"][: len(wanted)] == wanted]


def at_once(count: int, call: Callable[[int], Any]) -> list[Any]:
    """``call(0) … call(count - 1)``, each in a thread of its own."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(call, range(count)))
