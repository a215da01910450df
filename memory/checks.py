"""System checks: a half-configured store is said before it hurts."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Warning, register

from memory import llm


@register()
def pinecone_is_whole(**_: Any) -> list[CheckMessage]:
    """Who sets one of Pinecone's settings wants Pinecone: it needs a key, the index's address, and embeddings."""
    needed = {
        "PINECONE_API_KEY": bool(settings.PINECONE_API_KEY),
        "PINECONE_HOST": bool(settings.PINECONE_HOST),
        "OPENAI_API_KEY or OPENAI_BASE_URL": llm.is_configured(),
    }
    missing = [name for name, is_set in needed.items() if not is_set]
    if not missing or not (settings.PINECONE_API_KEY or settings.PINECONE_HOST):
        return []
    return [
        Warning(
            f"Pinecone is not used: {' and '.join(missing)} must be set as well.",
            hint="Sessions are remembered in PostgreSQL and searched by text only.",
            id="memory.W001",
        )
    ]
