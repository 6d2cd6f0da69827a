"""What is asked and answered about a deployment's events."""

from marshmallow import fields, validate

from app.api_schema import Query, Schema, Time
from app.deployments.events import KINDS

MAX_ID = 2**63 - 1


_EXAMPLE = """id: 42
event: status
data: {"id": 42, "kind": "status", "data": {"status": "succeeded"}, "created_at": "2026-11-22T21:51:05.123456Z"}

"""
EVENT_STREAM = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}, "example": _EXAMPLE}}},
    204: {"description": "the stream is over, and everything of it has been seen"},
}


class EventQuery(Query):
    after = fields.Integer(
        load_default=0, validate=validate.Range(0, MAX_ID), metadata={"description": "only events with higher ids"}
    )
    limit = fields.Integer(
        load_default=50, validate=validate.Range(1, 500), metadata={"description": "at most so many, if it is a list"}
    )


class EventHeaders(Schema):
    last_event_id = fields.Integer(
        data_key="Last-Event-ID",
        validate=validate.Range(0, MAX_ID),
        metadata={"description": "the last event seen; a stream goes on after it", "example": 41},
    )


class EventRead(Schema):
    """Something that happened in a deployment. What ``data`` holds depends on the kind."""

    id = fields.Integer(metadata={"description": "rises from event to event", "example": 42})
    kind = fields.String(validate=validate.OneOf(KINDS), metadata={"example": "status"})
    data = fields.Dict(
        metadata={
            "example": {
                "status": "succeeded",
                "previous_status": "in_progress",
                "reason": "succeeded: 9 devices",
            }
        }
    )
    created_at = Time()


class EventPage(Schema):
    """Events, oldest first."""

    items = fields.List(fields.Nested(EventRead))
    next_after = fields.Integer(metadata={"description": "`after` of the next page", "example": 42})
    more = fields.Boolean(metadata={"description": "whether there is a next page now", "example": False})
