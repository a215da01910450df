"""Reading a session as the sync protocol shows it: its row, the agent's state, the orders and what was said."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db.models import Q

from channels_out.phones import e164, from_whatsapp
from conversations.models import OPEN, SAID, AgentState, Chunk, Client, Conversation, OrderLink, Role, corrected_text
from conversations.models.conversation import ConversationQuerySet
from conversations.services.contacts import contacts
from conversations.services.core.errors import NotFoundError

MESSAGES_SHOWN = 20
NO_SESSION = "There is no such conversation."


@dataclass(frozen=True, slots=True)
class SessionState:
    """What the protocol's state object is made of. `messages` are (role, content, time), the oldest first; `orders`
    are in the order in which they were linked."""

    conversation: Conversation
    state: AgentState
    messages: list[tuple[str, str, datetime]]
    last_user_message: str | None
    orders: list[str]

    @property
    def user_id(self) -> str:
        """The phone, where we know it."""
        return self.conversation.contact.phone or self.conversation.contact.user_id

    @property
    def bot_id(self) -> str | None:
        """The agent's own name for the bot, else our assistant's key."""
        assistant = self.conversation.assistant
        return self.state.bot_id or (assistant.key if assistant else None)

    @property
    def expires_at(self) -> datetime:
        """When the sweep ends the session, unless a message comes before."""
        return expiry(self.conversation)

    @property
    def updated_at(self) -> datetime:
        """When something of it changed last."""
        return max(self.state.updated_at, self.conversation.last_message_at)


def expiry(conversation: Conversation) -> datetime:
    """When the session's time is over: after its last message, or where it was extended to, if that is later."""
    usual = conversation.last_message_at + conversation.client.expire_after
    return max(usual, conversation.extended_until or usual)


def phone_of(raw: str) -> str | None:
    """A phone as `+51999999999`, or None. As with WhatsApp ids, digits of the right number are believed."""
    digits = raw.strip().removeprefix("+")
    return e164(raw) or (from_whatsapp(digits) if digits.isascii() and digits.isdigit() else None)


def read(client: Client, conversation_id: UUID, local_id: str = "") -> SessionState:
    """The client's session. Raises NotFoundError, also for one of another branch (`local_id`)."""
    found = _sessions(client).filter(pk=conversation_id).first()
    if found is None or not same_branch(found, local_id):
        raise NotFoundError(NO_SESSION)
    return show(found)


def open_session_of(client: Client, phone: str, *, local_id: str = "", bot_id: str = "") -> SessionState:
    """The open session of whoever has the phone, the newest if they have several. Raises NotFoundError."""
    found = _of_bot(_of_phone(client, phone).open(), bot_id)
    if local_id:
        found = found.filter(Q(agent_state__local_id=local_id) | Q(agent_state__local_id="") | Q(agent_state=None))
    newest = found.order_by("-last_message_at").first()
    if newest is None:
        raise NotFoundError("This phone has no open conversation.")
    return show(newest)


def newest_session_of(client: Client, phone: str) -> SessionState:
    """The newest session of whoever has the phone, an open one before those that are over. Raises NotFoundError."""
    found = _of_phone(client, phone)
    newest = found.open().order_by("-last_message_at").first() or found.order_by("-started_at").first()
    if newest is None:
        raise NotFoundError("This phone has no conversation.")
    return show(newest)


def open_sessions(
    client: Client, *, local_id: str = "", bot_id: str = "", intent: str = "", limit: int, offset: int
) -> tuple[list[SessionState], int]:
    """A page of the client's open sessions, the newest first, and how many there are in all."""
    found = _of_bot(_sessions(client).open(), bot_id)
    if local_id:
        found = found.filter(agent_state__local_id=local_id)
    if intent:
        without = Q(agent_state=None) if intent == "idle" else Q()
        found = found.filter(Q(agent_state__intent=intent) | without if without else Q(agent_state__intent=intent))
    page = found.order_by("-started_at", "-pk")[offset : offset + limit]
    return [show(each) for each in page], found.count()


def show(conversation: Conversation) -> SessionState:
    """The session with its newest messages and its orders. What a reset has hidden is left out."""
    said = Chunk.objects.filter(conversation=conversation, role__in=SAID, position__gt=conversation.history_from or 0)
    newest = said.annotate(words=corrected_text()).order_by("-position")
    messages = list(newest.values_list("role", "words", "created_at")[:MESSAGES_SHOWN])
    last = next((words for role, words, _ in messages if role != Role.AI), None)
    if last is None and len(messages) == MESSAGES_SHOWN:
        last = newest.exclude(role=Role.AI).values_list("words", flat=True).first()
    return SessionState(
        conversation=conversation,
        state=state_of(conversation),
        messages=messages[::-1],
        last_user_message=last,
        orders=list(OrderLink.objects.filter(conversation=conversation).values_list("order_id", flat=True)),
    )


def state_of(conversation: Conversation) -> AgentState:
    """Its row, or a new one with the defaults."""
    kept: AgentState | None = getattr(conversation, "agent_state", None)
    return kept or AgentState(conversation=conversation, updated_at=conversation.started_at)


def same_branch(conversation: Conversation, local_id: str) -> bool:
    """Whether the session is the branch's, or nobody has said whose it is."""
    of_session = state_of(conversation).local_id
    return not local_id or not of_session or local_id == of_session


def as_json(shown: SessionState) -> dict[str, Any]:
    """The protocol's state object."""
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
    return _sessions(client).filter(
        Q(contact__phone=phone) | Q(contact__in=contacts.ids_by_user_id(phone)), contact__client=client
    )


def _of_bot(found: ConversationQuerySet, bot_id: str) -> ConversationQuerySet:
    if not bot_id:
        return found
    return found.filter(Q(agent_state__bot_id=bot_id) | Q(assistant__key=bot_id))
