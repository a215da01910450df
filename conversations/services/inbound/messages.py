"""What people say, settled: identity, contact, session, chunk, the reply owed. Once each, however often it arrives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.db import IntegrityError, transaction

from channels_out.opt_out import Wish, wish_of
from conversations.models import ChannelAccount, Chunk, Client, Contact, Conversation
from conversations.models.conversation import ConversationQuerySet
from conversations.services.contacts import contacts
from conversations.services.core import redaction
from conversations.services.core.append_sql import Appended, Said, append_by_address, append_by_key, dedupe_key
from conversations.services.core.appending import ACTIVITY_FIELDS, note_inbound, write_chunks
from conversations.services.core.errors import UnavailableError
from conversations.services.core.ledger import CONTACT
from conversations.services.core.opening import Opened, open_conversation, open_with_key
from conversations.services.core.sql import row
from conversations.services.delivery import opt_outs
from memory.redaction import Rules

TRIES = 20


@dataclass(frozen=True, slots=True)
class Arrival:
    """One message of a person, whichever door it came by.

    `who` says how to find the person. `message_id` '' means that it cannot be told from another of the same words.
    """

    channel: str
    who: contacts.Person
    text: str
    message_id: str
    at: datetime
    scope: str
    thread: str = ""
    intent: str = ""
    metadata: dict[str, Any] | None = None
    account: ChannelAccount | None = None

    @property
    def dedupe_key(self) -> UUID | None:
        """Under which it is found if it comes again."""
        return dedupe_key(self.scope, self.message_id)

    def cleaned(self, rules: Rules) -> Arrival:
        """It, without what the rules remove."""
        text = rules.clean(self.text)
        metadata = rules.clean_json(self.metadata) if self.metadata else self.metadata
        return self if (text, metadata) == (self.text, self.metadata) else replace(self, text=text, metadata=metadata)

    @property
    def wish(self) -> Wish | None:
        """Whether they want no more messages, or messages again."""
        return wish_of(self.channel, self.text, self.intent)

    def said(self) -> Said:
        """It, for the one statement."""
        return Said(
            channel=self.channel,
            thread=self.thread,
            at=self.at,
            text=self.text,
            message_id=self.message_id,
            dedupe_key=self.dedupe_key,
            metadata=orjson.dumps(self.metadata).decode() if self.metadata else "{}",
            channel_account_id=self.account.pk if self.account else None,
        )


@dataclass(frozen=True, slots=True)
class Settled:
    """Where the message is. `status` is the session's, or `deleted` if it was purged since (then no ids are left)."""

    conversation_id: UUID | None
    chunk_id: int | None
    position: int | None
    created: bool
    duplicate: bool
    is_guest: bool
    status: str


def settle_with_key(arrival: Arrival, key_hash: bytes, client_id: UUID) -> tuple[Settled, int] | None:
    """Settle the two common cases by statements that check the key as well: one for a message to an active session,
    one more for one that opens a session. Returns what is settled and the key's id.

    None: nothing was done, settle() it after looking at the key.
    """
    if arrival.wish:
        return None
    person, rules = arrival.who, redaction.last_seen(client_id)
    said = arrival.cleaned(rules).said()
    try:
        appended = append_by_key(said, key_hash, client_id, person.user_id, person.phone, person.name, rules)
        if appended:
            return _appended(appended), appended.key_id or 0
        if opened := open_with_key(said, person, key_hash, client_id, rules):
            return _opened(opened), opened.key_id or 0
    except IntegrityError:
        pass  # somebody else was first: settle() looks again
    return None


def _opened(opened: Opened) -> Settled:
    return Settled(
        conversation_id=opened.conversation_id,
        chunk_id=opened.chunk_id,
        position=opened.position,
        created=True,
        duplicate=False,
        is_guest=opened.is_guest,
        status="active",
    )


def append_from(account: ChannelAccount, version: str, arrival: Arrival) -> bool:
    """The message of a known person is in their active session, if the account and its client are still as they were
    read. False: nothing was done, settle() it after reading the account again."""
    try:
        arrival = arrival.cleaned(redaction.rules_of(account.client))
        return not arrival.wish and _append(account.client_id, arrival, version) is not None
    except IntegrityError:
        return False  # somebody else was first: settle() looks again


