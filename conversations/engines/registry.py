"""Finds the engine by its name."""

from __future__ import annotations

from django.conf import settings

from conversations.engines.contract import Engine, EngineError
from conversations.engines.offline import Offline
from conversations.engines.openai_chat import OpenAIChat
from conversations.engines.retell import Retell

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
