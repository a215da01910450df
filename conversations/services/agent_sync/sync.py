"""What agents elsewhere do with a session by the sync protocol: on the same rows as everybody, one lock at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction

from channels_out.kinds import AddressKind, Channel
from channels_out.phones import phone_address
from conversations.models import AgentState, Assistant, Chunk, Client, Contact, Conversation, OrderLink, Role, Status
from conversations.models.agent_state import FIRST_STEP, Intent
from conversations.services.agent_sync.context import (
    LARGEST,
    LARGEST_METADATA,
    MOST_ORDERS,
    bounded,
    cleaned,
    merged,
    orders_in,
)
from conversations.services.agent_sync.state import NO_SESSION, SessionState, expiry, same_branch, show, state_of
from conversations.services.contacts import contacts
from conversations.services.core import redaction
from conversations.services.core.appending import NewChunk, note_answered, note_inbound, write_chunks
from conversations.services.core.dedupe import dedupe_key
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError, UnavailableError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import lock, lock_open, saving
from conversations.services.core.opening import open_conversation
from conversations.services.core.person import Person
from conversations.services.replies import summaries
from conversations.services.transitions import closing

TRIES = 20


@dataclass(frozen=True, slots=True)
class Caller:
    """An agent that speaks for a client: `local_id` is the branch it names, `version` the state it has seen."""

    client: Client
    actor: Actor
    now: datetime
    local_id: str = ""
    version: int | None = None


def start(
    caller: Caller, phone: str, *, bot_id: str = "", metadata: dict[str, Any] | None = None
) -> tuple[SessionState, bool]:
    """The person with the phone has an open session: the one that was open, or a new one. Returns it and whether it is
    new.

    It is on the channel that `metadata.platform` names, else on WhatsApp. Raises UnavailableError in a crowd.
    """
    metadata = redaction.rules_of(caller.client).clean_json(_without_nulls(metadata))
    channel = _channel(metadata)
    for _ in range(TRIES):
        try:
            with transaction.atomic():
                conversation, new = _open(caller, phone, channel, bot_id)
                with saving(conversation):
                    _describe(caller, conversation, bot_id, metadata)
                return show(conversation), new
        except IntegrityError:
            continue  # somebody else opens the same, or a purge took the guest: look again
    raise UnavailableError("Too much happens in this session at once; send it again.")


def _open(caller: Caller, phone: str, channel: str, bot_id: str) -> tuple[Conversation, bool]:
    contact, device_id = _contact(caller.client, channel, phone)
    found = Conversation.objects.open().filter(contact=contact, channel=channel, thread="").first()
    if found:
        return lock_open(found.pk, caller.client), False
    assistant = _assistant(caller.client, bot_id)
    nothing = NewChunk(channel=channel, thread="", at=caller.now, text="")
    opened = open_conversation(
        caller.client.pk,
        contact.pk,
        nothing,
        actor=caller.actor,
        device_id=device_id,
        assistant_id=assistant.pk if assistant else None,
    )
    return lock_open(opened.conversation_id, caller.client), True


def _contact(client: Client, channel: str, phone: str) -> tuple[Contact, int | None]:
    """Whoever has the phone, as their messages over the channel would find them."""
    address = phone_address(channel, phone)
    if address:
        person = Person(address=address, kind=AddressKind.PHONE, phone=phone)
    else:
        known = Contact.objects.filter(client=client, phone=phone).order_by("created_at").first()
        person = Person(user_id=known.user_id if known else phone, phone=phone)
    contact, device = contacts.find_or_create(client, channel, person)
    return contact, device.pk if device else None


def _channel(metadata: dict[str, Any]) -> str:
    platform = str(metadata.get("platform", "")).strip().lower()
    return platform if platform in set(Channel) else Channel.WHATSAPP.value


def _assistant(client: Client, bot_id: str) -> Assistant | None:
    return Assistant.objects.filter(client=client, key=bot_id).first() if bot_id else None


def _describe(caller: Caller, conversation: Conversation, bot_id: str, metadata: dict[str, Any]) -> None:
    """Keep what the beginning says: the branch, the bot, the metadata."""
    state = state_of(conversation)
    assistant = _assistant(caller.client, bot_id)
    before = (state.local_id, state.bot_id, conversation.assistant_id, conversation.metadata)
    state.local_id = caller.local_id or state.local_id
    if bot_id:
        state.bot_id = "" if assistant else bot_id
        conversation.assistant = assistant or conversation.assistant
    conversation.metadata = bounded("metadata", merged(conversation.metadata, metadata), LARGEST_METADATA)
    after = (state.local_id, state.bot_id, conversation.assistant_id, conversation.metadata)
    if state._state.adding or before != after:
        _save(state, caller.now)


# --- the state --------------------------------------------------------------------------------------------------------
def set_intent(caller: Caller, conversation_id: UUID, intent: str, step: str = "") -> SessionState:
    """The session has this intent and step; the pair before is kept. Raises NotFoundError or ConflictError."""
    with _changing(caller, conversation_id) as (conversation, state):
        _set_intent(caller, conversation, state, intent, step)
    return show(conversation)


def set_context(caller: Caller, conversation_id: UUID, context: dict[str, Any], *, merge: bool = True) -> SessionState:
    """The context is laid over the session's, or takes its place. Raises NotFoundError, InvalidError, ConflictError."""
    with _changing(caller, conversation_id) as (conversation, state):
        _set_context(conversation, state, context, merge=merge)
    return show(conversation)


