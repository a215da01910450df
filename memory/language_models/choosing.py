"""Chooses the model for what memory does by itself: summaries and embeddings.

The settings name the installation's provider. A client may name others; memory does not know clients, so the app above
it registers a function that does.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from uuid import UUID

from django.conf import settings

from memory.language_models.contract import Completion, Fact, Kind, ModelAccess

RESPONSES = "responses"


class Purpose(StrEnum):
    """The purposes for which memory wants a model."""

    SUMMARIES = "summaries"
    EMBEDDINGS = "embeddings"
    TRANSCRIPTION = "transcription"


Chooser = Callable[[UUID, Purpose], ModelAccess | None]
Learner = Callable[[ModelAccess, tuple[Fact, ...]], None]
Meter = Callable[[UUID, str, int, int, int], None]  # client, model; tokens in, out, and in from a cache


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


def _count_nothing(_client_id: UUID, _model: str, _in: int, _out: int, _cached: int) -> None:
    """Count nothing: there are no rows for it."""


_choose: Chooser = _by_settings
_learn: Learner = _forget
_meter: Meter = _count_nothing


def register(choose: Chooser, learn: Learner, meter: Meter = _count_nothing) -> None:
    """Let `choose` say which model serves a client, `learn` keep what was learned of one, and `meter` count its tokens.

    All may read rows.
    """
    global _choose, _learn, _meter
    _choose, _learn, _meter = choose, learn, meter


def access_for(client_id: UUID, purpose: Purpose) -> ModelAccess | None:
    """Return the access to the model that serves the client; None if none is configured."""
    return _choose(client_id, purpose)


def note_use(client_id: UUID, answer: Completion) -> None:
    """Count what the answer took for the client."""
    _meter(client_id, answer.model, answer.tokens_in, answer.tokens_out, answer.tokens_cached)


def learn(access: ModelAccess, facts: tuple[Fact, ...]) -> None:
    """Keep what was learned of the model."""
    if facts:
        _learn(access, facts)
