"""``GET /devices?limit=50`` in bare Flask and psycopg: the same statements, no sign-in, limits or policies.

``DATABASE_URL`` names a superuser, to whom row-level security does not apply; ``ORG_ID`` the organization.
"""

import json
import os
import queue

import psycopg
from flask import Flask, Response, request
from psycopg.rows import dict_row

CONNECTIONS = 20
COUNT = """
SELECT count(*) AS total FROM devices d
LEFT JOIN connections c ON c.org_id = d.org_id AND c.device_id = d.id WHERE d.org_id = %(org)s
"""
LIST = """
SELECT d.id, d.name, d.type, d.tags, d.metadata, d.hardware_info, d.network_info, d.agent_version, d.protocol,
    d.capabilities, d.disabled_at IS NOT NULL AS disabled, d.created_at, d.updated_at, c.last_seen_at, c.connected_at,
    CASE WHEN d.disabled_at IS NOT NULL THEN 'disabled' WHEN c.device_id IS NULL THEN 'pending'
        WHEN NOT (c.disconnected_at IS NULL AND c.last_seen_at > now() - interval '75 seconds') THEN 'offline'
        WHEN d.error IS NOT NULL THEN 'error' ELSE 'online' END AS status
FROM devices d LEFT JOIN connections c ON c.org_id = d.org_id AND c.device_id = d.id
WHERE d.org_id = %(org)s ORDER BY d.created_at DESC, d.id DESC LIMIT %(limit)s OFFSET %(offset)s
"""

app = Flask(__name__)
_spare: "queue.LifoQueue[psycopg.Connection[dict[str, object]] | None]" = queue.LifoQueue()
for _ in range(CONNECTIONS):
    _spare.put(None)


@app.get("/devices")
def devices() -> Response:
    values = {
        "org": os.environ["ORG_ID"],
        "limit": int(request.args.get("limit", "50")),
        "offset": int(request.args.get("offset", "0")),
    }
    connection = _spare.get() or psycopg.connect(os.environ["DATABASE_URL"], row_factory=dict_row)
    try:
        total = connection.execute(COUNT, values).fetchone()
        items = connection.execute(LIST, values).fetchall()
        connection.commit()
    finally:
        _spare.put(connection)
    body = {"items": items, **(total or {}), "limit": values["limit"], "offset": values["offset"]}
    return Response(json.dumps(body, default=str), mimetype="application/json")
