"""Opt-outs: a person wants no more messages on a channel, or wants them again.

An opt-out is stored on the contact, by channel. The person writes it in a message (then it counts in the same
transaction), the provider reports it, or staff enter it. After that nothing is queued and no reply is due, and a
message that was queued before is checked again just before it is sent (sending.py).
"""

from __future__ import annotations

from contextlib import nullcontext
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.db import transaction
from django.db.models import JSONField
from django.db.models.expressions import RawSQL
from django.utils.translation import gettext

from channels_out.opt_out import HELP_TEXT, OPT_OUT_CHANNELS, ConsentChange, HelpRequest
from conversations.models import Client, Contact, Conversation, Role
from conversations.models.conversation import ConversationQuerySet
from conversations.services.contacts import contacts
from conversations.services.core import tool_requests
from conversations.services.core.appending import note_answered, write_chunks
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.event_notes import note_contact
from conversations.services.core.ledger import CONTACT, SYSTEM, Actor, record
from conversations.services.core.locking import editing, lock, saving
from conversations.services.core.person import Person
from conversations.services.delivery import outbox

NOTICE = {"notice": "opt_out"}
OPTED_OUT = "opted_out"  # what changed of a contact without a conversation, whose ledger would tell it
HELP_NOTICE = {"notice": "help"}


def apply(client_id: UUID, conversation_id: UUID, wish: ConsentChange | HelpRequest, now: datetime) -> None:
    """Do what the contact has just asked for in this conversation, confirm it, and write it into the ledger.

    Call it in the transaction in which the message is stored, with the contact locked before the conversation. A
    request that is fulfilled already changes nothing: START from somebody who gets messages is a message like any
    other.
    """
    with editing(conversation_id, client_id) as conversation:
        if isinstance(wish, HelpRequest):
            _answer_help(conversation, wish, now)
            return
        channel = conversation.channel
        already = channel in conversation.contact.opted_out
        if already == wish.stop:
            if wish.stop:
                note_answered(conversation)
            return
        if wish.stop:
            _opt_out(conversation.contact, channel, conversation, CONTACT, wish.word, now)
        else:
            _store(conversation.contact, channel, None)
            record(conversation, "opted_in", CONTACT, cause=wish.word)
        _confirm(conversation, wish, now)


def _answer_help(conversation: Conversation, wish: HelpRequest, now: datetime) -> None:
    """Answer HELP with the client's fixed text, also to somebody who opted out, unless the provider has answered it.

    No reply is owed to it; one that was owed before stays owed.
    """
    client = conversation.client
    if not wish.answered:
        text = (client.help_text or HELP_TEXT).replace("{business}", client.name)
        [chunk] = write_chunks(conversation, [(Role.AI, text)], now, metadata=HELP_NOTICE)
        outbox.queue(conversation, chunk, now)
    if conversation.burst_began_at is None or conversation.burst_began_at >= now:
        note_answered(conversation)
    record(conversation, "help_answered", SYSTEM)


def choose_marketing(client: Client, channel: str, person: Person, *, stop: bool, now: datetime) -> None:
    """Store the person's choice about marketing messages on the channel. Call it in a transaction.

    Somebody who is not known yet becomes a contact, so that the choice counts when they are written to.
    """
    contact, _ = contacts.find_or_create(client, channel, person)
    since = {"since": now.isoformat(), "word": "marketing", "by": CONTACT.kind}
    _store(contact, outbox.marketing_on(channel), since if stop else None)
    if conversation := _lock_newest_conversation(contact, channel):
        record(conversation, "marketing_stopped" if stop else "marketing_resumed", CONTACT)
    else:
        note_contact(contact.client_id, contact.pk, OPTED_OUT)


def note_marketing_refusal(client_id: UUID, conversation_id: UUID, code: str, now: datetime) -> None:
    """Keep the choice of the conversation's contact to get no marketing messages, of which the provider reports.

    A choice that is kept already stays. Call it outside a transaction that holds the conversation's lock.
    """
    with transaction.atomic():
        contacts = Contact.objects.select_for_update(no_key=True).filter(client=client_id)
        contact = contacts.filter(conversations__pk=conversation_id).first()
        conversation = Conversation.objects.filter(client=client_id, pk=conversation_id, contact=contact).first()
        if contact is None or conversation is None:
            return
        wanted = outbox.marketing_on(conversation.channel)
        if wanted not in contact.opted_out:
            _store(contact, wanted, {"since": now.isoformat(), "word": code, "by": SYSTEM.kind})
            record(conversation, "marketing_stopped", SYSTEM, cause=code)


def apply_from_provider(conversation: Conversation, code: str, now: datetime) -> None:
    """Opt the contact out because the provider reports that they opted out there.

    Call it with the contact and then the conversation locked. A contact who is opted out stays so.
    """
    if conversation.channel not in conversation.contact.opted_out:
        with saving(conversation):
            _opt_out(conversation.contact, conversation.channel, conversation, SYSTEM, code, now)


