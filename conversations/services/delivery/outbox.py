"""The outbox: queue messages for sending and cancel those that must not be sent any more. sending.py sends them."""

from __future__ import annotations

from datetime import datetime

from django.db.models import QuerySet

from channels_out import registry, splitting
from channels_out.contract import Adapter
from channels_out.kinds import AddressKind, Channel
from channels_out.phones import phone_address
from conversations.models import ChannelAccount, Chunk, Contact, Conversation, Message, Turn
from conversations.services.core.ledger import SYSTEM, record
from conversations.services.core.sql import follow, insert, row, update

S = Message.Status
OPTED_OUT = "opted_out"
TAKEN_OVER = "taken_over"


def queue(
    conversation: Conversation,
    chunk: Chunk,
    now: datetime,
    *,
    reply_to: str = "",
    unconditional: bool = False,
    again: Message | None = None,
) -> list[Message]:
    """Queue the chunk for sending over the conversation's account, in as many parts as the channel needs.

    Returns the messages. There are none on the web, where the person reads the transcript itself, and none in a call,
    whose provider fetches what is said (voice/calls.py). Without an account the message fails visibly.

    reply_to: the provider's id of the message it answers, which is quoted if the channel can
    unconditional: send it even if the conversation ends or is taken over before that
    again: the failed Message to send again; its row is reused for part 1
    """
    if conversation.channel == Channel.WEB:
        return []
    account = account_of(conversation)
    adapter = adapter_or_none(account)
    if adapter and adapter.fetches_replies:
        return []
    to, kind = destination(conversation)
    texts = splitting.split(chunk.content, adapter.text_limit, adapter.limit_unit) if adapter else [chunk.content]
    failure = {} if adapter else _no_account(conversation, now)
    messages = [
        Message(
            conversation=conversation,
            chunk=chunk,
            part=part,
            parts=len(texts),
            channel_account=account,
            to_address=to,
            to_kind=kind,
            text=text,
            unconditional=unconditional,
            reply_to=reply_to if part == 1 else "",
            due_at=now,
            created_at=now,
            **failure,
        )
        for part, text in enumerate(texts, start=1)
    ]
    if again is None:
        insert(messages)
        return messages
    messages[0].pk, messages[0].created_at = again.pk, again.created_at
    update(messages[0])
    insert(messages[1:])
    return messages


def account_of(conversation: Conversation) -> ChannelAccount | None:
    """Return the account that the conversation's messages go through, or None.

    A locked conversation without one gets the client's; call it within `locking.saving`.
    """
    return follow(conversation, "channel_account") or _assign_account(conversation)


def _assign_account(conversation: Conversation) -> ChannelAccount | None:
    """Give a conversation that was opened before there was an account the client's oldest active one on the channel."""
    theirs = ChannelAccount.objects.filter(
        client=conversation.client_id, channel=conversation.channel, is_active=True, is_simulated=False
    )
    account = theirs.order_by("created_at").first()
    if account:
        conversation.channel_account = account
    return account


def adapter_or_none(account: ChannelAccount | None) -> Adapter | None:
    """Return the account's adapter; None without an account or for a provider that is not known (any more)."""
    try:
        return registry.adapter_for(account.provider, account.channel) if account else None
    except LookupError:
        return None


def _no_account(conversation: Conversation, now: datetime) -> dict[str, object]:
    record(conversation, "message_failed", SYSTEM, cause="no_account")
    return {
        "status": S.FAILED,
        "failed_at": now,
        "code": "no_account",
        "reason": f"The client has no account on {conversation.channel}. Create one with create_channel_account.",
    }


def destination(conversation: Conversation) -> tuple[str, str]:
    """Return the address that replies go to, and its kind.

    It is the address the person wrote from, else their phone, else the client's id of them.
    """
    if device := follow(conversation, "device"):
        return device.address, device.kind
    contact = conversation.contact
    address = phone_address(conversation.channel, contact.phone)
    return (address, AddressKind.PHONE) if address else (contact.user_id, AddressKind.USER)


def is_opted_out(conversation: Conversation) -> bool:
    """Return whether the contact, as of now, has opted out of the conversation's channel."""
    found = row(
        "SELECT 1 FROM contacts WHERE id = $1 AND opted_out ? $2", conversation.contact_id, conversation.channel
    )
    return found is not None


def cancel_code(message: Message, conversation: Conversation | None) -> str:
    """Return the code by which the message must be cancelled, '' if it may be sent.

    The code is `opted_out`, `deleted`, the status of the ended conversation, or `taken_over` if the assistant wrote the
    message and a colleague has the conversation.
    """
    if conversation is None:
        return "deleted"
    if conversation.channel in conversation.contact.opted_out and not _is_notice(message):
        return OPTED_OUT
    if message.unconditional:
        return ""
    if not conversation.is_open:
        return conversation.status
    if conversation.taken_over_at and Turn.objects.filter(chunk=message.chunk_id).exists():
        return TAKEN_OVER
    return ""


def _is_notice(message: Message) -> bool:
    """Return whether the message confirms an opt-out to the person."""
    return Chunk.objects.filter(pk=message.chunk_id, metadata__has_key="notice").exists()


def cancel_unsent(conversation: Conversation, code: str) -> int:
    """Cancel the conversation's unsent messages and return how many there were. One being sent is not tried again."""
    Message.objects.filter(conversation=conversation, status=S.SENDING, unconditional=True).update(unconditional=False)
    return _cancel(_unsent(conversation), code)


def cancel_for_contact(contact: Contact, channel: str) -> int:
    """Cancel the unsent messages to the contact on the channel and return how many there were."""
    unsent = Message.objects.filter(conversation__contact=contact, conversation__channel=channel)
    return _cancel(unsent.filter(status__in=[S.QUEUED, S.CLAIMED]), OPTED_OUT)


def silence(conversation: Conversation) -> int:
    """Cancel the assistant's unsent messages in the conversation and return how many there were."""
    said = Turn.objects.filter(conversation=conversation).values("chunk")
    return _cancel(_unsent(conversation).filter(chunk__in=said, unconditional=False), TAKEN_OVER)


def allow_sending(conversation: Conversation) -> None:
    """Let the unsent messages be sent although the conversation is about to end or to be taken over."""
    _unsent(conversation).update(unconditional=True)


def _unsent(conversation: Conversation) -> QuerySet[Message]:
    return Message.objects.filter(conversation=conversation, status__in=[S.QUEUED, S.CLAIMED])


def _cancel(messages: QuerySet[Message], code: str) -> int:
    return messages.update(status=S.CANCELLED, code=code, lease_until=None, lease_token=None)
