"""Phone calls: a call is a conversation, and each request of the provider is answered with an instruction.

    provider's request ─► append what was said ─► wait for the reply (VOICE_REPLY_SECONDS) ─► CallAnswer ─► instruction
                                                       └─ takes longer: the provider is told to ask again

The dispatcher writes the reply as on every channel. The request polls the rows for it; between two polls it holds
neither transaction nor connection. Each answer is stored as a CallAnswer, so that a request that comes twice gets the
same answer.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from uuid import UUID

from django.conf import settings
from django.db import IntegrityError, transaction
from django.utils import timezone
from django.utils.translation import gettext_noop

from channels_out.calls import CallEvent, CallRequest, Instruction, NextAction
from channels_out.events import Unhandled
from conversations.models import ChannelAccount, Chunk, Message, Role
from conversations.services.contacts import contacts
from conversations.services.core.appending import NewChunk, append_inbound, write_chunks
from conversations.services.core.errors import ConflictError, UnavailableError
from conversations.services.core.ledger import CONTACT, SYSTEM, record
from conversations.services.core.locking import editing, lock
from conversations.services.core.opening import open_conversation
from conversations.services.core.person import Person
from conversations.services.core.sql import release_connection, row
from conversations.services.delivery import disclosure
from conversations.services.inbound import unprocessed
from conversations.services.inbound.messages import InboundText, with_choice
from conversations.services.tenants import channel_accounts
from conversations.services.transitions import closing, takeover
from conversations.services.voice import answers, missed, spoken
from conversations.services.voice.answers import HANG_UP, Decision, Unheard

TRIES = 5
ASKED_AGAIN_AT_MOST = 2
LEAST_CONFIDENCE = 0.4
POLL_SECONDS = (0.1, 0.4)  # the first pause, and the longest
WAITS_AT_MOST = timedelta(seconds=60)
OVER = "call_over"


@cache
def _waiters() -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(settings.VOICE_WAITERS)


def answer(account: ChannelAccount, call: CallRequest, now: datetime) -> Instruction:
    """Return the instruction for the provider's request in a call of the account. Waits up to VOICE_REPLY_SECONDS.

    Do not call it within a transaction. Raises UnavailableError if simultaneous requests of a new call collide.
    """
    conversation_id = _find(account, call)
    if call.event == CallEvent.ENDED:
        return _ended(conversation_id, account, call, now)
    if conversation_id is None:
        conversation_id = _open(account, call, now)
    if call.event == CallEvent.BEGAN:
        return answers.answer(conversation_id, account, call, now, lambda _: Decision(NextAction.LISTEN, turn=1))
    if call.event == CallEvent.TRANSFER_ENDED:
        return _after_transfer(conversation_id, account, call, now)
    if call.event == CallEvent.SILENT:
        return answers.answer(conversation_id, account, call, now, lambda unheard: _after_silence(call, unheard))
    if call.event == CallEvent.HEARD and _is_unclear(call):
        return _ask_again(conversation_id, account, call, now)
    return _reply(conversation_id, account, call, now)


def error_instruction(call: CallRequest | None) -> Instruction:
    """Return the instruction after an error: ask again if the call is under way, else apologise and hang up.

    It needs no database. call: None if the request makes no sense or no account is known
    """
    if call and call.turn and call.event != CallEvent.ENDED and call.again < ASKED_AGAIN_AT_MOST:
        sorry = spoken.phrase(spoken.TROUBLE, "en")
        return Instruction(NextAction.LISTEN, (sorry,), turn=call.turn, again=call.again + 1)
    return Instruction(NextAction.HANG_UP, (spoken.phrase(spoken.SORRY, "en"),))


# --- the conversation of a call ---------------------------------------------------------------------------------------
def _find(account: ChannelAccount, call: CallRequest) -> UUID | None:
    """Return the id of the call's conversation, open or ended, or None."""
    found = row(
        """
        SELECT s.id FROM contact_identities i
        JOIN conversations s ON s.client_id = $1 AND s.contact_id = i.contact_id
          AND s.channel || '' = 'voice' AND s.thread = $3
        WHERE i.client_id = $1 AND i.channel = 'voice' AND i.address = $2
        ORDER BY s.started_at DESC LIMIT 1
        """,
        account.client_id,
        call.caller.address,
        call.call_id,
    )
    return found[0] if found else None


