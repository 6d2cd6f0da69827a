"""Factories: what tests need in the database, and clients that speak to the API with credentials."""

import json
from typing import Any
from uuid import UUID, uuid4

from app import db
from app.auth.models import ApiKey, User
from app.devices.models import Device, DeviceKey, Shadow
from app.organizations.models import Membership, Organization
from app.tokens import digest, new_token


def organization(name: str = "Acme", plan: str = "free") -> UUID:
    org_id = uuid4()
    with db.transaction(org_id) as session:
        session.add(Organization(id=org_id, name=name, plan=plan))
    return org_id


def user(org_id: UUID, role: str = "owner") -> User:
    """A member who cannot sign in (his password hash is none); for that, register through the API."""
    person = User(email=f"{uuid4().hex[:12]}@example.com", name="Ada", password_hash="!")
    with db.transaction(org_id) as session:
        session.add(person)
        session.flush()
        session.add(Membership(org_id=org_id, user_id=person.id, role=role))
    return person


def api_key(org_id: UUID, role: str = "owner") -> str:
    key = new_token("edgeflow")
    with db.transaction(org_id) as session:
        session.add(ApiKey(org_id=org_id, name=f"test-{role}", role=role, key_hash=digest(key), prefix=key[:16]))
    return key


def devices(count: int, org_id: UUID, **fields: Any) -> list[tuple[Device, str]]:
    """Devices with their keys: ``[(device, "device_…")]``."""
    made = []
    with db.transaction(org_id) as session:
        for number in range(count):
            device = Device(org_id=org_id, **{"name": f"device-{number}", **fields})
            session.add(device)
            session.flush()
            key = new_token("device")
            session.add(DeviceKey(org_id=org_id, device_id=device.id, key_hash=digest(key)))
            session.add(Shadow(org_id=org_id, device_id=device.id))
            made.append((device, key))
    return made


def device(org_id: UUID, **fields: Any) -> tuple[Device, str]:
    return devices(1, org_id, **fields)[0]


class Client:
    """A caller of the API: ``client.post("/devices", {...}, expect=201)`` answers the parsed body."""

    def __init__(self, app: Any, headers: dict[str, str]) -> None:
        self.http, self.headers = app.test_client(), headers

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        expect: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> Any:
        data = None if body is None else json.dumps(body)
        sent = {**self.headers, **({"Content-Type": "application/json"} if data else {}), **(headers or {})}
        answer = self.http.open(f"/api/v1{path}", method=method, data=data, headers=sent)
        if expect is None:
            return answer
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.get_json(silent=True)

    def get(self, path: str, **options: Any) -> Any:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.request("POST", path, body, **options)

    def put(self, path: str, body: Any = None, **options: Any) -> Any:
        return self.request("PUT", path, body, **options)

    def delete(self, path: str, **options: Any) -> Any:
        return self.request("DELETE", path, **options)


def client(app: Any, org_id: UUID, role: str = "owner") -> Client:
    """The API as an API key of that role."""
    return Client(app, {"X-API-Key": api_key(org_id, role)})
