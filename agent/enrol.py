"""Devices for the simulator: made through the API, provisioned as devices would be, remembered in a file."""

import logging
import random
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agent import storage
from agent.credentials import Credentials
from agent.hardware import simulated_hardware, simulated_network
from agent.rest import Json, Rest, RestError, Retry, retrying

log = logging.getLogger("agent.fleet")

PATIENCE = Retry(tries=12)


@dataclass(frozen=True)
class Member:
    """One simulated device as the state file keeps it; without a code it cannot be provisioned again."""

    name: str
    device_id: str
    api_key: str
    provisioning_code: str = ""


class StateFile:
    """Members by name, for each cloud that the file has seen; mode 0600, for it holds keys."""

    def __init__(self, path: Path | None, url: str) -> None:
        self._path, self._url = path, url
        self._clouds: dict[str, dict[str, Json]] = {}
        if path:
            self._clouds = storage.read_json(path) or {}
        self._members = self._clouds.setdefault(url, {})

    def get(self, name: str) -> Member | None:
        """The member of that name."""
        stored = self._members.get(name)
        return Member(**stored) if stored else None

    def put(self, member: Member) -> None:
        """Remember a member; `save` makes it last."""
        self._members[member.name] = asdict(member)

    def save(self) -> None:
        """Write the file."""
        if self._path:
            storage.write_json(self._path, self._clouds)


class Account:
    """The user's side of the API: by API key, or by email and password, signed in again when the token ends."""

    def __init__(self, rest: Rest, api_key: str = "", email: str = "", password: str = "") -> None:
        self._rest, self._api_key, self._email, self._password = rest, api_key, email, password
        self._token = ""

    @property
    def usable(self) -> bool:
        """Whether there is anything to sign in with."""
        return bool(self._api_key or (self._email and self._password))

    async def create_device(self, name: str, tags: Sequence[str], rng: random.Random) -> Json:
        """A new device with `id`, `api_key`, `provisioning_code`; raises RestError."""
        key, body = str(uuid.uuid4()), {"name": name, "type": "simulated", "tags": list(tags)}

        async def create() -> Json:
            return await self._call("/devices", body, {"Idempotency-Key": key})

        return await retrying(create, PATIENCE, rng, f"creating {name}")

    async def _call(self, path: str, body: Json, headers: Json) -> Json:
        try:
            return await self._rest.call("POST", path, body, {**headers, **await self._auth()})
        except RestError as error:
            if error.status != 401 or self._api_key or not self._token:
                raise
            self._token = ""
            return await self._rest.call("POST", path, body, {**headers, **await self._auth()})

    async def _auth(self) -> Json:
        if self._api_key:
            return {"X-API-Key": self._api_key}
        if not self._token:
            body = {"email": self._email, "password": self._password}
            self._token = (await self._rest.call("POST", "/auth/login", body))["access_token"]
        return {"Authorization": f"Bearer {self._token}"}


class Enrolment:
    """Finds or makes the credentials of each member of a fleet."""

    def __init__(self, rest: Rest, account: Account, state: StateFile, tags: Sequence[str], seed: int) -> None:
        self._rest, self._account, self._state, self._tags, self._seed = rest, account, state, tags, seed
        self._rng = random.Random(f"{seed}:enrolment")

    async def find_or_make(self, name: str) -> tuple[Member, bool]:
        """The member of that name, and whether it was remembered (and so may be unknown to the cloud by now)."""
        member = self._state.get(name)
        return (member, True) if member else (await self.make(name), False)

    async def make(self, name: str) -> Member:
        """Create a device and provision it as it would itself; raises RestError."""
        created = await self._account.create_device(name, self._tags, self._rng)
        code = created["provisioning_code"]
        return await self._provision(Member(name, created["id"], created["api_key"], code))

    async def again(self, name: str) -> Member:
        """Credentials for a member that the cloud refuses: by its old code, or as a new device."""
        member = self._state.get(name)
        if member and member.provisioning_code:
            try:
                return await self._provision(member)
            except RestError as error:
                log.info("%s: its provisioning code is no good any more: %s", name, error)
        return await self.make(name)

    async def _provision(self, member: Member) -> Member:
        hardware, network = simulated_hardware(self._seed, member.name), simulated_network(member.name)

        async def provision() -> Json:
            return await self._rest.provision(member.provisioning_code, hardware, network)

        given = await retrying(provision, PATIENCE, self._rng, f"provisioning {member.name}")
        provisioned = Member(member.name, given["device_id"], given["api_key"], member.provisioning_code)
        self._state.put(provisioned)
        return provisioned

    def save(self) -> None:
        """Write the state file."""
        self._state.save()


def credentials_of(member: Member, url: str) -> Credentials:
    """What the device itself needs to know."""
    return Credentials(member.device_id, member.api_key, url)