def _open(account: ChannelAccount, call: CallRequest, now: datetime) -> UUID:
    """Open the call's conversation with the assistant's greeting and return its id. Raises UnavailableError."""
    person = Person(address=call.caller.address, kind=call.caller.kind, phone=call.caller.phone)
    said = NewChunk(
        channel=account.channel,
        thread=call.call_id,
        at=now,
        text="",
        channel_account_id=account.pk,
    )
    for _ in range(TRIES):
        with suppress(IntegrityError):  # another request was first
            return _open_once(account, person, said)
        if known := _find(account, call):
            return known
    raise UnavailableError("Too many requests of this call came at once. Try again.")


@transaction.atomic
def _open_once(account: ChannelAccount, person: Person, said: NewChunk) -> UUID:
    contact, device = contacts.find_or_create(account.client, account.channel, person)
    device_id = device.pk if device else None
    opened = open_conversation(account.client_id, contact.pk, said, actor=CONTACT, device_id=device_id)
    with editing(opened.conversation_id, account.client_id) as conversation:
        sentence = disclosure.due(conversation)
        greeting = disclosure.before(answers.assistant_of(conversation).greeting, sentence)
        [chunk] = write_chunks(conversation, [(Role.AI, greeting)], said.at, metadata=disclosure.metadata(sentence))
        disclosure.note(conversation, chunk, sentence)
    return opened.conversation_id


def _ended(conversation_id: UUID | None, account: ChannelAccount, call: CallRequest, now: datetime) -> Instruction:
    """Close the conversation because the caller hung up, and cancel the replies that they have not heard.

    A call without a conversation was never answered: it is missed.
    """
    if conversation_id is None:
        if call.is_ours or not missed.keep(account, call, now):
            _store_unprocessed(account, call, "not_a_turn")
        return Instruction(NextAction.HANG_UP)
    with suppress(ConflictError):  # it had expired
        closing.close(
            conversation_id,
            ended_by="user",
            actor=CONTACT,
            now=now,
            reason=f"hung up {call.cause}".strip()[:200],
            client=account.client,
        )
    with transaction.atomic():
        conversation = lock(conversation_id, account.client_id)
        unheard = answers.unheard_replies(conversation)
        answers.record_messages(conversation, unheard, call, now, status=Message.Status.CANCELLED, code="hung_up")
    return Instruction(NextAction.HANG_UP)


def _after_transfer(conversation_id: UUID, account: ChannelAccount, call: CallRequest, now: datetime) -> Instruction:
    """End the call after a transfer in which they talked; else let the assistant go on. A colleague keeps it."""
    if known := answers.previous_answer(conversation_id, account, call):
        return known
    if call.connected:
        with suppress(ConflictError):
            closing.close(
                conversation_id,
                ended_by="system",
                actor=SYSTEM,
                now=now,
                reason=gettext_noop("the call was transferred"),
            )
        return answers.answer(conversation_id, account, call, now, lambda _: replace(HANG_UP, speaks=False))
    with editing(conversation_id, account.client_id) as conversation:
        record(conversation, "transfer_failed", SYSTEM, cause=call.cause[:200])
        is_nobody_s = conversation.is_open and conversation.taken_over_at and not conversation.taken_over_name
    if is_nobody_s:
        takeover.hand_back(
            conversation_id, actor=SYSTEM, now=now, reason=gettext_noop("nobody answered the transferred call")
        )
    return answers.answer(
        conversation_id, account, call, now, lambda _: Decision(NextAction.LISTEN, spoken.NOT_REACHED, turn=call.turn)
    )


# --- what the caller says ---------------------------------------------------------------------------------------------
def _is_unclear(call: CallRequest) -> bool:
    """Return whether the provider is unsure of the words and the caller can be asked once more."""
    unsure = call.confidence is not None and call.confidence < LEAST_CONFIDENCE
    return unsure and call.again < ASKED_AGAIN_AT_MOST


def _ask_again(conversation_id: UUID, account: ChannelAccount, call: CallRequest, now: datetime) -> Instruction:
    again = Decision(NextAction.LISTEN, spoken.NOT_UNDERSTOOD, speaks=False, turn=call.turn, again=call.again + 1)
    if answers.previous_answer(conversation_id, account, call) is None:
        _store_unprocessed(account, call, "not_a_turn")
    return answers.answer(conversation_id, account, call, now, lambda _: again)


def _after_silence(call: CallRequest, unheard: Unheard) -> Decision:
    """Say a reply that has come meanwhile, else ask again, and hang up after ASKED_AGAIN_AT_MOST times."""
    if unheard.exists():
        return Decision(NextAction.LISTEN, turn=call.turn + 1)
    if call.again < ASKED_AGAIN_AT_MOST:
        return Decision(NextAction.LISTEN, spoken.NOT_HEARD, turn=call.turn, again=call.again + 1)
    return Decision(NextAction.HANG_UP, spoken.GOODBYE)


