"""Answers to the question about satisfaction: which message is one, and what becomes of it.

A pressed choice names its question, so it is an answer wherever it comes from. A bare number, or a thumb, is one where
nothing newer stands between: no conversation is open or was opened since, and the question is not older than
NUMBER_WITHIN. Everything else is a message like any other, and so is a second number.

An answer is kept in the conversation that it rates, which stays ended. So it is found again when it is delivered twice,
and no assistant answers it. Where the client asks why after a low one, the person's next message within WHY_WITHIN is
the comment, and is kept there as well. On the web, where nobody's message opens anything, programs and the copilot's
panel answer by `answer`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction
from django.utils.translation import gettext

from channels_out.choices import Choice, Choices, number_in
from channels_out.kinds import Channel
from conversations.models import Chunk, Contact, Conversation, Rating, Role, Scale, Status, Survey, corrected_text
from conversations.models.rating import LOW
from conversations.services.core import redaction
from conversations.services.core.appending import Appended, NewChunk, write_chunks
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.ledger import CONTACT, SYSTEM, Actor, record
from conversations.services.core.locking import editing, lock, lock_contact_of, saving
from conversations.services.core.sql import row
from conversations.services.delivery import outbox
from conversations.services.transitions.details import remember_anew

NUMBER_WITHIN = timedelta(hours=24)
PRESS_WITHIN = timedelta(days=7)
# Whoever says why does so at once. Later, a message is more likely about something new, which somebody must answer.
WHY_WITHIN = timedelta(minutes=30)
QUESTION = "rating_question"  # in the metadata of the question's chunk: the id of its row
WHY = "rating_why"  # the same, of the question after a low rating
COMMENT = "rating_comment"  # and of the answer to it
ENDED = (Status.CLOSED, Status.EXPIRED)

_PRESSED = re.compile(r"rating:([0-9]{1,18}):([0-9])\Z")
_UP, _DOWN = "\N{THUMBS UP SIGN}", "\N{THUMBS DOWN SIGN}"
_SHADES = re.compile("[\ufe0f\U0001f3fb-\U0001f3ff]")  # a thumb may have a colour

# The scores of a scale, by the number of its choice.
SCORES: Mapping[str, tuple[int, ...]] = {Scale.FIVE: (1, 2, 3, 4, 5), Scale.THUMBS: (5, 1)}
TITLES: Mapping[str, tuple[str, ...]] = {
    Scale.FIVE: tuple(f"{score} {'★' * score}" for score in SCORES[Scale.FIVE]),
    Scale.THUMBS: (_UP, _DOWN),
}


def _newest(condition: str, asked_at: str) -> str:
    """Return the statement of the newest such question, unless a conversation is open or was opened since."""
    return f"""
    SELECT r.id, r.conversation_id
    FROM conversations s JOIN ratings r ON r.client_id = s.client_id AND r.conversation_id = s.id
    WHERE s.client_id = $1 AND s.contact_id = $2 AND s.channel || '' = $3 AND {condition} AND {asked_at} >= $4
      AND ($5::uuid IS NULL OR s.channel_account_id IS NULL OR s.channel_account_id = $5)
      AND NOT EXISTS (
        SELECT FROM conversations n
        WHERE n.client_id = $1 AND n.contact_id = $2 AND n.channel || '' = $3
          AND (n.started_at >= {asked_at} OR n.status IN ('active', 'stale')))
    ORDER BY {asked_at} DESC LIMIT 1"""


_PENDING = _newest("r.score IS NULL", "r.asked_at")
_UNEXPLAINED = _newest("r.comment_id IS NULL", "r.why_asked_at")
_NAMED = """
    SELECT r.id, r.conversation_id
    FROM ratings r JOIN conversations s ON s.client_id = r.client_id AND s.id = r.conversation_id
    WHERE r.client_id = $1 AND r.id = $2 AND s.contact_id = $3 AND s.channel || '' = $4 AND r.asked_at >= $5"""


@dataclass(frozen=True, slots=True)
class Taken:
    """An answer that was taken: its chunk, and the status of the conversation that it rates."""

    appended: Appended
    status: str


@dataclass(frozen=True, slots=True)
class ShownRating:
    """The rating of a conversation with the words of its questions, as they read now.

    choices: score and title of each
    takes_answer, takes_comment: `answer` takes a score, or the reason for a low one
    """

    rating: Rating
    question: str
    why: str
    choices: list[tuple[int, str]]
    takes_answer: bool
    takes_comment: bool


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
    lock_contact_of(conversation_id, client_id)
    try:
        conversation = lock(conversation_id, client_id)
    except NotFoundError:
        return None
    # Read under the lock: of two answers at once, one is the first.
    rating = Rating.objects.get(client=client_id, pk=rating_id)
    scores = SCORES[rating.scale]
    is_unfit = not 1 <= number <= len(scores) or scale not in (None, rating.scale)
    if is_unfit or conversation.status not in ENDED:
        return None
    if rating.score is not None and not may_be_rated:
        return None
    score = scores[number - 1]
    with saving(conversation):
        written = _append(conversation, chunk, {"rating": score})
        if rating.score is None:
            _rate(conversation, rating, score, CONTACT, chunk.at)
            _ask_why(conversation, rating, score, chunk.at)
    return _taken(conversation, written)


def take_comment(contact: Contact, chunk: NewChunk) -> Taken | None:
    """Take the message as the reason for a low rating and return it; None where none is asked for any more.

    Call it in the transaction of the message, where the contact has no open conversation.
    """
    if contact.comment_until is None or chunk.at > contact.comment_until:
        return None
    about = (contact.client_id, contact.pk, chunk.channel, chunk.at - WHY_WITHIN, chunk.channel_account_id)
    found = row(_UNEXPLAINED, *about)
    if not found:
        return None
    rating_id, conversation_id = found
    lock_contact_of(conversation_id, contact.client_id)
    try:
        conversation = lock(conversation_id, contact.client_id)
    except NotFoundError:
        return None
    rating = Rating.objects.get(client=contact.client_id, pk=rating_id)
    if rating.comment_id is not None or conversation.status not in ENDED:
        return None
    with saving(conversation):
        written = _append(conversation, chunk, {COMMENT: rating.pk})
        _keep_comment(conversation, rating, written, CONTACT, chunk.at)
    return _taken(conversation, written)


# --- without a message: on the web, and by programs -------------------------------------------------------------------
def shown(conversation: Conversation, now: datetime) -> ShownRating | None:
    """Return the conversation's rating with its questions; None where the person was not asked."""
    rating = Rating.objects.filter(client=conversation.client_id, conversation=conversation).first()
    if rating is None:
        return None
    is_unexplained = rating.score is not None and rating.why_asked_at is not None and rating.comment_id is None
    is_ended = conversation.status in ENDED
    return ShownRating(
        rating,
        question=_words(conversation, QUESTION),
        why=_words(conversation, WHY) if rating.why_asked_at else "",
        choices=list(zip(SCORES[rating.scale], TITLES[rating.scale], strict=True)),
        takes_answer=is_ended and rating.score is None and rating.asked_at >= now - PRESS_WITHIN,
        takes_comment=is_ended and is_unexplained and _is_recent(rating, now),
    )