def sync(
    caller: Caller,
    conversation_id: UUID,
    *,
    intent: str = "",
    step: str = "",
    context: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    is_active: bool = True,
) -> SessionState:
    """All that is given is taken over at once; `is_active` False ends the session.

    Raises NotFoundError, InvalidError, ConflictError.
    """
    with transaction.atomic():
        with _changing(caller, conversation_id) as (conversation, state):
            if intent or step:
                _set_intent(caller, conversation, state, intent or state.intent, step)
            if context:
                _set_context(conversation, state, context, merge=True)
            if metadata := _without_nulls(metadata):
                both = merged(conversation.metadata, redaction.rules_of(caller.client).clean_json(metadata))
                conversation.metadata = bounded("metadata", both, LARGEST_METADATA)
        return show(conversation) if is_active else end(caller, conversation_id)


def reset(caller: Caller, conversation_id: UUID, *, keep_history: bool = False) -> SessionState:
    """The state is as at the beginning. Unless it is kept, what was said before is hidden from state and prompt: no
    chunk is deleted, and global memory will have all of it. Orders stay. Raises NotFoundError or ConflictError."""
    with _changing(caller, conversation_id) as (conversation, state):
        state.intent, state.step, state.previous_intent, state.previous_step = Intent.IDLE, FIRST_STEP, "", ""
        state.context, state.current_order_id = {}, ""
        if not keep_history:
            conversation.history_from = conversation.last_position
            conversation.summary = ""
            summaries.note_edited(conversation)
        cause = "history kept" if keep_history else "history hidden"
        record(conversation, "reset", caller.actor, cause=cause, position=conversation.last_position)
    return show(conversation)


def link_order(caller: Caller, conversation_id: UUID, order_id: str) -> SessionState:
    """The order is the session's current one, and in its history, once. Raises NotFoundError or ConflictError."""
    with _changing(caller, conversation_id) as (conversation, state):
        if state.current_order_id != order_id:
            _link(conversation, [order_id])
            state.current_order_id = order_id
            record(conversation, "order_linked", caller.actor, order_id=order_id)
    return show(conversation)


def extend(caller: Caller, conversation_id: UUID, hours: int) -> SessionState:
    """The session does not expire before so many hours from now are over. Raises NotFoundError or ConflictError."""
    with transaction.atomic(), saving(conversation := _lock_open(caller, conversation_id)):
        until = caller.now + timedelta(hours=hours)
        if until > expiry(conversation):
            conversation.extended_until = until
            record(conversation, "extended", caller.actor, until=until.isoformat())
    return show(conversation)


def end(caller: Caller, conversation_id: UUID) -> SessionState:
    """The session is over, if it was not already. Raises NotFoundError."""
    with transaction.atomic():
        conversation = _locked(caller, conversation_id)
        if conversation.is_open:
            ended = closing.close(
                conversation.pk,
                ended_by="system",
                reason="ended by the agent",
                actor=caller.actor,
                now=caller.now,
                client=caller.client,
            )
            conversation = _locked(caller, ended.pk)
    return show(conversation)


