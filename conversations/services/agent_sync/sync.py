"""The sync protocol's changes: agents that run elsewhere change the same rows as Convo, under the same locks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils.translation import gettext_noop

from channels_out.kinds import AddressKind, Channel
from channels_out.phones import is_business_scoped, phone_address
from conversations.models import AgentState, Assistant, Chunk, Client, Contact, Conversation, OrderLink, Role, Status
from conversations.models.agent_state import FIRST_STEP, Intent
from conversations.services.agent_sync.context import (
    LARGEST_CONTEXT,
    LARGEST_METADATA,
    MOST_ORDERS,
    check_size,
    clean_context,
    merge_context,
    merge_objects,
    orders_in,
)
from conversations.services.agent_sync.state import (
    NO_SESSION,
    SessionState,
    agent_state_of,
    expires_at,
    is_of_branch,
    state_with_messages,
)
from conversations.services.contacts import contacts
from conversations.services.core import redaction, tool_requests
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
    """An agent that calls for a client.

    local_id    the client's branch that the agent names; '' for none
    version     the version of the state that the agent has seen; None if it does not say
    """

    client: Client
    actor: Actor
    now: datetime
    local_id: str = ""
    version: int | None = None


def start(
    caller: Caller, phone: str, *, bot_id: str = "", metadata: dict[str, Any] | None = None
) -> tuple[SessionState, bool]:
    """Return the open conversation of the person with the phone, opened if needed, and whether it is new.

    It is on the channel that `metadata.platform` names, or else on WhatsApp. Raises InvalidError, or UnavailableError
    if other processes change the person's data all the time.
    """
    metadata = redaction.rules_of(caller.client).clean_json(_without_nulls(metadata))
    channel = _channel(metadata)
    for _ in range(TRIES):
        try:
            with transaction.atomic():
                conversation, new = _open(caller, phone, channel, bot_id)
                with saving(conversation):
                    _keep_description(caller, conversation, bot_id, metadata)
                return state_with_messages(conversation), new
        except IntegrityError:
            continue  # another process opened the same, or a purge deleted the guest: look again
    raise UnavailableError("This conversation changes too often at the moment. Send the request again.")


def _open(caller: Caller, phone: str, channel: str, bot_id: str) -> tuple[Conversation, bool]:
    contact, device_id = _contact(caller.client, channel, phone)
    found = Conversation.objects.open().filter(contact=contact, channel=channel, thread="").first()
    if found:
        return lock_open(found.pk, caller.client), False
    assistant = _assistant(caller.client, bot_id)
    first = NewChunk(channel=channel, thread="", at=caller.now, text="")
    opened = open_conversation(
        caller.client.pk,
        contact.pk,
        first,
        actor=caller.actor,
        device_id=device_id,
        assistant_id=assistant.pk if assistant else None,
    )
    return lock_open(opened.conversation_id, caller.client), True


def _contact(client: Client, channel: str, phone: str) -> tuple[Contact, int | None]:
    """Return the contact that a message from the phone over the channel would find, and the device's id."""
    address = phone_address(channel, phone)
    if is_business_scoped(phone):
        person = Person(address=phone, kind=AddressKind.BSUID)
    elif address:
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


def _keep_description(caller: Caller, conversation: Conversation, bot_id: str, metadata: dict[str, Any]) -> None:
    """Store the branch, the bot and the metadata that `start` gives."""
    state = agent_state_of(conversation)
    assistant = _assistant(caller.client, bot_id)
    before = (state.local_id, state.bot_id, conversation.assistant_id, conversation.metadata)
    state.local_id = caller.local_id or state.local_id
    if bot_id:
        state.bot_id = "" if assistant else bot_id
        conversation.assistant = assistant or conversation.assistant
    conversation.metadata = check_size("metadata", merge_objects(conversation.metadata, metadata), LARGEST_METADATA)
    after = (state.local_id, state.bot_id, conversation.assistant_id, conversation.metadata)
    if state._state.adding or before != after:
        _save_state(state, caller.now)


