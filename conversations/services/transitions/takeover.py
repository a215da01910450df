"""Who answers in a session: its assistant, or a person.

    the assistant's ──► a person's          staff or a program take it
       ▲      │              │  ▲
       │      └──► nobody's ─┘──┘           the assistant asks for a person, or a rule does; somebody takes it
       └──────────────┴──────┘              handed back, or abandoned: the sweep sees `taken_over_until` go by

From the takeover's commit on the assistant is silent: a reply that is being written is dropped where it would be
committed (answering/replies.py), and what was not sent yet is cancelled: here, and once more just before it would leave
(delivering/delivery.py). The session does not age meanwhile. What people write is owed an answer all the same:
by whoever has the session, and after the hand-back by the assistant.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction

from conversations.models import Client, Conversation, Role
from conversations.services.core.appending import ACTIVITY_FIELDS, lock_open, write_chunks
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import Actor, Kind, record
from conversations.services.delivery import outbox

LONGEST_NAME = 200
TAKEOVER_FIELDS = [
    *("taken_over_by", "taken_over_name", "taken_over_at", "taken_over_until", "handed_back_at"),
    *("needs_staff_since", "needs_staff_reason"),
]
SWEEP = Actor(Kind.SYSTEM, "sweep")


def take_over(
    conversation_id: UUID | str,
    *,
    actor: Actor,
    now: datetime,
    name: str = "",
    tell: bool = False,
    from_colleague: bool = False,
    client: Client | None = None,
) -> Conversation:
    """The open session is the actor's (`name`, where a program says who that is), and the assistant silent.

    Who has it already keeps it, for longer. `tell`: the person is told so, in the assistant's sentence. Raises
    NotFoundError, or ConflictError: `ended`, or `taken_over` where a colleague has it and it is not taken
    `from_colleague`.
    """
    holder = (name or actor.name)[:LONGEST_NAME]
    with transaction.atomic():
        conversation = lock_open(conversation_id, client)
        if has_it(conversation, actor, holder):
            stay(conversation, now)
        elif conversation.taken_over_name and not from_colleague:
            raise ConflictError(
                f"{conversation.taken_over_name} has this session.",
                code="taken_over",
                details={"taken_over_by": conversation.taken_over_name, "taken_over_at": conversation.taken_over_at},
            )
        else:
            tell = tell and conversation.taken_over_at is None
            take(conversation, actor, now, holder=holder, user_id=actor.user_id, tell=tell)
        conversation.save(update_fields=[*ACTIVITY_FIELDS, *TAKEOVER_FIELDS])
    return conversation


def has_it(conversation: Conversation, actor: Actor, holder: str) -> bool:
    """Whether the session is theirs."""
    return bool(holder) and (conversation.taken_over_by_id, conversation.taken_over_name) == (actor.user_id, holder)


def take(
    conversation: Conversation,
    actor: Actor,
    now: datetime,
    *,
    holder: str = "",
    user_id: int | None = None,
    reason: str = "",
    tell: bool = False,
) -> None:
    """The locked open session is the holder's, or, without one, waits for somebody; the assistant is silent.

    The caller saves ACTIVITY_FIELDS and TAKEOVER_FIELDS.
    """
    outbox.silence(conversation)
    conversation.taken_over_at = conversation.taken_over_at or now
    conversation.taken_over_by_id = user_id
    conversation.taken_over_name = holder
    conversation.reply_attempts = conversation.reply_crashes = conversation.drafts_overtaken = 0
    stay(conversation, now)
    if holder:
        conversation.needs_staff_since, conversation.needs_staff_reason = None, ""
    else:
        conversation.needs_staff_since = conversation.needs_staff_since or now
        conversation.needs_staff_reason = reason[:200]
    position = conversation.last_position  # nothing after it is the assistant's, but the sentence that says so
    if tell:
        _tell(conversation, now)
    record(conversation, "taken_over", actor, cause=reason[:200], holder=holder, position=position)


def stay(conversation: Conversation, now: datetime) -> None:
    """Whoever has the locked session did something: it is theirs for as long again."""
    conversation.taken_over_until = now + conversation.client.hand_back_after


def note_written(conversation: Conversation, actor: Actor, now: datetime) -> list[str]:
    """Somebody of ours wrote in the locked session: it waits for nobody any more; where it was taken over and nobody
    had it, it is theirs. Returns the fields to save."""
    if actor.kind == Kind.STAFF:
        conversation.needs_staff_since, conversation.needs_staff_reason = None, ""
        if conversation.taken_over_at and not conversation.taken_over_name:
            take(conversation, actor, now, holder=actor.name, user_id=actor.user_id)
    if conversation.taken_over_name:
        stay(conversation, now)
    return TAKEOVER_FIELDS


def hand_back(
    conversation_id: UUID | str, *, actor: Actor, now: datetime, reason: str = "", client: Client | None = None
) -> Conversation:
    """The open session is the assistant's again, which answers what is unanswered, knowing what was said meanwhile; its
    age counts from now. Where it is the assistant's already, nothing changes. Raises NotFoundError or ConflictError
    (`ended`).
    """
    with transaction.atomic():
        conversation = lock_open(conversation_id, client)
        if conversation.taken_over_at:
            _hand_back(conversation, actor, now, reason)
            conversation.needs_staff_since, conversation.needs_staff_reason = None, ""
            conversation.save(update_fields=[*ACTIVITY_FIELDS, *TAKEOVER_FIELDS])
    return conversation


def hand_back_abandoned(conversation_ids: Sequence[UUID], now: datetime) -> int:
    """Those of the sessions whose takeover's time is over are the assistant's again; those that nobody came for still
    wait for a person as well. Returns how many there were."""
    return sum(_hand_back_abandoned(pk, now) for pk in conversation_ids)


def _hand_back_abandoned(conversation_id: UUID, now: datetime) -> bool:
    with transaction.atomic():
        due = Conversation.objects.open().filter(pk=conversation_id, taken_over_until__lte=now)
        conversation = due.select_for_update(no_key=True, skip_locked=True).first()
        if conversation is None:
            return False
        span = conversation.client.hand_back_after.total_seconds()
        rule = {"rule": "hand_back_after", "seconds": span}
        _hand_back(conversation, SWEEP, now, "nobody did anything within hand_back_after", **rule)
        conversation.save(update_fields=[*ACTIVITY_FIELDS, *TAKEOVER_FIELDS])
    return True


def _hand_back(conversation: Conversation, actor: Actor, now: datetime, reason: str, **rule: Any) -> None:
    holder = conversation.taken_over_name
    let_go(conversation)
    conversation.handed_back_at = now
    if conversation.reply_owed:
        conversation.reply_due_at = now
    record(conversation, "handed_back", actor, cause=reason, holder=holder, **rule)


def let_go(conversation: Conversation) -> None:
    """Nobody of ours has the locked session."""
    conversation.taken_over_by_id, conversation.taken_over_name = None, ""
    conversation.taken_over_at = conversation.taken_over_until = None


def _tell(conversation: Conversation, now: datetime) -> None:
    """The person hears that a colleague has the session, if the assistant has a sentence for that."""
    sentence = conversation.assistant.takeover_sentence.strip() if conversation.assistant else ""
    if sentence:
        [chunk] = write_chunks(conversation, [(Role.AI, sentence)], now, metadata={"said_at": "takeover"})
        outbox.queue(conversation, chunk, now, unconditional=True)
