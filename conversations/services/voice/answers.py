"""Answer the requests of a call: each is answered once, and a request that comes again is told the same again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Exists, Max, OuterRef, QuerySet
from django.utils.translation import gettext_noop

from channels_out.calls import CallRequest, Instruction, NextAction
from channels_out.choices import choices_from_json, with_numbers
from channels_out.formatting import Formatting, formatted
from conversations.models import (
    Assistant,
    CallAnswer,
    ChannelAccount,
    Chunk,
    Conversation,
    Message,
    Role,
    Turn,
    corrected_text,
)
from conversations.services.core.ledger import SYSTEM, record
from conversations.services.core.locking import lock, saving
from conversations.services.delivery import outbox
from conversations.services.transitions import closing
from conversations.services.voice import spoken


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step of a call. If `speaks`, all replies that the caller has not heard are said as well."""

    then: NextAction
    phrase: str = ""
    speaks: bool = True
    turn: int = 0
    again: int = 0
    waited: int = 0


HANG_UP = Decision(NextAction.HANG_UP)
Unheard = QuerySet[Chunk]
Decide = Callable[[Unheard], Decision]


def _request_key(call: CallRequest) -> str:
    return f"{call.event}.{call.turn}.{call.again}.{call.waited}"


def previous_answer(conversation_id: UUID, account: ChannelAccount, call: CallRequest) -> Instruction | None:
    """Return the instruction that the same request got before, or None."""
    given = CallAnswer.objects.filter(
        client=account.client_id, conversation=conversation_id, key=_request_key(call)
    ).first()
    return _instruction(given) if given else None


def answer(
    conversation_id: UUID, account: ChannelAccount, call: CallRequest, now: datetime, decide: Decide
) -> Instruction:
    """Decide, store the answer and return its instruction; a repeated request gets the stored answer.

    The lock of the conversation puts simultaneous requests in line.
    """
    with transaction.atomic():
        conversation = lock(conversation_id, account.client_id)
        known = CallAnswer.objects.filter(conversation=conversation, key=_request_key(call)).first()
        if known:
            return _instruction(known)
        unheard = unheard_replies(conversation)
        decision = decide(unheard) if conversation.is_open else HANG_UP
        number = conversation.transfer_to if decision.then != NextAction.HANG_UP else ""
        if number:
            decision = Decision(NextAction.TRANSFER, turn=call.turn + 1)
            with saving(conversation):
                conversation.transfer_to = ""
            record(conversation, "call_transferred", SYSTEM, number=number)
        said = [chunk.position for chunk in unheard] if decision.speaks else []
        if said:
            record_messages(conversation, unheard, call, now, status=Message.Status.SENT)
        given = CallAnswer.objects.create(
            conversation=conversation,
            key=_request_key(call),
            then=decision.then,
            phrase=decision.phrase,
            first_position=said[0] if said else 0,
            last_position=said[-1] if said else 0,
            number=number,
            turn=decision.turn,
            again=decision.again,
            waited=decision.waited,
        )
        if decision.then == NextAction.HANG_UP and conversation.is_open:
            closing.close(
                conversation_id,
                ended_by="system",
                actor=SYSTEM,
                now=now,
                reason=gettext_noop("nobody spoke"),
                client=account.client,
            )
    return _instruction(given)


def unheard_replies(conversation: Conversation) -> Unheard:
    """Return the replies that the caller has not heard yet, in order."""
    heard = CallAnswer.objects.filter(conversation=conversation).aggregate(last=Max("last_position"))["last"] or 0
    said = Chunk.objects.filter(conversation=conversation, role=Role.AI, position__gt=heard)
    return said.order_by("position")


def record_messages(
    conversation: Conversation, chunks: Unheard, call: CallRequest, now: datetime, *, status: str, code: str = ""
) -> None:
    """Create a message for each chunk that says whether it was said, as on the channels to which we send."""
    to, kind = outbox.destination(conversation)
    sent_at = now if status == Message.Status.SENT else None
    Message.objects.bulk_create(
        (
            Message(
                conversation=conversation,
                chunk=chunk,
                channel_account_id=conversation.channel_account_id,
                to_address=to,
                to_kind=kind,
                text=_spoken(chunk.content, chunk.metadata, by_assistant=chunk.by_assistant),
                status=status,
                code=code,
                provider_message_id=f"{call.call_id}.{chunk.position}" if sent_at else "",
                due_at=now,
                created_at=now,
                sending_at=sent_at,
                sent_at=sent_at,
            )
            for chunk in _with_author(conversation.client_id, chunks)
        ),
        ignore_conflicts=True,  # a hang-up that comes twice
    )


def assistant_of(conversation: Conversation) -> Assistant:
    """Return the conversation's assistant; one with the defaults if it has none."""
    return conversation.assistant or Assistant()


def _instruction(given: CallAnswer) -> Instruction:
    related = ("assistant", "channel_account")
    theirs = Conversation.objects.of(given.client_id)
    conversation = theirs.select_related(*related).get(pk=given.conversation_id)
    assistant = assistant_of(conversation)
    chunks = Chunk.objects.filter(
        conversation=conversation, role=Role.AI, position__range=(given.first_position, given.last_position)
    )
    said = _with_author(
        conversation.client_id, chunks.order_by("position").annotate(words=corrected_text(conversation.client_id))
    )
    words = [
        _spoken(text, metadata, by_assistant=by_assistant)
        for text, metadata, by_assistant in said.values_list("words", "metadata", "by_assistant")
    ]
    first = spoken.phrase(given.phrase, assistant.spoken_language)
    return Instruction(
        then=NextAction(given.then),
        say=tuple(filter(None, [*words, first])),
        turn=given.turn,
        again=given.again,
        waited=given.waited,
        number=given.number,
        ours=conversation.channel_account.address if conversation.channel_account else "",
        language=assistant.spoken_language,
        voice=assistant.voice,
    )


def _with_author(client_id: UUID, chunks: QuerySet[Chunk]) -> QuerySet[Any]:
    """Return the client's chunks with `by_assistant`: whether a model wrote them."""
    return chunks.annotate(by_assistant=Exists(Turn.objects.filter(client=client_id, chunk=OuterRef("pk"))))


def _spoken(text: str, metadata: dict[str, Any], *, by_assistant: bool) -> str:
    """Return the text as it is said: what a model wrote without its Markdown, other text as it is, then the choices."""
    said = formatted(text, Formatting.SPEECH).text if by_assistant else text
    return with_numbers(said, choices_from_json(metadata.get(outbox.CHOICES)))
