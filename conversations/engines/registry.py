"""Finds the engine by its name."""

from __future__ import annotations

import logging
import time
from dataclasses import replace

from django.conf import settings

from conversations.engines.contract import Engine, EngineError, Reply, ReplyRequest
from conversations.engines.offline import Offline
from conversations.engines.openai_chat import OpenAIChat
from conversations.engines.retell import Retell

log = logging.getLogger(__name__)

AUTO = "auto"

# Engines hold no state, so one of each serves all threads. A test puts its own in the place of one:
#     monkeypatch.setitem(registry.ENGINES, "offline", MyEngine())
ENGINES: dict[str, Engine] = {engine.name: engine for engine in (OpenAIChat(), Retell(), Offline())}


def engine_for(name: str) -> Engine:
    """The engine of that name; for `auto`, openai where a key or a base URL is set at this moment, else offline.

    Raises EngineError (`unknown_engine`), which is not retryable.
    """
    if name == AUTO:
        name = "openai" if settings.OPENAI_API_KEY or settings.OPENAI_BASE_URL else "offline"
    try:
        return ENGINES[name]
    except KeyError:
        raise EngineError(f"There is no engine {name!r}.", code="unknown_engine", retryable=False) from None


def ask(engine: str, request: ReplyRequest) -> Reply | EngineError:
    """Return the reply of the engine of that name, or how it failed: whatever it raises is a failure of the turn."""
    began = time.monotonic()
    try:
        reply = engine_for(engine).reply(request)
        if reply.last_token_ms is None:
            reply = replace(reply, last_token_ms=int((time.monotonic() - began) * 1000))
        return reply  # noqa: TRY300 - the two ways out stand together
    except EngineError as error:
        return error
    except Exception as error:
        log.exception("engine crashed: conversation=%s", request.conversation_id)
        return EngineError(f"The engine crashed: {type(error).__name__}.", code="engine_crashed", retryable=True)
