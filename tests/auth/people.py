"""People who register through the API, and what they send."""

from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from tests.make import Client

PASSWORD = "correct horse battery"


def address() -> str:
    return f"{uuid4().hex[:12]}@example.com"


def registration(**fields: Any) -> dict[str, Any]:
    return {"email": address(), "password": PASSWORD, "name": "Ada", "organization_name": "Acme", **fields}


@dataclass
class Person:
    """A signed-in user; ``api`` speaks with his access token."""

    api: Client
    answer: dict[str, Any]

    @property
    def id(self) -> str:
        return self.answer["user"]["id"]

    @property
    def email(self) -> str:
        return self.answer["user"]["email"]

    @property
    def org(self) -> str:
        return self.answer["organization"]["id"]

    @property
    def refresh_token(self) -> str:
        return self.answer["refresh_token"]


def signed_in(app: Any, answer: dict[str, Any]) -> Person:
    return Person(Client(app, {"Authorization": f"Bearer {answer['access_token']}"}), answer)


def register(app: Any, **fields: Any) -> Person:
    return signed_in(app, Client(app, {}).post("/auth/register", registration(**fields), expect=201))


def login(app: Any, email: str, password: str = PASSWORD) -> Person:
    return signed_in(app, Client(app, {}).post("/auth/login", {"email": email, "password": password}, expect=200))


def joins(app: Any, owner: Person, role: str) -> Person:
    """Somebody whom ``owner`` invites, and who registers with the invitation."""
    email = address()
    made = owner.api.post(f"/organizations/{owner.org}/members", {"email": email, "role": role}, expect=201)
    fields = registration(email=email, invitation_token=made["invitation_token"])
    del fields["organization_name"]
    return signed_in(app, Client(app, {}).post("/auth/register", fields, expect=201))
