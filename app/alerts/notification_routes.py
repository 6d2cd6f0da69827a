"""Routes of the notifications about a rule's alerts."""

from typing import Any
from uuid import UUID

from flask.views import MethodView

from app.alerts import notification_log
from app.alerts.notification_schemas import NotificationPage, NotificationQuery, NotificationRead
from app.alerts.routes import blp
from app.auth.roles import Role
from app.organizations.access import current, requires
from app.pagination import Page


@blp.route("/alerts/<uuid:alert_id>/notifications")
class Notifications(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(NotificationQuery, location="query")
    @blp.response(200, NotificationPage)
    def get(self, query: dict[str, Any], alert_id: UUID) -> Page:
        """List what an alert rule has told its channels, and how each try to deliver it went."""
        return notification_log.list_notifications(current.org, alert_id, **query)


@blp.route("/alerts/<uuid:alert_id>/notifications/<uuid:notification_id>/replay")
class NotificationReplay(MethodView):
    @requires(Role.OPERATOR)
    @blp.response(202, NotificationRead)
    def post(self, alert_id: UUID, notification_id: UUID) -> dict[str, Any]:
        """Send a notification again, under its id, to the channel as it is now."""
        return notification_log.replay(current.org, alert_id, notification_id)