# --- the state --------------------------------------------------------------------------------------------------------
def set_intent(caller: Caller, conversation_id: UUID, intent: str, step: str = "") -> SessionState:
    """Set the intent and step, keep the former ones as previous, and return the state.

    Raises NotFoundError or ConflictError.
    """
    with _editing_state(caller, conversation_id) as (conversation, state):
        _set_intent(caller, conversation, state, intent, step)
    return state_with_messages(conversation)


def set_context(caller: Caller, conversation_id: UUID, context: dict[str, Any], *, merge: bool = True) -> SessionState:
    """Merge the context into the state's, or replace it, and return the state.

    Raises NotFoundError, InvalidError or ConflictError.
    """
    with _editing_state(caller, conversation_id) as (conversation, state):
        _set_context(conversation, state, context, merge=merge)
    return state_with_messages(conversation)


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
    """Set all that is given in one transaction and return the state; `is_active` False ends the conversation.

    Raises NotFoundError, InvalidError or ConflictError.
    """
    with transaction.atomic():
        with _editing_state(caller, conversation_id) as (conversation, state):
            if intent or step:
                _set_intent(caller, conversation, state, intent or state.intent, step)
            if context:
                _set_context(conversation, state, context, merge=True)
            if metadata := _without_nulls(metadata):
                both = merge_objects(conversation.metadata, redaction.rules_of(caller.client).clean_json(metadata))
                conversation.metadata = check_size("metadata", both, LARGEST_METADATA)
        return state_with_messages(conversation) if is_active else end(caller, conversation_id)


def reset(caller: Caller, conversation_id: UUID, *, keep_history: bool = False) -> SessionState:
    """Reset the state to its defaults and return it. Orders stay.

    keep_history: False hides the messages so far from state and prompt; no chunk is deleted, and memory gets all

    Raises NotFoundError or ConflictError.
    """
    with _editing_state(caller, conversation_id) as (conversation, state):
        state.intent, state.step, state.previous_intent, state.previous_step = Intent.IDLE, FIRST_STEP, "", ""
        state.context, state.current_order_id = {}, ""
        if not keep_history:
            conversation.history_from = conversation.last_position
            conversation.summary = ""
            summaries.note_summary_edited(conversation)
        cause = gettext_noop("history kept") if keep_history else gettext_noop("history hidden")
        record(conversation, "reset", caller.actor, cause=cause, position=conversation.last_position)
    return state_with_messages(conversation)


def link_order(caller: Caller, conversation_id: UUID, order_id: str) -> SessionState:
    """Make the order the current one, add it to the history once, and return the state.

    Raises NotFoundError or ConflictError.
    """
    with _editing_state(caller, conversation_id) as (conversation, state):
        if state.current_order_id != order_id:
            _link(conversation, [order_id])
            state.current_order_id = order_id
            record(conversation, "order_linked", caller.actor, order_id=order_id)
    return state_with_messages(conversation)


def extend(caller: Caller, conversation_id: UUID, hours: int) -> SessionState:
    """Let the conversation expire no earlier than so many hours from now, and return its state.

    Raises NotFoundError or ConflictError.
    """
    with transaction.atomic(), saving(conversation := _lock_open(caller, conversation_id)):
        until = caller.now + timedelta(hours=hours)
        if until > expires_at(conversation):
            conversation.extended_until = until
            record(conversation, "extended", caller.actor, until=until.isoformat())
    return state_with_messages(conversation)


def end(caller: Caller, conversation_id: UUID) -> SessionState:
    """Close the conversation, if it is open, and return its state. Raises NotFoundError."""
    with transaction.atomic():
        conversation = _locked(caller, conversation_id)
        if conversation.is_open:
            ended = closing.close(
                conversation.pk,
                ended_by="system",
                reason=gettext_noop("ended by the agent"),
                actor=caller.actor,
                now=caller.now,
                client=caller.client,
            )
            conversation = _locked(caller, ended.pk)
    return state_with_messages(conversation)


