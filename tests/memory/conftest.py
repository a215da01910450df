"""Fixtures for tests of memory: a model and an index, faked over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from memory.language_models import choosing
from memory.language_models.choosing import Purpose
from memory.language_models.contract import Kind, ModelAccess
from tests.fakes.openai import FakeOpenAI
from tests.fakes.pinecone import FakePinecone

PINECONE_KEY = "pc-very-secret-1234567890"
OPENAI_KEY = "sk-very-secret-1234567890"


def by_settings(_client_id: UUID, _purpose: Purpose) -> ModelAccess | None:
    """Return the model that the settings name, as where memory stands alone: its tests' clients have no rows."""
    return choosing.from_settings()


@pytest.fixture(autouse=True)
def _alone(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure no LLM and no Pinecone, whatever the environment says, and nobody who chooses others."""
    monkeypatch.setattr(choosing, "_choose", by_settings)
    monkeypatch.setattr(choosing, "_learn", lambda _access, _facts: None)
    settings.PINECONE_API_KEY = settings.PINECONE_HOST = ""
    settings.OPENAI_EMBEDDING_MODEL, settings.OPENAI_EMBEDDING_DIMENSIONS = "text-embedding-3-small", 0
    settings.PINECONE_TIMEOUT_SECONDS = settings.OPENAI_TIMEOUT_SECONDS = 20.0
    settings.MEMORY_SEARCH_SECONDS, settings.MEMORY_LEAST_SIMILARITY = 10.0, 20


def access_to(model: FakeOpenAI, /, **more: Any) -> ModelAccess:
    """Return the access to a fake of chat completions."""
    wanted = {"model": "tiny", "base_url": model.base_url, "key": model.api_key, "seconds": 20.0, **more}
    return ModelAccess(Kind.COMPATIBLE, **wanted)


@pytest.fixture
def model(settings: Any) -> Iterator[FakeOpenAI]:
    """Configure a fake model that summarises and embeds."""
    with FakeOpenAI(api_key=OPENAI_KEY) as fake:
        fake.reply = lambda _messages: "The person asked about a kettle; a refund was agreed."
        settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = OPENAI_KEY, fake.base_url
        yield fake


@pytest.fixture
def index(settings: Any, model: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePinecone]:
    """Configure a fake index, and the model it needs. The SDK retries without a pause, as in its own tests."""
    monkeypatch.setattr("pinecone._internal.http_client._async_retry_sleep", lambda _seconds: asyncio.sleep(0))
    with FakePinecone(api_key=PINECONE_KEY) as fake:
        settings.PINECONE_API_KEY, settings.PINECONE_HOST = PINECONE_KEY, fake.url
        yield fake
