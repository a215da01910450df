"""Takeover: whether the assistant or a colleague answers in a conversation.

    assistant ──► colleague          staff or a program take it over
       ▲   │          │  ▲
       │   └──► nobody yet            the assistant asks for a person, or a rule does; then somebody takes it over
       └──────────┴──────┘            handed back, or nobody did anything until `taken_over_until` (the sweep)

From the commit of a takeover on the assistant is silent. A reply that is being written is dropped where it would be
committed (replies/pipeline.py), and messages that were not sent yet are cancelled: here, and once more just before they
would leave (delivery/sending.py). The conversation does not age meanwhile. A message of the person still needs an
answer: by the colleague who has the conversation, and after the hand-back by the assistant. A colleague who goes away
may leave a conversation that waits for them to nobody (`leave_to_anybody`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext, gettext_noop

from conversations.models import Client, Conversation, Role
from conversations.services.core import proposals
from conversations.services.core.appending import write_chunks
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import Actor, Kind, record
from conversations.services.core.locking import editing, saving
from conversations.services.delivery import disclosure, outbox
from conversations.services.transitions import pending_handovers, transfers

LONGEST_NAME = 200
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
    """Give the open conversation to the actor and silence the assistant. Returns the conversation.

    A holder who takes it over again keeps it for longer.

    name: who has it, where a program says so; '' for the actor's own name
    tell: send the person the assistant's sentence about the takeover
    from_colleague: take it from a colleague who has it

    Raises NotFoundError, or ConflictError: `ended`, or `taken_over` where a colleague has it.
    """
    holder = (name or actor.name)[:LONGEST_NAME]
    with editing(conversation_id, client, if_open=True) as conversation:
        if has_it(conversation, actor, holder):
            stay(conversation, now)
        elif conversation.taken_over_name and not from_colleague:
            raise ConflictError(
                gettext("%(name)s has this conversation.") % {"name": conversation.taken_over_name},
                code="taken_over",
                details={"taken_over_by": conversation.taken_over_name, "taken_over_at": conversation.taken_over_at},
            )
        else:
            tell = tell and conversation.taken_over_at is None
            take(conversation, actor, now, holder=holder, user_id=actor.user_id, tell=tell)
    return conversation


def has_it(conversation: Conversation, actor: Actor, holder: str) -> bool:
    """Return whether the holder has the conversation."""
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
    """Give the locked open conversation to the holder, or to nobody yet, and silence the assistant.

    Call it within `locking.saving`.

    holder: '' where it waits for a person; `reason` then says why
    tell: send the person the assistant's sentence about the takeover
    """
    outbox.silence(conversation)
    pending_handovers.drop(conversation)
    conversation.taken_over_at = conversation.taken_over_at or now
    conversation.taken_over_by_id = user_id
    conversation.taken_over_name = holder
    conversation.reply_attempts = conversation.reply_crashes = conversation.drafts_overtaken = 0
    stay(conversation, now)
    if holder:
        proposals.discard_open(conversation, actor, now)
        _note_attended(conversation)
    else:
        conversation.needs_staff_since = conversation.needs_staff_since or now
        conversation.needs_staff_reason = reason[:200]
    if not holder and (number := transfers.number_of(conversation)):
        transfers.request(conversation, number, actor, reason)
    position = conversation.last_position  # the assistant says nothing after it but the sentence about the takeover
    if tell:
        _tell(conversation, now)
    record(conversation, "taken_over", actor, cause=reason[:200], holder=holder, position=position)


def stay(conversation: Conversation, now: datetime) -> None:
    """Let the takeover of the locked conversation last for the client's `hand_back_after` from now on."""
    conversation.taken_over_until = now + conversation.client.hand_back_after


