"""A person wants no more messages on a channel, or wants them again.

The wish is on the contact, by channel, from the message on that says it, in the same transaction; or the provider says
that they told it so, or staff do, who heard it elsewhere. Nothing is queued or owed after that, and what was queued is
asked once more when it is claimed for sending (delivery.py).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction
from django.db.models import JSONField
from django.db.models.expressions import RawSQL

from channels_out.opt_out import HEEDED, Wish
from conversations.models import Contact, Conversation, Role
from conversations.models.conversation import ConversationQuerySet
from conversations.services.core.appending import ACTIVITY_FIELDS, lock, note_answered, write_chunks
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.ledger import CONTACT, SYSTEM, Actor, record
from conversations.services.core.sql import rows
from conversations.services.delivery import outbox

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
    if wish.stop:
        _stop(conversation.contact, channel, conversation, CONTACT, wish.word, now)
    else:
        _mark(conversation.contact, channel, None)
        record(conversation, "opted_in", CONTACT, cause=wish.word)
    _answer(conversation, wish, now)


def heed_provider(conversation: Conversation, code: str, now: datetime) -> None:
    """The provider blocks what we send to the contact, who told it so: the wish is the contact's, and done.

    Call it with the contact and then the conversation locked. What is known already changes nothing.
    """
    if conversation.channel not in conversation.contact.opted_out:
        _stop(conversation.contact, conversation.channel, conversation, SYSTEM, code, now)


def opt_out(contact_id: UUID, channel: str, *, reason: str, actor: Actor, now: datetime) -> int:
    """Staff were told by the contact, elsewhere, that they want nothing more on the channel: it is done as if they had
    written STOP, and not confirmed to them. Returns how many messages were cancelled.

    Raises InvalidError (`channel`, `blank`), NotFoundError, or ConflictError (`opted_out`).
    """
    with transaction.atomic():
        contact = _asked(contact_id, channel, reason)
        if channel in contact.opted_out:
            raise ConflictError(f"They opted out of {channel} already.", code="opted_out")
        return _stop(contact, channel, _session(contact, channel), actor, reason, now)


def opt_in(contact_id: UUID, channel: str, *, reason: str, actor: Actor) -> None:
    """Staff were told by the contact that they want messages on the channel again. Nothing is owed for what they wrote
    meanwhile.

    Raises InvalidError (`channel`, `blank`), NotFoundError, or ConflictError (`not_opted_out`).
    """
    with transaction.atomic():
        contact = _asked(contact_id, channel, reason)
        if channel not in contact.opted_out:
            raise ConflictError(f"They did not opt out of {channel}.", code="not_opted_out")
        _mark(contact, channel, None)
        if conversation := _session(contact, channel):
            record(conversation, "opted_in", actor, cause=reason)


def _asked(contact_id: UUID, channel: str, reason: str) -> Contact:
    """The contact, locked, where staff may be heeded."""
    if channel not in HEEDED:
        raise InvalidError("Nobody can opt out of that channel.", code="channel")
    if not reason.strip():
        raise InvalidError("Say why: the ledger and the audit trail keep it.", code="blank")
    contact = Contact.objects.select_for_update(no_key=True).filter(pk=contact_id).first()
    if contact is None:
        raise NotFoundError("There is no such person any more.")
    return contact


def _session(contact: Contact, channel: str) -> Conversation | None:
    """The contact's open session on the channel, locked; else their newest."""
    theirs: ConversationQuerySet = Conversation.objects.filter(contact=contact, channel=channel)
    newest = theirs.open().order_by("-last_message_at").first() or theirs.order_by("-last_message_at").first()
    try:
        return lock(newest.pk) if newest else None
    except NotFoundError:
        return None


def _stop(
    contact: Contact, channel: str, conversation: Conversation | None, actor: Actor, cause: str, now: datetime
) -> int:
    """The contact gets nothing more on the channel, and is owed nothing. Returns how many messages were cancelled."""
    _mark(contact, channel, {"since": now.isoformat(), "word": cause, "by": actor.name or actor.kind})
    cancelled = outbox.cancel_to(contact, channel)
    if conversation:
        _settle_owed(conversation)
        record(conversation, "opted_out", actor, cause=cause, cancelled=cancelled)
    return cancelled


def _mark(contact: Contact, channel: str, wish: dict[str, str] | None) -> None:
    """The contact gets nothing more on the channel; with None, gets messages again."""
    if wish is None:
        changed: Any = RawSQL("opted_out - %s::text", [channel], output_field=JSONField())
    else:
        added = orjson.dumps({channel: wish}).decode()
        changed = RawSQL("opted_out || %s::jsonb", [added], output_field=JSONField())
    Contact.objects.filter(pk=contact.pk).update(opted_out=changed)


def is_in_force(conversation: Conversation) -> bool:
    """Whether the contact wants, as of now, no messages on the conversation's channel."""
    wants_none = "SELECT FROM contacts WHERE id = $1 AND opted_out ? $2"
    return bool(rows(wants_none, conversation.contact_id, conversation.channel))


def check(conversation: Conversation) -> None:
    """Raises ConflictError (`opted_out`) where the contact wants no messages on the conversation's channel."""
    if is_in_force(conversation):
        raise ConflictError(
            "This person opted out: nothing is sent to them here until they write START, or staff lift it.",
            code="opted_out",
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
