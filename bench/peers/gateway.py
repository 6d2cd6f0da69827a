"""The part that both peers share: one process's tunnels, and commands to them over Redis pub/sub.

Every process has one channel; a command names the channel that wants its answer. redis.asyncio with hiredis, a pooled
connection for publishing and one for the subscription.
"""

import asyncio
import os
from typing import Any
from uuid import UUID, uuid4

import orjson
import redis.asyncio
from fastapi import WebSocket, WebSocketDisconnect

TIMEOUT_SECONDS = 30.0


class Gateway:
    """The devices that this process holds, and the callers that wait for any device."""

    def __init__(self) -> None:
        self.channel = f"peer:{uuid4()}"
        self._redis = redis.asyncio.Redis.from_url(os.environ["REDIS_URL"])
        self._sockets: dict[str, WebSocket] = {}
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._callers: dict[str, str] = {}

    def held(self) -> list[UUID]:
        """The devices that this process holds."""
        return [UUID(device_id) for device_id in self._sockets]

    async def listen(self) -> None:
        """Receive commands for this process's devices and answers for its callers, for ever."""
        async with self._redis.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(self.channel)
            async for message in subscription.listen():
                await self._receive(orjson.loads(message["data"]))

    async def call(self, channel: str, device_id: str, action: str) -> dict[str, Any] | None:
        """A device's response frame; None when no process takes the command. Raises TimeoutError."""
        command_id = str(uuid4())
        waiting = self._waiting[command_id] = asyncio.get_running_loop().create_future()
        command = {"id": command_id, "device": device_id, "action": action, "from": self.channel}
        try:
            if not await self._redis.publish(channel, orjson.dumps(command)):
                return None
            async with asyncio.timeout(TIMEOUT_SECONDS):
                return await waiting
        finally:
            del self._waiting[command_id]

    async def hold(self, device_id: str, socket: WebSocket) -> None:
        """One device's connection, from ``connected`` to its end."""
        self._sockets[device_id] = socket
        await socket.send_text(orjson.dumps({"type": "connected", "device_id": device_id}).decode())
        try:
            while True:
                await self._take(socket, orjson.loads(await socket.receive_text()))
        except WebSocketDisconnect:
            if self._sockets.get(device_id) is socket:
                del self._sockets[device_id]

    async def _receive(self, message: dict[str, Any]) -> None:
        if "answer" in message:
            waiting = self._waiting.get(message["id"])
            if waiting and not waiting.done():
                waiting.set_result(message["answer"])
            return
        socket = self._sockets.get(message["device"])
        if socket is None:
            return
        self._callers[message["id"]] = message["from"]
        command = {"type": "command", "id": message["id"], "action": message["action"], "payload": {}}
        await socket.send_text(orjson.dumps(command).decode())

    async def _take(self, socket: WebSocket, frame: dict[str, Any]) -> None:
        if frame["type"] == "response":
            caller = self._callers.pop(frame["id"], None)
            if caller:
                await self._redis.publish(caller, orjson.dumps({"id": frame["id"], "answer": frame}))
        elif frame["type"] == "ping":
            await socket.send_text('{"type":"pong"}')