def answer(
    client_id: UUID, conversation_id: UUID, score: int, comment: str = "", *, actor: Actor, now: datetime
) -> ShownRating:
    """Store the person's answer, with their reason if there is one, and return the rating. It opens nothing.

    The first answer and the first reason count. The same again changes nothing.

    Raises NotFoundError, InvalidError (`no_such_score`), or ConflictError: `not_asked`, `rated` where another answer
    or reason was given before, `too_late` a week after the question or the answer, or once it is archived.
    """
    with _editing_with_contact(client_id, conversation_id) as conversation:
        rating = Rating.objects.filter(client=client_id, conversation=conversation).first()
        if rating is None:
            raise ConflictError(gettext("Nobody was asked about this conversation."), code="not_asked")
        _check_score(rating, score)
        comment = redaction.rules_of(conversation.client).clean(comment.strip())
        if rating.score is None:
            _check_time(conversation, rating.asked_at, now)
            title = TITLES[rating.scale][SCORES[rating.scale].index(score)]
            _append(conversation, _new_chunk(conversation, title, now), {"rating": score})
            _rate(conversation, rating, score, actor, now)
            if conversation.channel == Channel.WEB and not comment:
                _ask_why(conversation, rating, score, now)
        if comment and rating.comment_id is None:
            _check_time(conversation, rating.rated_at or now, now)
            written = _append(conversation, _new_chunk(conversation, comment, now), {COMMENT: rating.pk})
            _keep_comment(conversation, rating, written, actor, now)
        elif comment and comment != rating.comment:
            raise ConflictError(
                gettext("The person has said why before."), code="rated", details={"score": rating.score}
            )
    found = shown(conversation, now)
    assert found is not None  # noqa: S101 - for the type checker; it was read above
    return found


@contextmanager
def _editing_with_contact(client_id: UUID, conversation_id: UUID) -> Iterator[Conversation]:
    """Lock the contact and then the conversation, and write what changed. Raises NotFoundError."""
    with transaction.atomic():
        lock_contact_of(conversation_id, client_id)
        with editing(conversation_id, client_id) as conversation:
            yield conversation


def _check_score(rating: Rating, score: int) -> None:
    scores = SCORES[rating.scale]
    if score not in scores:
        wanted = ", ".join(str(each) for each in sorted(scores))
        raise InvalidError(
            gettext("The scores of this question are %(scores)s.") % {"scores": wanted}, code="no_such_score"
        )
    if rating.score not in (None, score):
        raise ConflictError(gettext("The person has answered before."), code="rated", details={"score": rating.score})