# --- messages ---------------------------------------------------------------------------------------------------------
def add_message(caller: Caller, conversation_id: UUID, role: str, content: str, message_id: str = "") -> SessionState:
    """Append a message of the person (`user`) or the agent (`bot`) and return the state.

    A message id that the conversation has already changes nothing. The message is only recorded: the agent answers
    itself, unless the client has Convo answer (`answers_synced`).

    Raises NotFoundError or ConflictError (`ended`).
    """
    with transaction.atomic():
        conversation = _locked(caller, conversation_id)
        key = dedupe_key(f"{conversation.pk}\0sync", message_id)
        if key and Chunk.objects.filter(client=caller.client, dedupe_key=key).exists():
            return state_with_messages(conversation)
        conversation = _lock_open(caller, conversation_id)
        with saving(conversation):
            if role == "user":
                note_inbound(conversation, caller.now, answer=caller.client.answers_synced)
            else:
                _note_agent_spoke(caller, conversation)
            spoken = Role.VOICE if conversation.channel == Channel.VOICE else Role.USER
            message = (spoken if role == "user" else Role.AI, content)
            write_chunks(conversation, [message], caller.now, message_id=message_id, dedupe_key=key)
    return state_with_messages(conversation)


def _note_agent_spoke(caller: Caller, conversation: Conversation) -> None:
    """Note that the agent answered: no reply is owed, and a stale conversation becomes active."""
    note_answered(conversation)
    tool_requests.expire_approved(conversation, caller.now)
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
def _editing_state(caller: Caller, conversation_id: UUID) -> Iterator[tuple[Conversation, AgentState]]:
    """Lock the open conversation, yield it and its agent state, and save what changed.

    Raises NotFoundError, or ConflictError (`ended`, `version_conflict`).
    """
    with transaction.atomic():
        conversation = _lock_open(caller, conversation_id)
        state = agent_state_of(conversation)
        if caller.version is not None and caller.version != state.version:
            raise ConflictError(
                f"The state has version {state.version} now. Read it again.",
                code="version_conflict",
                details={"version": state.version},
            )
        before = _content(conversation, state)
        with saving(conversation):
            yield conversation, state
        if _content(conversation, state) != before:
            _save_state(state, caller.now)


def _content(conversation: Conversation, state: AgentState) -> tuple[Any, ...]:
    pairs = (state.intent, state.step, state.previous_intent, state.previous_step)
    return (*pairs, state.context, state.current_order_id, conversation.metadata, conversation.history_from)


def _save_state(state: AgentState, now: datetime) -> None:
    state.version += 1
    state.updated_at = now
    state.save()


def _locked(caller: Caller, conversation_id: UUID) -> Conversation:
    return _of_branch(caller, lock(conversation_id, caller.client))


def _lock_open(caller: Caller, conversation_id: UUID) -> Conversation:
    return _of_branch(caller, lock_open(conversation_id, caller.client))


def _of_branch(caller: Caller, conversation: Conversation) -> Conversation:
    if not is_of_branch(conversation, caller.local_id):
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
    new = redaction.rules_of(conversation.client).clean_json(clean_context(context))
    state.context = check_size("context", merge_context(state.context, new) if merge else new, LARGEST_CONTEXT)
    history, current = orders_in(context)
    _link(conversation, [*history, *current])
    state.current_order_id = current[0] if current else state.current_order_id


def _link(conversation: Conversation, order_ids: Sequence[str]) -> None:
    """Add the orders to the conversation's history, once each. Raises InvalidError if there are too many."""
    if not order_ids:
        return
    known = set(OrderLink.objects.filter(conversation=conversation).values_list("order_id", flat=True))
    new = [order_id for order_id in dict.fromkeys(order_ids) if order_id not in known]
    if len(known) + len(new) > MOST_ORDERS:
        raise InvalidError(f"A conversation has at most {MOST_ORDERS:,} orders.", code="too_many_orders")
    OrderLink.objects.bulk_create(OrderLink(conversation=conversation, order_id=order_id) for order_id in new)


def _without_nulls(metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Return the metadata without null values, which mean absent."""
    return {name: value for name, value in (metadata or {}).items() if value is not None}
