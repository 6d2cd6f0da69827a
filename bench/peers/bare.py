"""The peer without any check: FastAPI and redis.asyncio. No token, no tenant, no database: the least work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import orjson
from fastapi import FastAPI, HTTPException, WebSocket
from fastapi.responses import JSONResponse

from bench.peers.gateway import Gateway


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.gateway = Gateway()
    listening = asyncio.create_task(app.state.gateway.listen())
    yield
    listening.cancel()


app = FastAPI(lifespan=lifespan)


@app.get("/api/v1/edge-nodes/{device_id}/health")
async def health(device_id: UUID) -> JSONResponse:
    gateway: Gateway = app.state.gateway
    try:
        answer = await gateway.call(gateway.channel, str(device_id), "health_check")
    except TimeoutError:
        raise HTTPException(504) from None
    if answer is None:
        raise HTTPException(503)
    return JSONResponse(answer["data"])


@app.websocket("/tunnel")
async def tunnel(socket: WebSocket) -> None:
    await socket.accept()
    hello = orjson.loads(await socket.receive_text())
    await app.state.gateway.hold(hello["device_id"], socket)
