"""The app `memory`: prompt context, calls to the LLM, summaries and global memory; with its system check."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.conf import settings
from django.core.checks import CheckMessage, Warning, register

from memory.language_models import choosing


class MemoryConfig(AppConfig):
    """Registers the models."""

    name = "memory"
    verbose_name = "Memory"


@register()
def check_pinecone_settings(**_: Any) -> list[CheckMessage]:
    """Return a warning if only some of the settings that Pinecone needs are set: key, host and embeddings."""
    needed = {
        "PINECONE_API_KEY": bool(settings.PINECONE_API_KEY),
        "PINECONE_HOST": bool(settings.PINECONE_HOST),
        "OPENAI_API_KEY or OPENAI_BASE_URL": choosing.is_configured(),
    }
    missing = [name for name, is_set in needed.items() if not is_set]
    if not missing or not (settings.PINECONE_API_KEY or settings.PINECONE_HOST):
        return []
    return [
        Warning(
            f"Pinecone is not used. Set {' and '.join(missing)} as well.",
            hint="Until then conversations are remembered in PostgreSQL and searched by text only, but for those of"
            " clients that name a provider of embeddings.",
            id="memory.W001",
        )
    ]
