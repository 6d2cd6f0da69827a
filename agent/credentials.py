"""Who this device is: its id and key, in a file that only its owner reads."""

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from agent import storage


@dataclass(frozen=True)
class Credentials:
    """What provisioning gave. `code_hash` tells by which code, so that another code means another identity."""

    device_id: str
    api_key: str
    url: str
    expires_at: str | None = None
    code_hash: str = ""

    def belong_to(self, url: str, code: str | None) -> bool:
        """Whether these serve `url` and `code`; without a code any stored identity does."""
        return code is None or (self.url == url and self.code_hash == hash_code(code))


def hash_code(code: str) -> str:
    """A provisioning code in a form that may be kept."""
    return hashlib.sha256(code.encode()).hexdigest()


def load(path: Path) -> Credentials | None:
    """The stored credentials, None when there are none; raises ValueError when the file is damaged."""
    stored = storage.read_json(path)
    if stored is None:
        return None
    try:
        return Credentials(**stored)
    except TypeError as error:
        raise ValueError(f"{path} does not hold credentials: {error}") from error


def save(path: Path, credentials: Credentials) -> None:
    """Store them, mode 0600."""
    storage.write_json(path, asdict(credentials), mode=0o600)