def _reply(conversation_id: UUID, account: ChannelAccount, call: CallRequest, now: datetime) -> Instruction:
    """Append what the caller said, and say the reply to it or wait for it."""
    if known := answers.previous_answer(conversation_id, account, call):
        return known
    chunk = _append_words(conversation_id, account, call, now) if call.event == CallEvent.HEARD else None
    chunk = (
        chunk or Chunk.objects.filter(client=account.client_id, dedupe_key=_turn(account, call, now).dedupe_key).first()
    )
    if chunk is None:  # the conversation had ended, or does not know the words to which the caller awaits a reply
        if call.event == CallEvent.HEARD:
            _store_unprocessed(account, call, OVER)
        return answers.answer(conversation_id, account, call, now, lambda unheard: _after_silence(call, unheard))
    waited = _wait(account.client_id, conversation_id, chunk.position)

    def decide(unheard: Unheard) -> Decision:  # not by `now`, which is when the wait began
        if unheard.filter(position__gt=chunk.position).exists():
            return Decision(NextAction.LISTEN, turn=call.turn + 1)
        if timezone.now() - chunk.created_at > WAITS_AT_MOST:
            return Decision(NextAction.LISTEN, spoken.NO_ANSWER, turn=call.turn + 1)
        phrase = spoken.MOMENT if waited and not unheard.exists() else ""
        return Decision(NextAction.WAIT, phrase, turn=call.turn, again=call.again, waited=call.waited + 1)

    return answers.answer(conversation_id, account, call, now, decide)


def _turn(account: ChannelAccount, call: CallRequest, now: datetime) -> InboundText:
    """Return what was said in this turn as an inbound message, whose dedupe key finds a repeated request."""
    return InboundText(
        channel=account.channel,
        person=Person(address=call.caller.address),
        text=call.words,
        message_id=f"{call.call_id}.{call.turn}",
        at=now,
        scope=account.key,
        thread=call.call_id,
        metadata={} if call.confidence is None else {"confidence": call.confidence},
    )


def _append_words(conversation_id: UUID, account: ChannelAccount, call: CallRequest, now: datetime) -> Chunk | None:
    """Append the words once and return their chunk; None if the conversation ended. A call never opens a second one."""
    turn = _turn(account, call, now)
    with editing(conversation_id, account.client_id) as conversation:
        if known := Chunk.objects.filter(client=account.client_id, dedupe_key=turn.dedupe_key).first():
            return known
        if not conversation.is_open:
            return None
        appended = append_inbound(conversation, with_choice(conversation, turn).as_chunk())
    return Chunk.objects.get(client=account.client_id, pk=appended.chunk_id)


def _wait(client_id: UUID, conversation_id: UUID, position: int) -> bool:
    """Wait for a reply after this position, the conversation's end, or VOICE_REPLY_SECONDS. Returns whether it waited.

    Only VOICE_WAITERS threads of a process may wait, so that others are left for other webhooks.
    """
    if _said_after(client_id, conversation_id, position):
        return True
    if not _waiters().acquire(blocking=False):
        return False
    try:
        until = time.monotonic() + settings.VOICE_REPLY_SECONDS
        pause, longest = POLL_SECONDS
        while (left := until - time.monotonic()) > 0:
            release_connection()
            time.sleep(min(pause, left))
            if _said_after(client_id, conversation_id, position):
                break
            pause = min(pause * 1.3, longest)
    finally:
        _waiters().release()
    return True


def _said_after(client_id: UUID, conversation_id: UUID, position: int) -> bool:
    """Return whether there is a reply, or none will come because the conversation ended or the call is transferred."""
    found = row(
        """
        SELECT s.status NOT IN ('active', 'stale') OR s.transfer_to <> '' OR EXISTS (
            SELECT FROM conversation_chunks c
            WHERE c.client_id = $3 AND c.conversation_id = s.id AND c.position > $2 AND c.role = 'ai')
        FROM conversations s WHERE s.client_id = $3 AND s.id = $1
        """,
        conversation_id,
        position,
        client_id,
    )
    return found is None or bool(found[0])


def _store_unprocessed(account: ChannelAccount, call: CallRequest, reason: str) -> None:
    event = Unhandled(account.address, call.event, reason, call.raw, call.call_id)
    unprocessed.store_unhandled(channel_accounts.adapter_of(account), account, event, reason)
