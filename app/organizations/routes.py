"""Organizations, members and invitations. A path's organization is the one that its request acts in."""

from typing import Any
from uuid import UUID

from flask.views import MethodView

from app.api import PREFIX, Blueprint
from app.api_schema import joined
from app.auth import service as users
from app.auth.roles import Role
from app.billing import quotas
from app.organizations import schemas, service
from app.organizations.access import current, requires
from app.pagination import Page, PageQuery

blp = Blueprint("organizations", __name__, description="Organizations, members, invitations")

ONE = "/organizations/<uuid:organization_id>"


@blp.route("/organizations")
class Organizations(MethodView):
    @requires(None)
    @blp.arguments(PageQuery, location="query")
    @blp.response(200, schemas.OrganizationPage)
    def get(self, query: dict[str, Any]) -> Page:
        """List one's own organizations; an API key has one."""
        if current.user_id is None:
            return service.browse_of_key(current.org, current.role, **query)
        return service.browse_of_user(current.user_id, **query)


@blp.route(ONE)
class OneOrganization(MethodView):
    @requires(Role.VIEWER)
    @blp.response(200, schemas.OrganizationRead)
    def get(self, organization_id: UUID) -> Any:
        """Get an organization."""
        return service.get(organization_id, current.role)

    @requires(Role.ADMIN)
    @blp.arguments(schemas.OrganizationUpdate)
    @blp.response(200, schemas.OrganizationRead)
    def put(self, data: dict[str, Any], organization_id: UUID) -> Any:
        """Change an organization's name or settings; only the fields given change."""
        service.change(organization_id, **data)
        return service.get(organization_id, current.role)


@blp.route(f"{ONE}/members")
class Members(MethodView):
    @requires(Role.VIEWER)
    @blp.arguments(PageQuery, location="query")
    @blp.response(200, schemas.MemberPage)
    def get(self, query: dict[str, Any], organization_id: UUID) -> Page:
        """List the members."""
        return service.members(organization_id, **query)

    @requires(Role.ADMIN)
    @blp.arguments(schemas.InvitationCreate)
    @blp.response(201, schemas.InvitationCreated)
    @blp.errors(402)
    def post(self, data: dict[str, Any], organization_id: UUID) -> tuple[dict[str, Any], dict[str, str]]:
        """Invite somebody by e-mail address; hand him the token, which is shown only in this answer, within 7 days."""
        invitation, token, is_new = service.invite(organization_id, current.role, current.user_id, **data)
        quotas.claim(organization_id, "members", adding=int(is_new), made=True)
        location = f"{PREFIX}/organizations/{organization_id}/invitations/{invitation.id}"
        return joined(schemas.InvitationRead, invitation, invitation_token=token), {"Location": location}


@blp.route(f"{ONE}/members/<uuid:user_id>")
class OneMember(MethodView):
    @requires(Role.ADMIN)
    @blp.arguments(schemas.MemberUpdate)
    @blp.response(200, schemas.MemberRead)
    @blp.errors(409)
    def put(self, data: dict[str, Any], organization_id: UUID, user_id: UUID) -> Any:
        """Change a member's role; the last owner keeps his."""
        return service.change_role(organization_id, current.role, user_id, data["role"])

    @requires(Role.VIEWER)
    @blp.response(204)
    @blp.errors(409)
    def delete(self, organization_id: UUID, user_id: UUID) -> None:
        """Remove a member (admins), or leave oneself; the last owner cannot."""
        service.remove_member(organization_id, current.role, user_id, leaves=user_id == current.user_id)


@blp.route(f"{ONE}/invitations")
class Invitations(MethodView):
    @requires(Role.ADMIN)
    @blp.arguments(PageQuery, location="query")
    @blp.response(200, schemas.InvitationPage)
    def get(self, query: dict[str, Any], organization_id: UUID) -> Page:
        """List the invitations that nobody has accepted."""
        return service.invitations(organization_id, **query)


@blp.route(f"{ONE}/invitations/<uuid:invitation_id>")
class OneInvitation(MethodView):
    @requires(Role.ADMIN)
    @blp.response(204)
    def delete(self, organization_id: UUID, invitation_id: UUID) -> None:
        """Withdraw an invitation."""
        service.withdraw(organization_id, invitation_id)


@blp.route("/organizations/invitations/accept")
class AcceptInvitation(MethodView):
    @requires(None, user=True)
    @blp.arguments(schemas.InvitationAccept)
    @blp.response(200, schemas.OrganizationRead)
    @blp.errors(402, 404)
    def post(self, data: dict[str, Any]) -> Any:
        """Join the organization that invited one's e-mail address."""
        user = users.get_user(current.identity.id)
        org_id = service.accept(user.id, user.email, data["token"])
        quotas.claim(org_id, "members", adding=0)
        return service.membership(user.id, org_id)