def settle(client: Client, arrival: Arrival) -> Settled:
    """The message is in the person's open session, which is opened if there is none; a message seen before is where it
    was, and changes nothing.

    Raises UnavailableError if it cannot get through the crowd.
    """
    arrival = arrival.cleaned(redaction.note(client))
    wish = arrival.wish
    for _ in range(TRIES):
        try:
            if arrival.account and not wish and (appended := _append(client.pk, arrival)):
                return _appended(appended)
            with transaction.atomic():
                settled = _settle(client, arrival)
                if wish and settled.conversation_id and not settled.duplicate:
                    opt_outs.heed(settled.conversation_id, wish, arrival.at)
                return settled
        except IntegrityError:
            continue  # somebody else was first: the same message, the same new contact or session. Look again.
    raise UnavailableError("Too much happens in this session at once; send it again.")


def _append(client_id: UUID, arrival: Arrival, version: str | None = None) -> Appended | None:
    person = arrival.who
    aliases = [address for _, address in person.aliases]
    return append_by_address(arrival.said(), client_id, person.address, person.phone, person.name, aliases, version)


def _appended(appended: Appended) -> Settled:
    return Settled(
        conversation_id=appended.conversation_id,
        chunk_id=appended.chunk_id,
        position=appended.position,
        created=False,
        duplicate=False,
        is_guest=appended.is_guest,
        status="active",
    )


def _settle(client: Client, arrival: Arrival) -> Settled:
    if seen := _seen_before(arrival.dedupe_key):
        return seen
    contact, device = contacts.find_or_create(client, arrival.channel, arrival.who, arrival.message_id)
    if arrival.wish:
        contact = Contact.objects.select_for_update(no_key=True).get(pk=contact.pk)  # before its session, as everywhere
    conversation = _locked_open(contact, arrival)
    if conversation is None:
        device_id = device.pk if device else None
        return _opened(open_conversation(client.pk, contact.pk, arrival.said(), actor=CONTACT, device_id=device_id))
    conversation.client, conversation.contact = client, contact
    if arrival.account:
        conversation.channel_account = arrival.account
    conversation.device = device or conversation.device
    conversation.is_guest = contact.is_guest
    note_inbound(conversation, arrival.at)
    [chunk] = write_chunks(
        conversation,
        [(arrival.said().role, arrival.text)],
        arrival.at,
        message_id=arrival.message_id,
        dedupe_key=arrival.dedupe_key,
        metadata=arrival.metadata or {},
    )
    conversation.save(update_fields=[*ACTIVITY_FIELDS, "channel_account", "device", "is_guest"])
    return _as_settled(conversation, chunk)


def _seen_before(dedupe_key: UUID | None) -> Settled | None:
    """The first answer to this message: one look, so that a purge between two cannot hide it."""
    if dedupe_key is None:
        return None
    found = row(
        """
        SELECT c.id, c.conversation_id, c.position, s.is_guest, s.status
        FROM conversation_chunks c JOIN conversations s ON s.id = c.conversation_id WHERE c.dedupe_key = $1
        UNION ALL
        SELECT NULL, NULL, NULL, true, 'deleted' FROM message_tombstones WHERE dedupe_key = $1
        """,
        dedupe_key,
    )
    if found is None:
        return None
    chunk_id, conversation_id, position, is_guest, status = found
    return Settled(
        conversation_id=conversation_id,
        chunk_id=chunk_id,
        position=position,
        created=False,
        duplicate=True,
        is_guest=is_guest,
        status=status,
    )


def _locked_open(contact: Contact, arrival: Arrival) -> Conversation | None:
    found: ConversationQuerySet = Conversation.objects.open().select_for_update(no_key=True)
    return found.filter(contact=contact, channel=arrival.channel, thread=arrival.thread).first()


def _as_settled(conversation: Conversation, chunk: Chunk) -> Settled:
    return Settled(
        conversation_id=conversation.pk,
        chunk_id=chunk.pk,
        position=chunk.position,
        created=False,
        duplicate=False,
        is_guest=conversation.is_guest,
        status=conversation.status,
    )
