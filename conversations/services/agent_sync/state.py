"""Reading a conversation as the sync protocol shows it: its row, the agent's state, the orders and the messages."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q

from channels_out.kinds import Channel
from channels_out.phones import e164, from_whatsapp, is_business_scoped
from conversations.models import (
    OPEN,
    SAID,
    AgentState,
    Chunk,
    Client,
    Contact,
    ContactIdentity,
    Conversation,
    OrderLink,
    Role,
    corrected_text,
)
from conversations.models.conversation import ConversationQuerySet
from conversations.services.contacts import contacts
from conversations.services.core.errors import NotFoundError

MESSAGES_SHOWN = 20
NO_SESSION = "There is no such conversation."


@dataclass(frozen=True, slots=True)
class SessionState:
    """The parts of the protocol's state object.

    messages    (role, content, time), the oldest first
    orders      the order ids in the order in which they were linked
    """

    conversation: Conversation
    state: AgentState
    messages: list[tuple[str, str, datetime]]
    last_user_message: str | None
    orders: list[str]

    @property
    def user_id(self) -> str:
        """Return the person's phone, or else the user id."""
        contact: Contact = self.conversation.contact
        return contact.phone or contact.user_id

    @property
    def bot_id(self) -> str | None:
        """Return the agent's own name for the bot, or else the assistant's key; None without either."""
        assistant = self.conversation.assistant
        return self.state.bot_id or (assistant.key if assistant else None)

    @property
    def expires_at(self) -> datetime:
        """Return when the conversation expires unless a message comes before."""
        return expires_at(self.conversation)

    @property
    def updated_at(self) -> datetime:
        """Return when the state or the conversation changed last."""
        return max(self.state.updated_at, self.conversation.last_message_at)


def expires_at(conversation: Conversation) -> datetime:
    """Return when the conversation expires: so long after its last message, or at its extension, if that is later."""
    usual = conversation.last_message_at + conversation.client.expire_after
    return max(usual, conversation.extended_until or usual)


def phone_of(raw: str) -> str | None:
    """Return the phone as `+51999999999`, or None if it is none.

    Digits without a plus are accepted as in WhatsApp's ids, which begin with the country code.
    """
    digits = raw.strip().removeprefix("+")
    return e164(raw) or (from_whatsapp(digits) if digits.isascii() and digits.isdigit() else None)


def person_of(raw: str) -> str | None:
    """Return the phone as `+51999999999`, or WhatsApp's business-scoped user id as it is; None if it is neither."""
    written = raw.strip()
    return written if is_business_scoped(written) else phone_of(raw)


def session_state(client: Client, conversation_id: UUID, local_id: str = "") -> SessionState:
    """Return the state of the client's conversation. Raises NotFoundError, also for another branch's (`local_id`)."""
    found = _sessions(client).filter(pk=conversation_id).first()
    if found is None or not is_of_branch(found, local_id):
        raise NotFoundError(NO_SESSION)
    return state_with_messages(found)


def open_session_of(client: Client, phone: str, *, local_id: str = "", bot_id: str = "") -> SessionState:
    """Return the state of the newest open conversation of the person with the phone. Raises NotFoundError.

    Private conversations are found by their id alone.
    """
    found = _of_bot(_of_phone(client, phone).open(), bot_id)
    if local_id:
        found = found.filter(Q(agent_state__local_id=local_id) | Q(agent_state__local_id="") | Q(agent_state=None))
    newest = found.order_by("-last_message_at").first()
    if newest is None:
        raise NotFoundError("This phone has no open conversation.")
    return state_with_messages(newest)


def newest_session_of(client: Client, phone: str) -> SessionState:
    """Return the state of the newest conversation of the person with the phone, an open one before ended ones.

    Raises NotFoundError.
    """
    found = _of_phone(client, phone)
    newest = found.open().order_by("-last_message_at").first() or found.order_by("-started_at").first()
    if newest is None:
        raise NotFoundError("This phone has no conversation.")
    return state_with_messages(newest)


