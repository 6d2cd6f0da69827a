"""The peer that checks what the product checks: FastAPI, SQLAlchemy's asynchronous ORM on asyncpg, redis.asyncio.

The token's signature and claims; the session's row, the membership and its role; the tenant, told to row-level
security; the device's row under it, with the gateway that holds it. The same database, the same unprivileged role.
"""

import asyncio
import hashlib
import hmac
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

import jwt
import orjson
from fastapi import Depends, FastAPI, Header, HTTPException, WebSocket
from fastapi.responses import JSONResponse
from sqlalchemy import TIMESTAMP, ForeignKey, event, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship

from bench.peers.gateway import Gateway

ROLES = ("viewer", "operator", "admin", "owner")
OFFLINE_AFTER_SECONDS = 75
PRESENCE_SECONDS = 5.0


class Base(DeclarativeBase):
    type_annotation_map = {datetime: TIMESTAMP(timezone=True)}


class Session(Base):
    __tablename__ = "sessions"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    org_id: Mapped[UUID | None]
    expires_at: Mapped[datetime]
    revoked_at: Mapped[datetime | None]


class Membership(Base):
    __tablename__ = "memberships"
    org_id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID] = mapped_column(primary_key=True)
    role: Mapped[str]


class Connection(Base):
    __tablename__ = "connections"
    device_id: Mapped[UUID] = mapped_column(ForeignKey("devices.id"), primary_key=True)
    org_id: Mapped[UUID]
    epoch: Mapped[int]
    gateway: Mapped[str]
    last_seen_at: Mapped[datetime]
    disconnected_at: Mapped[datetime | None]


class Device(Base):
    __tablename__ = "devices"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    org_id: Mapped[UUID]
    disabled_at: Mapped[datetime | None]
    connection: Mapped[Connection | None] = relationship()


class DeviceKey(Base):
    __tablename__ = "device_keys"
    key_hash: Mapped[bytes] = mapped_column(primary_key=True)
    device_id: Mapped[UUID]
    org_id: Mapped[UUID]


engine = create_async_engine(
    os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://"), pool_size=20, max_overflow=0
)
sessions = async_sessionmaker(engine, expire_on_commit=False)


@event.listens_for(engine.sync_engine, "connect")
def become_app(connection: object, _record: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]
    cursor.execute("SET ROLE edgeflow_app")
    connection.commit()  # type: ignore[attr-defined]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.gateway = Gateway()
    listening = asyncio.create_task(app.state.gateway.listen())
    presence = asyncio.create_task(_write_presence(app.state.gateway))
    yield
    listening.cancel()
    presence.cancel()
    await engine.dispose()


async def _write_presence(gateway: Gateway) -> None:
    """Say every few seconds that the devices of this process are still here."""
    while True:
        await asyncio.sleep(PRESENCE_SECONDS)
        async with sessions() as db:
            await db.execute(text("SET LOCAL ROLE edgeflow_system"))
            await db.execute(
                text("UPDATE connections SET last_seen_at = now() WHERE gateway = :gateway AND device_id = ANY(:held)"),
                {"gateway": gateway.channel, "held": gateway.held()},
            )
            await db.commit()


app = FastAPI(lifespan=lifespan)


async def act_for(db: AsyncSession, org_id: UUID) -> None:
    await db.execute(select(func.set_config("app.org_id", str(org_id), True)))


class Requires:
    """A dependency: a transaction that acts for a signed-in member with at least this role."""

    def __init__(self, role: str) -> None:
        self.least = ROLES.index(role)

    async def __call__(self, authorization: Annotated[str, Header()] = "") -> AsyncIterator[AsyncSession]:
        claims = self._claims(authorization)
        async with sessions() as db:
            session = await db.get(Session, UUID(claims["sid"]))
            lives = session and session.revoked_at is None and session.expires_at > datetime.now(UTC)
            if not lives or session.org_id is None or str(session.user_id) != claims["sub"]:
                raise HTTPException(401)
            await act_for(db, session.org_id)
            member = await db.get(Membership, (session.org_id, session.user_id))
            if member is None or ROLES.index(member.role) < self.least:
                raise HTTPException(403)
            yield db

    def _claims(self, authorization: str) -> dict[str, str]:
        try:
            claims: dict[str, str] = jwt.decode(
                authorization.removeprefix("Bearer "),
                os.environ["EDGEFLOW_JWT_SECRET_KEY"],
                algorithms=["HS256"],
                audience="edgeflow-api",
                issuer="edgeflow-cloud",
                options={"require": ["exp", "iat", "iss", "aud", "sub", "sid", "type"]},
            )
        except jwt.PyJWTError:
            raise HTTPException(401) from None
        if claims["type"] != "access":
            raise HTTPException(401)
        return claims


@app.get("/api/v1/edge-nodes/{device_id}/health")
async def health(device_id: UUID, db: Annotated[AsyncSession, Depends(Requires("viewer"))]) -> JSONResponse:
    device = await db.scalar(select(Device).options(joinedload(Device.connection)).where(Device.id == device_id))
    if device is None:
        raise HTTPException(404)
    if device.disabled_at is not None:
        raise HTTPException(409)
    held = device.connection
    silent = (datetime.now(UTC) - held.last_seen_at).total_seconds() if held else 0
    if held is None or held.disconnected_at is not None or silent > OFFLINE_AFTER_SECONDS:
        raise HTTPException(503)
    await db.commit()  # no transaction is open while a device answers
    try:
        answer = await app.state.gateway.call(held.gateway, str(device_id), "health_check")
    except TimeoutError:
        raise HTTPException(504) from None
    if answer is None:
        raise HTTPException(503)
    return JSONResponse(answer["data"])


@app.websocket("/tunnel")
async def tunnel(socket: WebSocket) -> None:
    await socket.accept()
    hello = orjson.loads(await socket.receive_text())
    device_id = UUID(hello["device_id"])
    if not await _admit(device_id, hello["api_key"]):
        await socket.close(1008)
        return
    await app.state.gateway.hold(str(device_id), socket)


async def _admit(device_id: UUID, key: str) -> bool:
    """Authenticate a device and write down that this process holds it."""
    digest = hmac.digest(os.environ["EDGEFLOW_SECRET_KEY"].encode(), key.encode(), hashlib.sha256)
    async with sessions() as db:
        await db.execute(text("SET LOCAL ROLE edgeflow_system"))
        known = await db.get(DeviceKey, digest)
        if known is None or known.device_id != device_id:
            return False
        values = {"org": known.org_id, "device": device_id, "gateway": app.state.gateway.channel}
        await db.execute(
            text(
                "INSERT INTO connections (org_id, device_id, epoch, gateway) "
                "VALUES (:org, :device, nextval('tunnel_epochs'), :gateway) "
                "ON CONFLICT (device_id) DO UPDATE SET epoch = excluded.epoch, gateway = excluded.gateway, "
                "connected_at = now(), last_seen_at = now(), disconnected_at = NULL"
            ),
            values,
        )
        await db.commit()
    return True
