"""The shadow of a device: its row, read and written under a lock."""

from typing import Any
from uuid import UUID

from sqlalchemy import select

from app import clock, db, journal, rows
from app.devices import bounds, drift, shadow
from app.devices.models import Shadow
from app.devices.shadow import Document
from app.errors import VersionConflict
from app.jobs import enqueue

ERROR_CHARACTERS = 500


def document(org_id: UUID, device_id: UUID) -> dict[str, Any]:
    """The whole shadow document. Raises NotFound."""
    return _document(_row(org_id, device_id))


def update(
    org_id: UUID,
    device_id: UUID,
    *,
    by_device: bool,
    desired: Document | None = None,
    reported: Document | None = None,
    version: int | None = None,
    client_token: str | None = None,
) -> dict[str, Any]:
    """Merge a patch into the sections given and answer the whole document; the version rises by one.

    ``by_device``: the device itself writes. ``version``: refuse when the shadow is at another one. Once a change of
    ``desired`` has committed, the device is told. Raises Forbidden, NotFound, VersionConflict, TooLarge and
    ValidationFailed.
    """
    shadow.permit(desired, reported, by_device=by_device)
    row = _row(org_id, device_id, lock=True)
    if version is not None and version != row.version:
        raise VersionConflict("the shadow has changed meanwhile", current_version=row.version)
    before, said, moment = row.desired, row.reported, clock.now()
    for name, patch in (("desired", desired), ("reported", reported)):
        if patch is not None:
            _write(row, name, patch, clock.rfc3339(moment), only_clear=by_device and name == "desired")
    if row.reported.get("error") and row.reported["error"] != said.get("error"):
        _note_error(row)
    row.version += 1
    row.updated_at = moment
    db.session.flush()
    if reported is not None and "flows" in reported:
        drift.reported(device_id, said, row.reported)
    if not shadow.equal(before, row.desired):
        enqueue("tunnel.push_shadow", org_id, device_id)
    return _document(row) | ({} if client_token is None else {"client_token": client_token})


def _write(row: Shadow, name: str, patch: Document, moment: str, *, only_clear: bool) -> None:
    bounds.check_depth(name, patch)
    merged = (shadow.clear if only_clear else shadow.merge)(getattr(row, name), patch)
    bounds.check(name, merged)
    setattr(row, name, merged)
    setattr(row, f"{name}_times", shadow.stamp(getattr(row, f"{name}_times"), patch, merged, moment))


def _note_error(row: Shadow) -> None:
    """What the device reports as its error is its own text: short, and no more than that."""
    words = str(row.reported["error"])[:ERROR_CHARACTERS]
    journal.note(
        row.org_id, "shadow.error", f"the device reports an error: {words}", level="error", device_id=row.device_id
    )


def _row(org_id: UUID, device_id: UUID, *, lock: bool = False) -> Shadow:
    query = select(Shadow).where(Shadow.org_id == org_id, Shadow.device_id == device_id)
    return rows.one(query, "device", lock=lock)


def _document(row: Shadow) -> dict[str, Any]:
    return {
        "device_id": row.device_id,
        "version": row.version,
        "desired": row.desired,
        "reported": row.reported,
        "delta": shadow.delta(row.desired, row.reported),
        "metadata": {"desired": row.desired_times, "reported": row.reported_times},
        "sync_state": shadow.sync_state(row.desired, row.reported),
        "updated_at": row.updated_at,
    }