# --- messages ---------------------------------------------------------------------------------------------------------
def add_message(caller: Caller, conversation_id: UUID, role: str, content: str, message_id: str = "") -> SessionState:
    """What the person (`user`) or the agent (`bot`) said is in the transcript; a message id seen before in the session
    changes nothing. It is only recorded: the agent answers by itself, unless the client has Convo answer.

    Raises NotFoundError or ConflictError (`ended`).
    """
    with transaction.atomic():
        conversation = _locked(caller, conversation_id)
        key = dedupe_key(f"{conversation.pk}\0sync", message_id)
        if key and Chunk.objects.filter(dedupe_key=key).exists():
            return show(conversation)
        conversation = _lock_open(caller, conversation_id)
        with saving(conversation):
            if role == "user":
                note_inbound(conversation, caller.now, answer=caller.client.answers_synced)
            else:
                _note_said(caller, conversation)
            spoken = Role.VOICE if conversation.channel == Channel.VOICE else Role.USER
            said = (spoken if role == "user" else Role.AI, content)
            write_chunks(conversation, [said], caller.now, message_id=message_id, dedupe_key=key)
    return show(conversation)


def _note_said(caller: Caller, conversation: Conversation) -> None:
    """The agent spoke: that is activity, and settles a reply that was owed."""
    note_answered(conversation)
    if conversation.status == Status.STALE:
        conversation.status = Status.ACTIVE
        record(
            conversation,
            "revived",
            caller.actor,
            cause="message",
            from_status=Status.STALE,
            to_status=Status.ACTIVE,
        )


# --- shared -----------------------------------------------------------------------------------------------------------
@contextmanager
def _changing(caller: Caller, conversation_id: UUID) -> Iterator[tuple[Conversation, AgentState]]:
    """The open session, locked, and its state, which is saved at the end if it changed."""
    with transaction.atomic():
        conversation = _lock_open(caller, conversation_id)
        state = state_of(conversation)
        if caller.version is not None and caller.version != state.version:
            raise ConflictError(
                f"The state is of version {state.version} by now: read it again.",
                code="version_conflict",
                details={"version": state.version},
            )
        before = _content(conversation, state)
        with saving(conversation):
            yield conversation, state
        if _content(conversation, state) != before:
            _save(state, caller.now)


def _content(conversation: Conversation, state: AgentState) -> tuple[Any, ...]:
    pairs = (state.intent, state.step, state.previous_intent, state.previous_step)
    return (*pairs, state.context, state.current_order_id, conversation.metadata, conversation.history_from)


def _save(state: AgentState, now: datetime) -> None:
    state.version += 1
    state.updated_at = now
    state.save()


def _locked(caller: Caller, conversation_id: UUID) -> Conversation:
    return _of_branch(caller, lock(conversation_id, caller.client))


def _lock_open(caller: Caller, conversation_id: UUID) -> Conversation:
    return _of_branch(caller, lock_open(conversation_id, caller.client))


def _of_branch(caller: Caller, conversation: Conversation) -> Conversation:
    if not same_branch(conversation, caller.local_id):
        raise NotFoundError(NO_SESSION)
    return conversation


def _set_intent(caller: Caller, conversation: Conversation, state: AgentState, intent: str, step: str) -> None:
    step = step or state.step
    if (intent, step) == (state.intent, state.step):
        return
    if intent != state.intent:
        record(conversation, "intent_changed", caller.actor, cause=f"{state.intent} to {intent}")
    state.previous_intent, state.previous_step = state.intent, state.step
    state.intent, state.step = intent, step


def _set_context(conversation: Conversation, state: AgentState, context: dict[str, Any], *, merge: bool) -> None:
    new = redaction.rules_of(conversation.client).clean_json(cleaned(context))
    state.context = bounded("context", merged(state.context, new) if merge else new, LARGEST)
    history, current = orders_in(context)
    _link(conversation, [*history, *current])
    state.current_order_id = current[0] if current else state.current_order_id


def _link(conversation: Conversation, order_ids: Sequence[str]) -> None:
    """The orders are in the session's history, once each. Raises InvalidError where they are too many."""
    if not order_ids:
        return
    known = set(OrderLink.objects.filter(conversation=conversation).values_list("order_id", flat=True))
    new = [order_id for order_id in dict.fromkeys(order_ids) if order_id not in known]
    if len(known) + len(new) > MOST_ORDERS:
        raise InvalidError(f"A session has at most {MOST_ORDERS:,} orders.", code="too_many_orders")
    OrderLink.objects.bulk_create(OrderLink(conversation=conversation, order_id=order_id) for order_id in new)


def _without_nulls(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """null says: absent."""
    return {name: value for name, value in (metadata or {}).items() if value is not None}
