"""Commands of one device: each id carried out once, changes one after the other, answers handed to the link."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from agent import commands
from agent.answers import Answers
from agent.protocol import Command

log = logging.getLogger("agent.commands")

MAX_COMMANDS = 64


class Executor:
    """Runs commands in tasks of their own, at most MAX_COMMANDS at once.

    `reply` sends an answer, `changed` hears of each command that may have changed something.
    """

    def __init__(
        self,
        context: commands.Context,
        answers: Answers,
        reply: Callable[[str], Awaitable[None]],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self._context, self._answers, self._reply, self._changed = context, answers, reply, changed
        self._turn = asyncio.Lock()
        self._running: dict[str, asyncio.Task[None]] = {}

    async def take(self, command: Command) -> None:
        """Start a new command; one already answered is answered again, one in execution goes on alone."""
        known = self._answers.get(command.id)
        if known is not None:
            await self._reply(known)
            return
        if command.id in self._running:
            return
        if len(self._running) >= MAX_COMMANDS:
            # Not reading on is the only brake that reaches the sender.
            await asyncio.wait(self._running.values(), return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._execute(command))
        self._running[command.id] = task
        task.add_done_callback(lambda _: self._running.pop(command.id, None))

    async def finish(self, seconds: float) -> None:
        """Wait for what is in execution, at most so long."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=seconds)

    async def cancel(self) -> None:
        """Give up what is in execution."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _execute(self, command: Command) -> None:
        changing = commands.changes(command.action)
        async with self._turn if changing else contextlib.nullcontext():
            answer = await commands.answer(self._context, command, self._answers.applying)
            try:
                await self._answers.keep(command.id, answer, changing)
            except OSError as error:
                log.error("the answer to command %s cannot be stored: %s", command.id, error)
        if changing:
            self._changed()
        await self._reply(answer)
