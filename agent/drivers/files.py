"""One file per flow, replaced atomically: what of a driver's flows outlives the agent."""

import hashlib
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agent import storage

log = logging.getLogger("agent.driver")


class FlowFiles:
    """The files in `folder`. Everything here touches the disk: call it in a thread where others must not wait."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """File name and content of each; what holds no JSON object is left alone."""
        for path in sorted(self._folder.glob("*.json")):
            try:
                kept = storage.read_json(path)
            except ValueError as error:
                damaged(path.name, error)
                continue
            if isinstance(kept, dict):
                yield path.name, kept
            else:
                damaged(path.name, "not an object")

    def write(self, flow_id: str, kept: dict[str, Any]) -> None:
        """Replace a flow's file; raises OSError."""
        storage.write_json(self._path(flow_id), kept)

    def delete(self, flow_id: str) -> None:
        """Remove a flow's file, if there is one; raises OSError."""
        path = self._path(flow_id)
        if path.exists():
            path.unlink()
            storage.sync_folder(path.parent)

    def _path(self, flow_id: str) -> Path:
        """An id that is no safe name gets a digest as its name."""
        safe = re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,99}", flow_id)
        return self._folder / f"{flow_id if safe else hashlib.sha256(flow_id.encode()).hexdigest()}.json"


def damaged(name: str, why: object) -> None:
    """Say that a file is no flow; it keeps no other from running."""
    log.error("%s does not hold a flow and is left alone: %s", name, why)
