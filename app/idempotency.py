"""Idempotency-Key: the same key and body within 24 h gives the same answer and no second effect.

The key is claimed in the transaction that has the effect, so either both happened or neither. A second request with
the key waits for the first one's commit on the unique index. Stored answers may hold a secret that is shown once, so
they are encrypted under a key that only the client's Idempotency-Key, which is not stored, gives back.
"""

import base64
import hashlib
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from cryptography.fernet import Fernet
from sqlalchemy import ForeignKey, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app import db
from app.db import Base
from app.errors import Conflict
from app.tokens import derive, digest

KEEP = "24 hours"


class IdempotencyKey(Base):
    """A claimed key; ``response`` is null while its request is under way (or was cut off).

    It holds the answer, or what work it will come of.
    """

    __tablename__ = "idempotency_keys"

    key_hash: Mapped[bytes] = mapped_column(primary_key=True)
    org_id: Mapped[UUID | None] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), index=True)
    request_hash: Mapped[bytes]
    response: Mapped[bytes | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now(), index=True)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Claim:
    """A key that this request holds; ``save`` keeps its answer for those who come again.

    ``work``: what an earlier request with the key began, and has not answered for.
    """

    key: str
    key_hash: bytes
    work: UUID | None = None

    def save(self, answer: Answer) -> None:
        self._store([answer.status, answer.headers, base64.b64encode(answer.body).decode()])

    def begin(self, work: UUID) -> None:
        """Keep, together with the work itself, that the answer comes of it, however long it takes."""
        self._store([str(work)])

    def _store(self, kept: list[Any]) -> None:
        plain = orjson.dumps(kept)
        db.session.execute(
            text("UPDATE idempotency_keys SET response = :response WHERE key_hash = :key_hash"),
            {"response": _cipher(self.key).encrypt(plain), "key_hash": self.key_hash},
        )


def claim(scope: str, org_id: UUID | None, key: str, request: bytes) -> Claim | Answer:
    """Claim ``key`` for a request, or give the stored answer of the one that held it.

    A claim with ``work`` is the same request again, while that work goes on or has gone unanswered for: it does
    nothing but wait for it.
    ``scope`` names caller and route, so that keys of different callers never meet. Raises Conflict when the key came
    with another request, or when the first one has not been answered (its outcome is not known).
    """
    held = Claim(key, digest(f"{scope}\0{key}"))
    values = {"key_hash": held.key_hash, "org": org_id, "request": hashlib.sha256(request).digest(), "keep": KEEP}
    db.session.execute(
        text(
            "DELETE FROM idempotency_keys WHERE key_hash = :key_hash AND created_at < now() - CAST(:keep AS interval)"
        ),
        values,
    )
    claimed = db.session.execute(
        text(
            "INSERT INTO idempotency_keys (key_hash, org_id, request_hash) VALUES (:key_hash, :org, :request) "
            "ON CONFLICT DO NOTHING RETURNING 1"
        ),
        values,
    ).first()
    return held if claimed else _stored(held, values["request"])


def _stored(held: Claim, request_hash: object) -> Claim | Answer:
    row = db.session.execute(
        text("SELECT request_hash, response FROM idempotency_keys WHERE key_hash = :key_hash"),
        {"key_hash": held.key_hash},
    ).first()
    if row is None or row.request_hash != request_hash:
        raise Conflict("this Idempotency-Key was used with another request")
    if row.response is None:
        raise Conflict("the first request with this Idempotency-Key has not been answered; its outcome is not known")
    kept = orjson.loads(_cipher(held.key).decrypt(row.response))
    if len(kept) == 1:
        return replace(held, work=UUID(kept[0]))
    status, headers, body = kept
    return Answer(status, [(name, value) for name, value in headers], base64.b64decode(body))


def _cipher(key: str) -> Fernet:
    return Fernet(base64.urlsafe_b64encode(derive(key, "idempotency")))
