"""Messages that were sent, what providers report of them, and the rows they leave."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from channels_out.events import Receipt
from channels_out.kinds import ReceiptStatus
from conversations.models import ChannelAccount, Chunk, ContactIdentity, Conversation, Message
from tests import factories

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
SECOND, MOMENT = timedelta(seconds=1), timedelta(microseconds=1)
ANN, BOB = "51999999999", "51999999998"
TIMES = ("sent_at", "delivered_at", "read_at")


def conversation_with(account: ChannelAccount, address: str) -> Conversation:
    """Return an open conversation over the account with the person who has the address."""
    contact = factories.ContactFactory(client=account.client)
    found = factories.ConversationFactory(
        client=account.client, contact=contact, channel=account.channel, channel_account=account
    )
    ContactIdentity.objects.create(
        contact=contact, client=account.client, channel=account.channel, kind="psid", address=address
    )
    return found


def message(account: ChannelAccount, address: str = ANN, conversation: Conversation | None = None, **more: Any) -> Any:
    """Return a message that was sent over the account, with these fields."""
    conversation = conversation or conversation_with(account, address)
    chunk = Chunk.objects.create(conversation=conversation, position=Chunk.objects.count() + 3, role="ai", content="Hi")
    usual = {"conversation": conversation, "chunk": chunk, "channel_account": account, "to_address": address}
    sent = {"to_kind": "psid", "text": "Hi", "status": "sent", "provider_message_id": f"m{chunk.pk}"}
    return Message.objects.create(**{**usual, **sent, "sending_at": NOW, **more})


def receipt(about: Message | str, status: str, **more: Any) -> Receipt:
    """Return a receipt of the message, or of the provider's id."""
    named = about if isinstance(about, str) else about.provider_message_id
    return Receipt("sandbox", named, ReceiptStatus(status), **{"occurred_at": NOW, **more})


def state(message: Message) -> tuple[Any, ...]:
    """Return the message's status and its times in the database."""
    message.refresh_from_db()
    return (message.status, *(getattr(message, name) for name in TIMES))
