"""Finds the engine of a name, and has it write a reply: as a whole or piece by piece."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import replace

from conversations.engines.agent import OwnAgent
from conversations.engines.contract import Engine, EngineError, Reply, ReplyRequest, StreamingEngine
from conversations.engines.language_model import LanguageModel
from conversations.engines.model_spans import engine_call, note_reply
from conversations.engines.offline import Offline
from conversations.engines.retell import Retell

log = logging.getLogger(__name__)

AUTO = "auto"

# Engines have no state, so one of each serves all threads. A test replaces one with its own:
#     monkeypatch.setitem(registry.ENGINES, "offline", MyEngine())
ENGINES: dict[str, Engine] = {engine.name: engine for engine in (LanguageModel(), Retell(), OwnAgent(), Offline())}


def engine_for(name: str, request: ReplyRequest) -> Engine:
    """Return the engine of that name; for `auto`, the language model if the request names one, else offline.

    Raises EngineError (`unknown_engine`), which is not retryable.
    """
    if name == AUTO:
        name = LanguageModel.name if request.models else Offline.name
    try:
        return ENGINES[name]
    except KeyError:
        raise EngineError(f"There is no engine {name!r}.", code="unknown_engine", retryable=False) from None


def ask(engine: str, request: ReplyRequest) -> Reply | EngineError:
    """Return the reply of the engine of that name, or the error; any exception of the engine becomes an EngineError."""
    began = time.monotonic()
    try:
        reply = _whole(engine_for(engine, request), request)
        if reply.last_token_ms is None:
            reply = replace(reply, last_token_ms=int((time.monotonic() - began) * 1000))
        return reply  # noqa: TRY300 - the two ways out stand together
    except EngineError as error:
        return error
    except Exception as error:
        log.exception("engine crashed: conversation=%s", request.conversation_id)
        return EngineError(f"The engine crashed: {type(error).__name__}.", code="engine_crashed", retryable=True)


def _whole(engine: Engine, request: ReplyRequest) -> Reply:
    if isinstance(engine, LanguageModel):  # it tells of each call
        return engine.reply(request)
    with engine_call(request, engine.name) as doing:
        reply = engine.reply(request)
        note_reply(doing, request, reply)
        return reply


async def stream(name: str, request: ReplyRequest) -> AsyncIterator[str | Reply]:
    """Yield the pieces of a reply by the engine of that name, then the Reply, whose text is all pieces together.

    An engine that cannot stream runs on a thread and yields its reply in one piece. Raises EngineError.
    """
    engine = engine_for(name, request)
    if isinstance(engine, StreamingEngine):
        async for piece in engine.stream(request):
            yield piece
        return
    reply = await asyncio.to_thread(_whole, engine, request)
    yield reply.text
    yield reply