def open_sessions(
    client: Client, *, local_id: str = "", bot_id: str = "", intent: str = "", limit: int, offset: int
) -> tuple[list[SessionState], int]:
    """Return a page of the client's open conversations, the newest first, and how many there are in all."""
    found = _of_bot(_sessions(client).open().not_private(), bot_id)
    if local_id:
        found = found.filter(agent_state__local_id=local_id)
    if intent:
        has_intent = Q(agent_state__intent=intent)
        found = found.filter(has_intent | Q(agent_state=None) if intent == "idle" else has_intent)
    page = found.order_by("-started_at", "-pk")[offset : offset + limit]
    return [state_with_messages(each) for each in page], found.count()


def state_with_messages(conversation: Conversation) -> SessionState:
    """Return the conversation's state with its newest messages and its orders, without what a reset has hidden."""
    shown = Chunk.objects.filter(conversation=conversation, role__in=SAID, position__gt=conversation.history_from or 0)
    newest = shown.annotate(words=corrected_text(conversation.client_id)).order_by("-position")
    messages = list(newest.values_list("role", "words", "created_at")[:MESSAGES_SHOWN])
    last = next((words for role, words, _ in messages if role != Role.AI), None)
    if last is None and len(messages) == MESSAGES_SHOWN:
        last = newest.exclude(role=Role.AI).values_list("words", flat=True).first()
    return SessionState(
        conversation=conversation,
        state=agent_state_of(conversation),
        messages=messages[::-1],
        last_user_message=last,
        orders=list(OrderLink.objects.filter(conversation=conversation).values_list("order_id", flat=True)),
    )


def agent_state_of(conversation: Conversation) -> AgentState:
    """Return the conversation's agent state, or a new one with the defaults, which is not stored."""
    kept: AgentState | None = getattr(conversation, "agent_state", None)
    return kept or AgentState(conversation=conversation, updated_at=conversation.started_at)


def is_of_branch(conversation: Conversation, local_id: str) -> bool:
    """Return whether the conversation is the branch's; True also if either branch is unknown."""
    branch = agent_state_of(conversation).local_id
    return not local_id or not branch or local_id == branch


def as_json(shown: SessionState) -> dict[str, Any]:
    """Return the protocol's state object."""
    conversation, state = shown.conversation, shown.state
    current_order = state.current_order_id or None
    messages = [
        {"role": "bot" if role == Role.AI else "user", "content": words, "timestamp": at.isoformat()}
        for role, words, at in shown.messages
    ]
    derived = {"previousMessages": messages, "orderHistory": shown.orders}
    derived |= {"lastUserMessage": shown.last_user_message} if shown.last_user_message is not None else {}
    derived |= {"currentOrderId": current_order} if current_order else {}
    return {
        "sessionId": str(conversation.pk),
        "userId": shown.user_id,
        "botId": shown.bot_id,
        "subDomain": conversation.client.sub_domain,
        "localId": state.local_id or None,
        "currentIntent": state.intent,
        "currentStep": state.step,
        "previousIntent": state.previous_intent or None,
        "previousStep": state.previous_step or None,
        "context": {**state.context, **derived},
        "metadata": conversation.metadata,
        "isActive": conversation.status in OPEN,
        "lastActivity": conversation.last_message_at.isoformat(),
        "createdAt": conversation.started_at.isoformat(),
        "updatedAt": shown.updated_at.isoformat(),
        "expiresAt": shown.expires_at.isoformat(),
        "currentOrderId": current_order,
        "orderHistory": shown.orders,
        "version": state.version,
    }


def _sessions(client: Client) -> ConversationQuerySet:
    return Conversation.objects.of(client).select_related("client", "contact", "assistant", "agent_state")


def _of_phone(client: Client, phone: str) -> ConversationQuerySet:
    theirs = Q(contact__phone=phone) | Q(contact__in=contacts.ids_by_user_id(phone, client))
    if is_business_scoped(phone):
        known = ContactIdentity.objects.filter(client=client, channel=Channel.WHATSAPP, address=phone)
        theirs |= Q(contact__in=known.values("contact"))
    return _sessions(client).not_private().filter(theirs, client=client)


def _of_bot(found: ConversationQuerySet, bot_id: str) -> ConversationQuerySet:
    if not bot_id:
        return found
    return found.filter(Q(agent_state__bot_id=bot_id) | Q(assistant__key=bot_id))