def apply_from_assistant(conversation: Conversation, actor: Actor, reason: str, now: datetime) -> None:
    """Opt the contact out because the assistant understood that they want no more messages.

    Call it with the contact and then the conversation locked, within `locking.saving`. A contact who is opted out
    stays so.
    """
    if not outbox.is_opted_out(conversation):
        _opt_out(conversation.contact, conversation.channel, conversation, actor, reason[:200], now)


def opt_out(contact_id: UUID, channel: str, *, reason: str, actor: Actor, now: datetime) -> int:
    """Opt the contact out of the channel, because they told staff so elsewhere. Returns how many messages it cancels.

    It has the effect of a STOP that they wrote, but no confirmation is sent.

    Raises InvalidError (`channel`, `blank`), NotFoundError, or ConflictError (`opted_out`).
    """
    with transaction.atomic():
        contact = _lock_contact(contact_id, channel, reason)
        if channel in contact.opted_out:
            raise ConflictError(
                gettext("This person has already opted out of %(channel)s.") % {"channel": channel}, code="opted_out"
            )
        conversation = _lock_newest_conversation(contact, channel)
        with saving(conversation) if conversation else nullcontext():
            return _opt_out(contact, channel, conversation, actor, reason, now)


def opt_in(contact_id: UUID, channel: str, *, reason: str, actor: Actor) -> None:
    """Opt the contact in again, because they told staff so. No reply becomes due for what they wrote meanwhile.

    Raises InvalidError (`channel`, `blank`), NotFoundError, or ConflictError (`not_opted_out`).
    """
    with transaction.atomic():
        contact = _lock_contact(contact_id, channel, reason)
        if channel not in contact.opted_out:
            raise ConflictError(
                gettext("This person has not opted out of %(channel)s.") % {"channel": channel}, code="not_opted_out"
            )
        _store(contact, channel, None)
        if conversation := _lock_newest_conversation(contact, channel):
            record(conversation, "opted_in", actor, cause=reason)
        else:
            note_contact(contact.client_id, contact.pk, OPTED_OUT)


def _lock_contact(contact_id: UUID, channel: str, reason: str) -> Contact:
    """Check the request of staff, lock the contact and return it."""
    if channel not in OPT_OUT_CHANNELS:
        raise InvalidError(gettext("Nobody can opt out of that channel."), code="channel")
    if not reason.strip():
        raise InvalidError(gettext("Enter a reason. The ledger and the audit trail keep it."), code="blank")
    client_id = Contact.objects.filter(pk=contact_id).values_list("client_id", flat=True).first()
    found = Contact.objects.select_for_update(no_key=True).filter(client=client_id, pk=contact_id)
    contact = found.first() if client_id else None
    if contact is None:
        raise NotFoundError(gettext("This person no longer exists."))
    return contact


def _lock_newest_conversation(contact: Contact, channel: str) -> Conversation | None:
    """Lock the contact's newest open conversation on the channel, else their newest, and return it."""
    theirs: ConversationQuerySet = Conversation.objects.filter(contact=contact, channel=channel)
    newest = theirs.open().order_by("-last_message_at").first() or theirs.order_by("-last_message_at").first()
    try:
        return lock(newest.pk, newest.client_id) if newest else None
    except NotFoundError:
        return None


def _opt_out(
    contact: Contact, channel: str, conversation: Conversation | None, actor: Actor, cause: str, now: datetime
) -> int:
    """Opt the contact out, cancel the messages queued for them and return how many there were."""
    _store(contact, channel, {"since": now.isoformat(), "word": cause, "by": actor.name or actor.kind})
    cancelled = outbox.cancel_for_contact(contact, channel)
    if conversation:
        note_answered(conversation)
        tool_requests.expire_approved(conversation, now)
        record(conversation, "opted_out", actor, cause=cause, cancelled=cancelled)
    else:
        note_contact(contact.client_id, contact.pk, OPTED_OUT)
    return cancelled


def _store(contact: Contact, channel: str, opt_out: dict[str, str] | None) -> None:
    """Write the opt-out of the channel to the contact's row; None deletes it."""
    if opt_out is None:
        changed: Any = RawSQL("opted_out - %s::text", [channel], output_field=JSONField())
    else:
        added = orjson.dumps({channel: opt_out}).decode()
        changed = RawSQL("opted_out || %s::jsonb", [added], output_field=JSONField())
    Contact.objects.filter(client=contact.client_id, pk=contact.pk).update(opted_out=changed)


def check(conversation: Conversation) -> None:
    """Raise ConflictError (`opted_out`) if the contact has opted out of the conversation's channel."""
    if outbox.is_opted_out(conversation):
        raise ConflictError(
            gettext(
                "This person has opted out. Nothing is sent to them here until they write START or staff opt them in."
            ),
            code="opted_out",
        )


def _confirm(conversation: Conversation, wish: ConsentChange, now: datetime) -> None:
    """Queue the confirmation that the channel's rules ask for. If they ask for none, a reply to START becomes due."""
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
