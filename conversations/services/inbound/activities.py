"""Activities: what a person did that is no message is stored where it happened, and has its effect there.

    reaction    stands beside its message; no reply is owed for it
    edit        the message reads as the new text from now on, and owes a reply
    deletion    the message reads as DELETED from now on; where nothing else is unanswered, no reply is owed any more
    the rest    stands after the newest message of the person's open conversation; no reply is owed for it

Two of them open a conversation: the edit of a message that never arrived, which is the message then, and a missed call
or a permission to call (`placeholders.py`). All may be delivered again, late and in any order.
"""

from __future__ import annotations

from datetime import datetime

from django.db import transaction
from django.utils.translation import gettext_noop

from channels_out.events import Activity as ReportedActivity
from channels_out.events import Sender
from channels_out.kinds import ActivityKind
from channels_out.opt_out import consent_change_in
from conversations.models import (
    Activity,
    ChannelAccount,
    Chunk,
    ContactIdentity,
    Conversation,
    Correction,
    Message,
    Role,
    Turn,
)
from conversations.services.core import redaction, threads
from conversations.services.core.appending import SPOKEN_BY_PEOPLE, note_answered, note_inbound
from conversations.services.core.dedupe import dedupe_key, is_first_time
from conversations.services.core.ledger import CONTACT, record
from conversations.services.core.locking import editing_if_there, lock_contact_of
from conversations.services.core.person import Person
from conversations.services.core.sql import current_transaction, wait_for_earlier
from conversations.services.delivery import opt_outs
from conversations.services.inbound import placeholders
from conversations.services.inbound.messages import InboundText, settle
from conversations.services.inbound.placeholders import activity_of
from conversations.services.transitions.changed_text import note_changed_text
from memory.text import one_line

DELETED = "[deleted by the person]"  # a deleted message reads so
BY_PERSON = gettext_noop("by the person")  # the reason of the corrections that an edit or a deletion writes
LONGEST_REACTION = 40  # characters: emoji of many code points are shorter


def store(account: ChannelAccount, happened: ReportedActivity, now: datetime) -> bool:
    """Store what a person did, with its effects, and return whether there is a conversation that it belongs to.

    False is also returned where the message is not the person's. What is known already changes nothing.
    """
    if not happened.about:
        return _store_in_conversation(account, happened, now)
    chunk = _chunk_about(account, happened)
    if chunk is None:
        return _store_without_message(account, happened, now)
    return _store_with_message(account, happened, chunk, now)


def identities_of(account: ChannelAccount, person: Sender) -> list[ContactIdentity]:
    """Return the identities of the client's contact under the person's addresses, the address of the payload first."""
    addresses = [person.address, *(address for _, address in person.aliases)]
    found = ContactIdentity.objects.filter(client_id=account.client_id, channel=account.channel, address__in=addresses)
    return sorted(found, key=lambda each: addresses.index(each.address))


def open_conversation_with(account: ChannelAccount, person: Sender) -> Conversation | None:
    """Return the open conversation with the person on the account's channel; None if there is none."""
    theirs = [each.contact_id for each in identities_of(account, person)]
    return threads.open_over(account).filter(contact__in=theirs).first() if theirs else None


# --- with a message ---------------------------------------------------------------------------------------------------
def _chunk_about(account: ChannelAccount, happened: ReportedActivity) -> Chunk | None:
    """Return the message that it is about: the person's own, or (for reactions) one of ours."""
    key = dedupe_key(account.key, happened.about)
    chunk = Chunk.objects.filter(client=account.client_id, dedupe_key=key).first()
    if chunk or happened.kind != ActivityKind.REACTION:
        return chunk
    sent = Message.objects.filter(client=account.client_id, channel_account=account, provider_message_id=happened.about)
    message = sent.select_related("chunk").first()
    return message.chunk if message else None


def _store_without_message(account: ChannelAccount, happened: ReportedActivity, now: datetime) -> bool:
    """Settle what is about a message that did not arrive (yet).

    An edit is settled as the message; a deletion leaves a tombstone, so that the message is not stored when it comes.
    """
    if happened.kind == ActivityKind.EDIT:
        return _settle_as_message(account, happened, now)
    key = dedupe_key(account.key, happened.about)
    if happened.kind != ActivityKind.DELETION or key is None:
        return False
    with transaction.atomic():
        is_first_time(account.client_id, key, now)
        since = current_transaction()
    # The message may be just being stored, by a statement that began before the tombstone was there.
    wait_for_earlier(since)
    chunk = _chunk_about(account, happened)
    return chunk is not None and _store_with_message(account, happened, chunk, now)


def _settle_as_message(account: ChannelAccount, happened: ReportedActivity, now: datetime) -> bool:
    sender = happened.sender
    person = Person(
        address=sender.address,
        kind=sender.kind,
        phone=sender.phone,
        name=sender.name or "",
        aliases=tuple((kind.value, address) for kind, address in sender.aliases),
    )
    text = InboundText(
        channel=account.channel,
        person=person,
        text=happened.text,
        message_id=happened.about,
        at=now,
        scope=account.key,
        thread=threads.thread_of(account),
        metadata={"edited": True},
        account=account,
    )
    settled = settle(account.client, text)
    known = Chunk.objects.filter(client=account.client_id, pk=settled.chunk_id or 0)
    chunk = known.first() if settled.duplicate else None
    return _store_with_message(account, happened, chunk, now) if chunk else not settled.duplicate