def note_written(conversation: Conversation, actor: Actor, now: datetime) -> None:
    """Note that the actor wrote in the locked conversation. Call it within `locking.saving`.

    It waits for staff no more where staff wrote, and becomes theirs where it was taken over and nobody had it.
    """
    if actor.kind == Kind.STAFF:
        _note_attended(conversation)
        pending_handovers.drop(conversation)
        if conversation.taken_over_at and not conversation.taken_over_name:
            take(conversation, actor, now, holder=actor.name, user_id=actor.user_id)
    if conversation.taken_over_name:
        stay(conversation, now)


def leave_to_anybody(conversation: Conversation, actor: Actor, now: datetime) -> None:
    """Let nobody have the locked conversation that a colleague has and that waits for their answer.

    It waits on, since when it did, and the assistant stays silent. Call it within `locking.saving`.
    """
    holder = conversation.taken_over_name
    conversation.needs_staff_since = conversation.waits_for_staff_since or now
    conversation.needs_staff_reason = conversation.needs_staff_reason or "given back"
    conversation.taken_over_by_id, conversation.taken_over_name = None, ""
    stay(conversation, now)
    record(conversation, "given_back", actor, cause=holder)


def hand_back(
    conversation_id: UUID | str, *, actor: Actor, now: datetime, reason: str = "", client: Client | None = None
) -> Conversation:
    """Give the open conversation back to the assistant, which answers what is unanswered. Returns the conversation.

    It ages from now on. Where the assistant has it already, nothing changes. Raises NotFoundError, or ConflictError
    (`ended`).
    """
    with editing(conversation_id, client, if_open=True) as conversation:
        if conversation.taken_over_at:
            _hand_back(conversation, actor, now, reason)
            _note_attended(conversation)
    return conversation


def hand_back_abandoned(client_id: UUID, conversation_ids: Sequence[UUID], now: datetime) -> int:
    """Give back those of the conversations whose takeover has lasted long enough, and return how many there were.

    Those that nobody had still wait for a person as well.
    """
    return sum(_hand_back_abandoned(client_id, pk, now) for pk in conversation_ids)


def _hand_back_abandoned(client_id: UUID, conversation_id: UUID, now: datetime) -> bool:
    with transaction.atomic():
        due = Conversation.objects.of(client_id).open().filter(pk=conversation_id, taken_over_until__lte=now)
        conversation = due.select_for_update(no_key=True, skip_locked=True).first()
        if conversation is None:
            return False
        span = conversation.client.hand_back_after.total_seconds()
        rule = {"rule": "hand_back_after", "seconds": span}
        with saving(conversation):
            _hand_back(conversation, SWEEP, now, gettext_noop("nobody did anything within hand_back_after"), **rule)
    return True


def _hand_back(conversation: Conversation, actor: Actor, now: datetime, reason: str, **rule: Any) -> None:
    holder = conversation.taken_over_name
    release(conversation)
    conversation.handed_back_at = now
    if conversation.reply_owed:
        conversation.reply_due_at = now
    record(conversation, "handed_back", actor, cause=reason, holder=holder, **rule)


def release(conversation: Conversation) -> None:
    """Take the locked conversation from whoever has it. Call it within `locking.saving`."""
    conversation.taken_over_by_id, conversation.taken_over_name = None, ""
    conversation.taken_over_at = conversation.taken_over_until = None


def _note_attended(conversation: Conversation) -> None:
    conversation.needs_staff_since, conversation.needs_staff_reason = None, ""


def _tell(conversation: Conversation, now: datetime) -> None:
    """Send the assistant's sentence about a takeover, if it has one."""
    sentence = conversation.assistant.takeover_sentence.strip() if conversation.assistant else ""
    if sentence:
        first = disclosure.due(conversation)
        metadata = {"said_at": "takeover", **disclosure.metadata(first)}
        [chunk] = write_chunks(conversation, [(Role.AI, disclosure.before(sentence, first))], now, metadata=metadata)
        disclosure.note(conversation, chunk, first)
        outbox.queue(conversation, chunk, now, unconditional=True)
