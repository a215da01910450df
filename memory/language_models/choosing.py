"""Chooses the model for what memory does by itself: summaries and embeddings.

The settings name the installation's provider. A client may name others; memory does not know clients, so the app above
it registers a function that does.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from uuid import UUID

from django.conf import settings

from memory.language_models.contract import Fact, Kind, ModelAccess

RESPONSES = "responses"


class Purpose(StrEnum):
    """The purposes for which memory wants a model."""

    SUMMARIES = "summaries"
    EMBEDDINGS = "embeddings"
    TRANSCRIPTION = "transcription"


Chooser = Callable[[UUID, Purpose], ModelAccess | None]
Learner = Callable[[ModelAccess, tuple[Fact, ...]], None]


def is_configured() -> bool:
    """Return whether the settings name the installation's provider."""
    return bool(settings.OPENAI_API_KEY or settings.OPENAI_BASE_URL)


def from_settings(model: str = "") -> ModelAccess | None:
    """Return the access to a model at the installation's provider; None if the settings name no provider.

    model: '' for OPENAI_MODEL

    A key alone means OpenAI itself; a base URL means a compatible server, unless OPENAI_API says `responses`.
    """
    if not is_configured():
        return None
    return ModelAccess(
        kind=kind_from_settings(),
        model=model or settings.OPENAI_MODEL,
        base_url=settings.OPENAI_BASE_URL,
        key=settings.OPENAI_API_KEY,
        seconds=settings.OPENAI_TIMEOUT_SECONDS,
    )


def kind_from_settings() -> Kind:
    """Return the kind of the installation's provider."""
    wanted = settings.OPENAI_API or ("" if settings.OPENAI_BASE_URL else RESPONSES)
    return Kind.OPENAI if wanted == RESPONSES else Kind.COMPATIBLE


def _by_settings(_client_id: UUID, _purpose: Purpose) -> ModelAccess | None:
    return from_settings()


def _forget(_access: ModelAccess, _facts: tuple[Fact, ...]) -> None:
    """Keep nothing: there are no rows for it."""


_choose: Chooser = _by_settings
_learn: Learner = _forget


def register(choose: Chooser, learn: Learner) -> None:
    """Let `choose` say which model serves a client, and `learn` keep what was learned of one. Both may read rows."""
    global _choose, _learn
    _choose, _learn = choose, learn


def access_for(client_id: UUID, purpose: Purpose) -> ModelAccess | None:
    """Return the access to the model that serves the client; None if none is configured."""
    return _choose(client_id, purpose)


def learn(access: ModelAccess, facts: tuple[Fact, ...]) -> None:
    """Keep what was learned of the model."""
    if facts:
        _learn(access, facts)