def _store_with_message(account: ChannelAccount, happened: ReportedActivity, chunk: Chunk, now: datetime) -> bool:
    with transaction.atomic():
        lock_contact_of(chunk.conversation_id, chunk.client_id)
        with editing_if_there(chunk.conversation_id, chunk.client_id) as conversation:
            found = conversation and conversation.chunks.filter(pk=chunk.pk).first()
            if not conversation or not found or not _is_theirs(conversation, account, happened.sender):
                return False
            if _is_known(conversation, happened):
                return True
            stored = _STORE[happened.kind](conversation, found, happened, now)
        wish = consent_change_in(account.channel, happened.text) if happened.kind == ActivityKind.EDIT else None
        if wish and stored:
            opt_outs.apply(chunk.client_id, chunk.conversation_id, wish, now)
    return True


def _is_theirs(conversation: Conversation, account: ChannelAccount, person: Sender) -> bool:
    return conversation.contact_id in [each.contact_id for each in identities_of(account, person)]


def _is_known(conversation: Conversation, happened: ReportedActivity) -> bool:
    known = Activity.objects.filter(conversation=conversation, message_id=happened.message_id)
    return bool(happened.message_id) and known.exists()


def _react(conversation: Conversation, chunk: Chunk, happened: ReportedActivity, now: datetime) -> bool:
    """Let the message have this reaction, unless the person's newer one came before it."""
    known = Activity.objects.filter(chunk=chunk, kind=ActivityKind.REACTION).first()
    at = happened.occurred_at or now
    if known and known.occurred_at > at:
        return False
    reaction = known or activity_of(conversation, chunk, happened, now)
    reaction.text = one_line(happened.text, LONGEST_REACTION)
    reaction.occurred_at, reaction.message_id = at, happened.message_id
    reaction.save()
    return True


def _edit(conversation: Conversation, chunk: Chunk, happened: ReportedActivity, now: datetime) -> bool:
    """Let the person's message read as the new text, and owe a reply.

    A message that is redacted or deleted stays so, and an edit that is older than the newest one changes nothing.
    """
    edits = Activity.objects.filter(chunk=chunk, kind__in=[ActivityKind.EDIT, ActivityKind.DELETION])
    newer = edits.filter(occurred_at__gt=happened.occurred_at or now) | edits.filter(kind=ActivityKind.DELETION)
    corrections = list(Correction.objects.filter(chunk=chunk))
    text = redaction.rules_of(conversation.client).clean(happened.text)
    if (
        chunk.role not in SPOKEN_BY_PEOPLE
        or newer.exists()
        or any(each.kind == Correction.Kind.REDACTION for each in corrections)
        or text == (corrections[-1].text if corrections else chunk.content)
    ):
        return False
    edit = activity_of(conversation, chunk, happened, now)
    edit.text = text
    edit.save()
    _let_read(conversation, chunk, text, now)
    if conversation.is_open:
        note_inbound(conversation, now)
        conversation.last_message_at = max(conversation.last_message_at, now)
    record(conversation, "message_edited", CONTACT, cause=f"message {chunk.position}", position=chunk.position)
    return True


def _delete(conversation: Conversation, chunk: Chunk, happened: ReportedActivity, now: datetime) -> bool:
    """Let the person's message read as deleted. Where it alone was unanswered, no reply is owed any more."""
    if chunk.role not in SPOKEN_BY_PEOPLE or Activity.objects.filter(chunk=chunk, kind=happened.kind).exists():
        return False
    activity_of(conversation, chunk, happened, now).save()
    if not Correction.objects.filter(chunk=chunk, kind=Correction.Kind.REDACTION).exists():
        _let_read(conversation, chunk, DELETED, now)
    if conversation.reply_owed and _was_alone_unanswered(conversation, chunk):
        note_answered(conversation)
    record(conversation, "message_deleted", CONTACT, cause=f"message {chunk.position}", position=chunk.position)
    return True


def _was_alone_unanswered(conversation: Conversation, chunk: Chunk) -> bool:
    """Return whether the message came after our last one, and no other that is still there did."""
    ours = conversation.chunks.filter(role=Role.AI).order_by("-position").values_list("position", flat=True).first()
    left = conversation.chunks.filter(role__in=SPOKEN_BY_PEOPLE, position__gt=ours or 0)
    deleted = Activity.objects.filter(conversation=conversation, kind=ActivityKind.DELETION).values("chunk")
    return chunk.position > (ours or 0) and not left.exclude(pk__in=deleted).exists()


def _let_read(conversation: Conversation, chunk: Chunk, text: str, now: datetime) -> None:
    """Let the message read as the text, and drop a reply that is being written to what it was."""
    Correction.objects.create(
        chunk=chunk, kind=Correction.Kind.CORRECTION, text=text, reason=BY_PERSON, author_name="", created_at=now
    )
    Turn.objects.filter(conversation=conversation, status=Turn.Status.RUNNING).update(
        status=Turn.Status.ABANDONED, ended_at=now, code="edited"
    )
    note_changed_text(conversation, chunk.position, now)


_STORE = {ActivityKind.REACTION: _react, ActivityKind.EDIT: _edit, ActivityKind.DELETION: _delete}


# --- in the conversation ----------------------------------------------------------------------------------------------
def _store_in_conversation(account: ChannelAccount, happened: ReportedActivity, now: datetime) -> bool:
    found = open_conversation_with(account, happened.sender)
    if found is None:
        return placeholders.keep(account, happened, now) is not None
    with editing_if_there(found.pk, found.client_id) as conversation:
        newest = conversation.chunks.order_by("-position").first() if conversation and conversation.is_open else None
        if conversation is None or newest is None:
            return False
        if not _is_known(conversation, happened):
            activity_of(conversation, newest, happened, now).save()
            if key := dedupe_key(account.key, happened.message_id):
                is_first_time(account.client_id, key, now)  # delivered again, it opens no conversation
    return True
