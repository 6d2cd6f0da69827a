"""The API contract: its 68 endpoints, and what stands beside them. ``{id}`` is any path parameter."""

CONTRACT = """
POST /auth/register
POST /auth/login
POST /auth/refresh
POST /auth/logout
GET /auth/profile
PUT /auth/profile
POST /auth/change-password
GET /devices
POST /devices
GET /devices/{id}
PUT /devices/{id}
DELETE /devices/{id}
GET /devices/{id}/status
GET /devices/{id}/shadow
PUT /devices/{id}/shadow
GET /edge-nodes/{id}/health
GET /edge-nodes/{id}/node-types
GET /edge-nodes/{id}/editor-url
GET /edge-nodes/{id}/flows
GET /edge-nodes/{id}/flows/{id}
POST /edge-nodes/{id}/flows
PUT /edge-nodes/{id}/flows/{id}
DELETE /edge-nodes/{id}/flows/{id}
POST /edge-nodes/{id}/flows/{id}/start
POST /edge-nodes/{id}/flows/{id}/stop
PUT /edge-nodes/{id}/configure
GET /organizations
GET /organizations/{id}
PUT /organizations/{id}
GET /flows
POST /flows
GET /flows/{id}
PUT /flows/{id}
DELETE /flows/{id}
POST /flows/{id}/publish
GET /deployments
POST /deployments
GET /deployments/{id}
POST /deployments/{id}/start
POST /deployments/{id}/pause
POST /deployments/{id}/rollback
GET /billing/plans
GET /billing/subscription
POST /billing/subscription
PUT /billing/subscription
DELETE /billing/subscription
POST /billing/subscription/resume
GET /billing/usage
GET /billing/quotas
GET /billing/invoices
GET /billing/invoices/{id}
GET /billing/invoices/{id}/download
POST /billing/payment-methods
GET /billing/payment-methods
DELETE /billing/payment-methods/{id}
POST /billing/webhooks/stripe
GET /metrics
GET /metrics/devices/{id}
GET /logs
GET /logs/devices/{id}
GET /alerts
POST /alerts
GET /alerts/{id}
PUT /alerts/{id}
DELETE /alerts/{id}
POST /alerts/{id}/acknowledge
GET /tunnel
GET /tunnel/status
"""

# What semantics.md adds, so that the contract's operations make sense.
BEYOND = """
GET /auth/api-keys
POST /auth/api-keys
DELETE /auth/api-keys/{id}
GET /organizations/{id}/members
POST /organizations/{id}/members
PUT /organizations/{id}/members/{id}
DELETE /organizations/{id}/members/{id}
GET /organizations/{id}/invitations
DELETE /organizations/{id}/invitations/{id}
POST /organizations/invitations/accept
POST /devices/provision
GET /flows/{id}/versions
GET /flows/{id}/versions/{id}
GET /deployments/{id}/executions
GET /deployments/{id}/events
GET /logs/stream
GET /devices/{id}/deployments
POST /devices/{id}/flows/{id}/adopt
POST /devices/{id}/flows/{id}/restore
POST /deployments/{id}/cancel
POST /deployments/{id}/approve
GET /alerts/{id}/notifications
POST /alerts/{id}/notifications/{id}/replay
GET /alerts/{id}/events
GET /alerts/{id}/instances
POST /alerts/preview
POST /billing/payment-methods/{id}/default
POST /billing/checkout-session
POST /billing/portal-session
"""

# No credentials are asked of these: sign-in itself, a code or signature in the body, and what holds no data.
PUBLIC = """
POST /auth/register
POST /auth/login
POST /auth/refresh
POST /devices/provision
POST /billing/webhooks/stripe
"""

# Outside the API: the document, probes, and the tunnel (whose first frame carries the credentials).
UNDOCUMENTED = """
GET /tunnel
GET /docs
GET /docs/assets/{id}
GET //favicon.ico
GET /openapi.json
GET //healthz
GET //readyz
GET //internal/metrics
GET //tunnel
"""


def pairs(listing: str) -> set[tuple[str, str]]:
    """``(method, path)`` of each line; a path that begins with ``//`` lies outside ``/api/v1``."""
    found = set()
    for line in listing.split("\n"):
        if line:
            method, path = line.split()
            found.add((method, path[1:] if path.startswith("//") else f"/api/v1{path}"))
    return found
