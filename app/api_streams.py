"""The request side of ``app.streams``: who may follow, and the answer that does not end."""

from uuid import UUID

from flask import Response, copy_current_request_context, request

from app import streams
from app.auth.roles import Role
from app.organizations.access import admit, authenticate, current

# Caches must keep nothing, and proxies pass each event on at once.
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def wanted() -> bool:
    """Whether the request would rather have a stream than JSON."""
    return request.accept_mimetypes.best_match(("application/json", "text/event-stream")) == "text/event-stream"


def answer(channel: str, about: UUID, look: streams.Look) -> Response:
    """A stream for the caller, who is asked for his rights again every minute. Raises RateLimited.

    ``channel`` and ``about``: what it waits for (``watch.CHANNELS``).
    """
    leave = streams.enter(current.org)
    still_allowed = copy_current_request_context(_still_allowed)
    frames = streams.stream(current.org, channel, about, look, still_allowed=still_allowed)
    made = Response(frames, mimetype="text/event-stream", headers=HEADERS)
    made.call_on_close(leave)
    return made


def _still_allowed() -> UUID:
    """The organization that the caller of a stream may read now. Raises Unauthorized or Forbidden."""
    admit(authenticate(), Role.VIEWER)
    return current.org
