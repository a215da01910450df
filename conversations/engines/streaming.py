"""Replies that are read while they are written: by engines that can, and in one piece by those that cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Protocol, runtime_checkable

from conversations.engines.contract import Engine, Reply, ReplyRequest
from conversations.engines.registry import engine_for


@runtime_checkable
class StreamingEngine(Protocol):
    """An engine that writes piece by piece."""

    def stream(self, request: ReplyRequest) -> AsyncIterator[str | Reply]:
        """The pieces as they come, and at the end the Reply, whose text is all of them together. Raises EngineError."""


async def stream(name: str, request: ReplyRequest) -> AsyncIterator[str | Reply]:
    """The reply of the engine of that name (see `registry.engine_for`), for an event loop. Raises EngineError."""
    engine: Engine = engine_for(name)
    if isinstance(engine, StreamingEngine):
        async for piece in engine.stream(request):
            yield piece
        return
    reply = await asyncio.to_thread(engine.reply, request)
    yield reply.text
    yield reply
