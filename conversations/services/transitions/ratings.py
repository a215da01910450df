"""Answers to the question about satisfaction: which message is one, and what becomes of it.

A pressed choice names its question, so it is an answer wherever it comes from. A bare number, or a thumb, is one where
nothing newer stands between: no conversation is open or was opened since, and the question is not older than
NUMBER_WITHIN. Everything else is a message like any other, and so is a second number.

An answer is kept in the conversation that it rates, which stays ended. So it is found again when it is delivered twice,
and no assistant answers it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from channels_out.choices import Choice, Choices, number_in
from conversations.models import Conversation, Rating, Scale, Status
from conversations.services.core.appending import Appended, NewChunk, write_chunks
from conversations.services.core.errors import NotFoundError
from conversations.services.core.ledger import CONTACT, record
from conversations.services.core.locking import lock, saving
from conversations.services.core.sql import row

NUMBER_WITHIN = timedelta(hours=24)
PRESS_WITHIN = timedelta(days=7)

_PRESSED = re.compile(r"rating:([0-9]{1,18}):([0-9])\Z")
_UP, _DOWN = "\N{THUMBS UP SIGN}", "\N{THUMBS DOWN SIGN}"
_SHADES = re.compile("[\ufe0f\U0001f3fb-\U0001f3ff]")  # a thumb may have a colour

# The scores of a scale, by the number of its choice.
SCORES: Mapping[str, tuple[int, ...]] = {Scale.FIVE: (1, 2, 3, 4, 5), Scale.THUMBS: (5, 1)}
TITLES: Mapping[str, tuple[str, ...]] = {
    Scale.FIVE: tuple(f"{score} {'★' * score}" for score in SCORES[Scale.FIVE]),
    Scale.THUMBS: (_UP, _DOWN),
}

# The newest question that is not answered, unless a conversation is open or was opened since.
_PENDING = """
    SELECT r.id, r.conversation_id
    FROM conversations s JOIN ratings r ON r.client_id = s.client_id AND r.conversation_id = s.id
    WHERE s.client_id = $1 AND s.contact_id = $2 AND s.channel || '' = $3 AND r.score IS NULL AND r.asked_at >= $4
      AND ($5::uuid IS NULL OR s.channel_account_id IS NULL OR s.channel_account_id = $5)
      AND NOT EXISTS (
        SELECT FROM conversations n
        WHERE n.client_id = $1 AND n.contact_id = $2 AND n.channel || '' = $3
          AND (n.started_at >= r.asked_at OR n.status IN ('active', 'stale')))
    ORDER BY r.asked_at DESC LIMIT 1"""
_NAMED = """
    SELECT r.id, r.conversation_id
    FROM ratings r JOIN conversations s ON s.client_id = r.client_id AND s.id = r.conversation_id
    WHERE r.client_id = $1 AND r.id = $2 AND s.contact_id = $3 AND s.channel || '' = $4 AND r.asked_at >= $5"""


@dataclass(frozen=True, slots=True)
class Taken:
    """An answer that was taken: its chunk, and the status of the conversation that it rates."""

    appended: Appended
    status: str


def choices_of(rating: Rating) -> Choices:
    """Return the choices of the question, each of which names it."""
    titles = enumerate(TITLES[rating.scale], start=1)
    return Choices(tuple(Choice(f"rating:{rating.pk}:{number}", title) for number, title in titles))


def pressed(metadata: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Return the question's id and the number of the choice that a message's metadata names; None if it names none."""
    payload = metadata.get("payload") if metadata else None
    found = _PRESSED.match(payload) if isinstance(payload, str) else None
    return (int(found[1]), int(found[2])) if found else None


def is_thumb(text: str) -> bool:
    """Return whether the text is a thumb up or down and nothing else."""
    return _thumb(text) is not None


def take_press(client_id: UUID, contact_id: UUID, chunk: NewChunk) -> Taken | None:
    """Take the message as the answer that it names and return it; None if it names no question of the contact's.

    The first answer counts. A later press is kept beside it and changes nothing.
    """
    named = pressed(orjson.loads(chunk.metadata))
    if named is None:
        return None
    rating_id, number = named
    found = row(_NAMED, client_id, rating_id, contact_id, chunk.channel, chunk.at - PRESS_WITHIN)
    return _take(client_id, found, chunk, number=number, may_be_rated=True) if found else None


def take_number(client_id: UUID, contact_id: UUID, chunk: NewChunk) -> Taken | None:
    """Take the bare number or thumb as the answer to the newest question and return it; None if it is none."""
    thumb = _thumb(chunk.text)
    number = thumb or number_in(chunk.text)
    if number is None:
        return None
    since = chunk.at - NUMBER_WITHIN
    found = row(_PENDING, client_id, contact_id, chunk.channel, since, chunk.channel_account_id)
    if not found:
        return None
    return _take(client_id, found, chunk, number=number, scale=Scale.THUMBS if thumb else None)


def _take(
    client_id: UUID,
    found: tuple[Any, ...],
    chunk: NewChunk,
    *,
    number: int,
    scale: str | None = None,
    may_be_rated: bool = False,
) -> Taken | None:
    """Store the answer in the conversation that it rates. Call it in the transaction of the message.

    found: the ids of the rating and of its conversation
    """
    rating_id, conversation_id = found
    try:
        conversation = lock(conversation_id, client_id)
    except NotFoundError:
        return None
    # Read under the lock: of two answers at once, one is the first.
    rating = Rating.objects.get(client=client_id, pk=rating_id)
    scores = SCORES[rating.scale]
    is_unfit = not 1 <= number <= len(scores) or scale not in (None, rating.scale)
    if is_unfit or conversation.status not in (Status.CLOSED, Status.EXPIRED):
        return None
    if rating.score is not None and not may_be_rated:
        return None
    score = scores[number - 1]
    with saving(conversation):
        appended = _append(conversation, chunk, score)
        if rating.score is None:
            _rate(conversation, rating, score, chunk.at)
    return Taken(appended, conversation.status)


def _append(conversation: Conversation, chunk: NewChunk, score: int) -> Appended:
    conversation.inbound_sequence += 1
    [written] = write_chunks(
        conversation,
        [(chunk.role, chunk.text)],
        chunk.at,
        message_id=chunk.message_id,
        dedupe_key=chunk.dedupe_key,
        metadata={**orjson.loads(chunk.metadata), "rating": score},
    )
    sequence = conversation.inbound_sequence
    return Appended(conversation.pk, written.pk, written.position, conversation.is_guest, sequence=sequence)


def _rate(conversation: Conversation, rating: Rating, score: int, now: datetime) -> None:
    Rating.objects.filter(client=conversation.client_id, pk=rating.pk).update(score=score, rated_at=now)
    record(conversation, "rated", CONTACT, score=score, scale=rating.scale)


def _thumb(text: str) -> int | None:
    """Return the number of the choice that a thumb is: 1 up, 2 down."""
    bare = _SHADES.sub("", text.strip())
    return {_UP: 1, _DOWN: 2}.get(bare)
