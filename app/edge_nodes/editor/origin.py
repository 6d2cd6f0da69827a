"""Where editors are: one origin for each device, ``https://<device id>.edit.example.com``.

What a device serves there is its own, and may be hostile: the browser keeps it from the API's origin and from those of
other devices, as it keeps two sites apart.
"""

import re
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit
from uuid import UUID

from app.errors import EditorNotConfigured
from config.settings import settings

_LABEL = r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"


@dataclass(frozen=True)
class Place:
    """One device's editor, as a request addressed it. ``host`` is the header, with the port."""

    device_id: UUID
    host: str

    @property
    def scheme(self) -> str:
        return urlsplit(settings().editors).scheme

    @property
    def secure(self) -> bool:
        return self.scheme == "https"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.host}"


def url_of(device_id: UUID) -> str:
    """The origin of a device's editor. Raises EditorNotConfigured."""
    template = settings().editors
    if not template:
        raise EditorNotConfigured("this installation was not told where its editors are (EDGEFLOW_EDITOR_URL)")
    return template.replace("{device}", str(device_id))


def place_of(host: str) -> Place | None:
    """Whose editor a ``Host`` header names; None for every other host."""
    template = settings().editors
    found = _pattern(template).fullmatch(host) if template else None
    return Place(UUID(found[1]), host.lower()) if found else None


@cache
def _pattern(template: str) -> re.Pattern[str]:
    domain = urlsplit(template.replace("{device}.", "")).hostname or ""
    return re.compile(rf"{_LABEL}\.{re.escape(domain)}\.?(?::\d{{1,5}})?", re.IGNORECASE)