def _check_time(conversation: Conversation, since: datetime, now: datetime) -> None:
    if conversation.status not in ENDED or since < now - PRESS_WITHIN:
        raise ConflictError(gettext("It is too late to answer this question."), code="too_late")


def _is_recent(rating: Rating, now: datetime) -> bool:
    return rating.rated_at is not None and rating.rated_at >= now - PRESS_WITHIN


def _new_chunk(conversation: Conversation, text: str, now: datetime) -> NewChunk:
    return NewChunk(channel=conversation.channel, thread=conversation.thread, at=now, text=text)


def _words(conversation: Conversation, mark: str) -> str:
    """Return how the newest message with the mark in its metadata reads; '' if there is none any more."""
    marked = Chunk.objects.filter(client=conversation.client_id, conversation=conversation, metadata__has_key=mark)
    found = (
        marked.annotate(words=corrected_text(conversation.client_id))
        .order_by("-position")
        .values_list("words", flat=True)
        .first()
    )
    return found or ""


# --- what becomes of them ---------------------------------------------------------------------------------------------
def _append(conversation: Conversation, chunk: NewChunk, marks: Mapping[str, int]) -> Chunk:
    """Append the person's message to the locked ended conversation and return it."""
    conversation.inbound_sequence += 1
    [written] = write_chunks(
        conversation,
        [(chunk.role, chunk.text)],
        chunk.at,
        message_id=chunk.message_id,
        dedupe_key=chunk.dedupe_key,
        metadata={**orjson.loads(chunk.metadata), **marks},
    )
    return written


def _taken(conversation: Conversation, written: Chunk) -> Taken:
    about = (conversation.pk, written.pk, written.position, conversation.is_guest)
    return Taken(Appended(*about, sequence=conversation.inbound_sequence), conversation.status)


def _rate(conversation: Conversation, rating: Rating, score: int, actor: Actor, now: datetime) -> None:
    _set(rating, score=score, rated_at=now)
    record(conversation, "rated", actor, score=score, scale=rating.scale)


def _ask_why(conversation: Conversation, rating: Rating, score: int, now: datetime) -> None:
    """Ask why the rating is low, if it is and the client asks."""
    survey = _survey_of(conversation) if score <= LOW else None
    if survey is None or not survey.why:
        return
    _say(conversation, survey.why, {WHY: rating.pk}, now)
    _set(rating, why_asked_at=now)
    if conversation.channel != Channel.WEB:
        theirs = Contact.objects.filter(client=conversation.client_id, pk=conversation.contact_id)
        theirs.update(comment_until=now + WHY_WITHIN)
    record(conversation, "rating_why_asked", SYSTEM)


def _keep_comment(conversation: Conversation, rating: Rating, written: Chunk, actor: Actor, now: datetime) -> None:
    """Keep the message as the reason for the rating. Whoever was asked for it is thanked."""
    _set(rating, comment=written.content, comment_id=written.pk)
    record(conversation, "rating_commented", actor, position=written.position)
    remember_anew(conversation, now)
    survey = _survey_of(conversation) if rating.why_asked_at else None
    if survey and survey.thanks:
        _say(conversation, survey.thanks, {}, now)
    theirs = Contact.objects.filter(client=conversation.client_id, pk=conversation.contact_id)
    theirs.filter(comment_until__isnull=False).update(comment_until=None)


def reread_comment(conversation: Conversation, position: int) -> None:
    """Let the comment of the conversation's rating read as its message, at the position, reads now."""
    theirs = Rating.objects.filter(client=conversation.client_id, conversation=conversation, comment_id__isnull=False)
    rating = theirs.first()
    if rating is None:
        return
    said = Chunk.objects.filter(client=conversation.client_id, conversation=conversation, position=position)
    for pk, words in said.annotate(words=corrected_text(conversation.client_id)).values_list("pk", "words"):
        if pk == rating.comment_id:
            _set(rating, comment=words)


def _say(conversation: Conversation, text: str, marks: Mapping[str, int], now: datetime) -> None:
    [chunk] = write_chunks(conversation, [(Role.AI, text)], now, metadata=dict(marks))
    outbox.queue(conversation, chunk, now, unconditional=True)


def _survey_of(conversation: Conversation) -> Survey | None:
    asked = Survey.objects.filter(client=conversation.client_id, channel=conversation.channel, is_active=True)
    return asked.first()


def _set(rating: Rating, **values: Any) -> None:
    Rating.objects.filter(client=rating.client_id, pk=rating.pk).update(**values)
    for name, value in values.items():
        setattr(rating, name, value)


def _thumb(text: str) -> int | None:
    """Return the number of the choice that a thumb is: 1 up, 2 down."""
    bare = _SHADES.sub("", text.strip())
    return {_UP: 1, _DOWN: 2}.get(bare)
