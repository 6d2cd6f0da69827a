"""What ``/tunnel/status`` shows."""

from marshmallow import fields

from app.api_schema import Schema, Time
from app.pagination import page_of


class ConnectionRead(Schema):
    """One device's live tunnel; the counters are at most some 5 seconds old."""

    device_id = fields.UUID()
    device_name = fields.String(metadata={"example": "pump-7"})
    connected_at = Time()
    last_seen_at = Time()
    gateway = fields.String(metadata={"description": "the web process that holds the socket", "example": "9d1c…"})
    session = fields.Integer(metadata={"description": "the connection's epoch; a newer one is higher", "example": 42})
    protocol = fields.Integer(metadata={"example": 2})
    remote_addr = fields.String(allow_none=True, metadata={"example": "192.0.2.7"})
    in_flight = fields.Integer(metadata={"description": "commands on their way", "example": 0})
    bytes_in = fields.Integer(metadata={"example": 1024})
    bytes_out = fields.Integer(metadata={"example": 2048})
    rtt_ms = fields.Float(allow_none=True, metadata={"description": "round trip of the last ping", "example": 12.5})


ConnectionPage = page_of(ConnectionRead)
