"""A person wants no more messages on a channel, or wants them again.

The wish is on the contact, by channel, from the message on that says it, in the same transaction. Nothing is queued or
owed after that, and what was queued is asked once more when it is claimed for sending (delivery.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.db.models import JSONField
from django.db.models.expressions import RawSQL

from channels_out.opt_out import Wish
from conversations.models import Contact, Conversation, Role
from conversations.services import outbox
from conversations.services.errors import ConflictError
from conversations.services.ledger import CONTACT, record
from conversations.services.transcript import ACTIVITY_FIELDS, lock, note_answered, write_chunks

NOTICE = {"notice": "opt_out"}


def heed(conversation_id: UUID, wish: Wish, now: datetime) -> None:
    """The contact's wish, which they have just said in this session, is done and in the ledger.

    Call it in the transaction in which the message is stored, with the contact locked before the session.
    A wish that was done before changes nothing: asking for messages while one gets them is a message like any other.
    """
    conversation = lock(conversation_id)
    channel = conversation.channel
    already = channel in conversation.contact.opted_out
    if already == wish.stop:
        if wish.stop:
            _settle_owed(conversation)
        return
    mark(conversation.contact, channel, wish if wish.stop else None, now)
    if wish.stop:
        _settle_owed(conversation)
        cancelled = outbox.cancel_to(conversation.contact, channel)
        record(conversation, "opted_out", CONTACT, cause=wish.word, cancelled=cancelled)
    else:
        record(conversation, "opted_in", CONTACT, cause=wish.word)
    _answer(conversation, wish, now)


def mark(contact: Contact, channel: str, wish: Wish | None, now: datetime) -> None:
    """The contact gets nothing more on the channel; with None, gets messages again."""
    if wish is None:
        changed: Any = RawSQL("opted_out - %s::text", [channel], output_field=JSONField())
    else:
        since = {channel: {"since": now.isoformat(), "word": wish.word}}
        changed = RawSQL("opted_out || %s::jsonb", [orjson.dumps(since).decode()], output_field=JSONField())
    Contact.objects.filter(pk=contact.pk).update(opted_out=changed)


def check(conversation: Conversation) -> None:
    """Raises ConflictError (`opted_out`) where the contact wants no messages on the conversation's channel."""
    found = Contact.objects.filter(pk=conversation.contact_id, opted_out__has_key=conversation.channel)
    if found.exists():
        raise ConflictError(
            "This person opted out: nothing is sent to them here until they write START.", code="opted_out"
        )


def _settle_owed(conversation: Conversation) -> None:
    note_answered(conversation)
    conversation.save(update_fields=ACTIVITY_FIELDS)


def _answer(conversation: Conversation, wish: Wish, now: datetime) -> None:
    """The confirmation that the channel's rules ask for. Where they ask for none, START is a message to be answered."""
    client = conversation.client
    text = wish.confirmation(conversation.channel, client.name)
    if text:
        [chunk] = write_chunks(conversation, [(Role.AI, text)], now, metadata=NOTICE)
        outbox.queue(conversation, chunk, now)
        note_answered(conversation)
    elif not wish.stop and client.auto_reply:
        conversation.reply_owed = True
        conversation.burst_began_at = conversation.burst_began_at or now
        conversation.reply_due_at = now
    conversation.save(update_fields=ACTIVITY_FIELDS)
