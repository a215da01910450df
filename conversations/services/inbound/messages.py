"""Inbound messages: contact, conversation, chunk and the reply owed, once for each message however often it arrives.

settle_with_key   own JSON: append, else open, else find it again; one statement each, which check the API key too
append_from       a provider's message of an account in the cache: one statement
settle            everything else: the general form, by the ORM
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from django.db import IntegrityError, transaction

from channels_out.opt_out import ConsentChange, consent_change_in
from conversations.models import ChannelAccount, Client, Contact, Conversation
from conversations.services.contacts import contacts
from conversations.services.core import redaction
from conversations.services.core.appending import (
    Appended,
    NewChunk,
    append_by_address,
    append_by_key,
    append_inbound,
)
from conversations.services.core.dedupe import dedupe_key
from conversations.services.core.errors import UnavailableError
from conversations.services.core.ledger import CONTACT
from conversations.services.core.locking import saving
from conversations.services.core.opening import open_conversation, open_with_key
from conversations.services.core.person import Person
from conversations.services.core.sql import row
from conversations.services.core.statements import THIS_THREAD, Statements, finish
from conversations.services.delivery import opt_outs
from memory.redaction import RedactionRules

TRIES = 20
FIRST_POSITION = 3  # of a person's message, after the system and memory chunks


@dataclass(frozen=True, slots=True)
class InboundText:
    """One message of a person, from any channel.

    `message_id` '' means that it cannot be told from another of the same words. `scope` is where its sender keeps
    message ids unique. `intent` is the provider's word for a wish to opt out or in.
    """

    channel: str
    person: Person
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
        """The key under which the message is found when it is delivered again."""
        return dedupe_key(self.scope, self.message_id)

    @property
    def wish(self) -> ConsentChange | None:
        """The person's wish to get no more messages, or messages again."""
        return consent_change_in(self.channel, self.text, self.intent)

    def cleaned(self, rules: RedactionRules) -> InboundText:
        """Return the message without what the rules remove."""
        text = rules.clean(self.text)
        metadata = rules.clean_json(self.metadata) if self.metadata else self.metadata
        return self if (text, metadata) == (self.text, self.metadata) else replace(self, text=text, metadata=metadata)

    def as_chunk(self) -> NewChunk:
        """Return the message as the chunk that it becomes."""
        return NewChunk(
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
class InboundResult:
    """The place of a message. `status` is the conversation's, or `deleted` if it was purged since; then all ids are
    None."""

    conversation_id: UUID | None
    chunk_id: int | None
    position: int | None
    created: bool
    duplicate: bool
    is_guest: bool
    status: str


async def settle_with_key(
    statements: Statements, message: InboundText, key_hash: bytes, client_id: UUID
) -> tuple[InboundResult, int] | None:
    """Settle the common cases by statements that check the API key as well, and return the result and the key's id.

    One statement appends to an active conversation, one more opens a conversation, one more finds a message that is
    delivered again. Returns None where none of them applies; then check the key and call `settle(…, is_new=True)`.
    """
    if message.wish:
        return None
    person, rules = message.person, redaction.last_known_rules(client_id)
    # A client's own patterns may take long; an event loop must not.
    cleaned = await statements.in_thread(message.cleaned, rules) if rules.patterns else message.cleaned(rules)
    chunk = cleaned.as_chunk()
    try:
        if appended := await append_by_key(statements, chunk, key_hash, client_id, person, rules):
            return _result(appended), appended.key_id or 0
        if opened := await open_with_key(statements, chunk, key_hash, client_id, person, rules):
            return _result(opened, created=True), opened.key_id or 0
    except IntegrityError:
        pass  # another request was first: what it stored is found next, or by settle()
    return await _seen_with_key(statements, message.dedupe_key, key_hash, client_id)


async def append_from(statements: Statements, account: ChannelAccount, version: str, message: InboundText) -> bool:
    """Append a provider's message to the active conversation of a known person and return whether that was possible.

    version: ACCOUNT_VERSION of the account and client as they were read; nothing is done if they changed since

    Raises IntegrityError where the same message was appended at the same moment.
    """
    message = message.cleaned(redaction.rules_of(account.client))
    return not message.wish and await _append(statements, account.client_id, message, version) is not None


def settle(client: Client, message: InboundText, *, is_new: bool = False, append_tried: bool = False) -> InboundResult:
    """Store the message in the person's open conversation, or open one, and return its place.

    A message that was seen before stays where it is, and nothing changes.

    is_new: the caller has just looked for the message and did not find it
    append_tried: the caller has just tried `append_from` with the client as it is now

    Raises UnavailableError where other requests always come first.
    """
    message = message.cleaned(redaction.remember_rules(client))
    wish = message.wish
    for _ in range(TRIES):
        try:
            if (
                message.account
                and not (wish or append_tried)
                and (appended := finish(_append(THIS_THREAD, client.pk, message)))
            ):
                return _result(appended)
            with transaction.atomic():
                settled = _settle(client, message, is_new=is_new)
                if wish and settled.conversation_id and not settled.duplicate:
                    opt_outs.apply(settled.conversation_id, wish, message.at)
                return settled
        except IntegrityError:
            is_new = append_tried = (
                False  # another request stored the same message, contact or conversation: look again
            )
    raise UnavailableError("Too many requests change this conversation at once. Send the message again.")


def is_stored(message: InboundText) -> bool:
    """Return whether the message is stored, or was and left a tombstone."""
    return _seen_before(message.dedupe_key) is not None


async def _append(
    statements: Statements, client_id: UUID, message: InboundText, version: str | None = None
) -> Appended | None:
    person = message.person
    aliases = [address for _, address in person.aliases]
    who = (client_id, person.address, person.phone, person.name, aliases)
    return await append_by_address(statements, message.as_chunk(), *who, version)


def _settle(client: Client, message: InboundText, *, is_new: bool = False) -> InboundResult:
    if not is_new and (seen := _seen_before(message.dedupe_key)):
        return seen
    contact, device = contacts.find_or_create(client, message.channel, message.person, message.message_id)
    if message.wish:
        contact = Contact.objects.select_for_update(no_key=True).get(pk=contact.pk)  # see core/locking.py
    conversation = _locked_open(contact, message)
    if conversation is None:
        device_id = device.pk if device else None
        opened = open_conversation(client.pk, contact.pk, message.as_chunk(), actor=CONTACT, device_id=device_id)
        return _result(opened, created=True)
    conversation.client, conversation.contact = client, contact
    with saving(conversation):
        if message.account:
            conversation.channel_account = message.account
        conversation.device = device or conversation.device
        conversation.is_guest = contact.is_guest
        appended = append_inbound(conversation, message.as_chunk())
    return _result(appended)


def _locked_open(contact: Contact, message: InboundText) -> Conversation | None:
    found = Conversation.objects.open().select_for_update(no_key=True)
    return found.filter(contact=contact, channel=message.channel, thread=message.thread).first()


def confirmed(returned: tuple[Any, ...]) -> InboundResult | None:
    """Return the place of a message of which a statement returned this row before its connection was lost.

    What the statement wrote is on disk then. None if it is not there.
    """
    appended = Appended(*returned)
    found = row(_IS_THERE, appended.chunk_id)
    return _result(appended, created=appended.position == FIRST_POSITION) if found else None


# --- messages that are delivered again --------------------------------------------------------------------------------
# The place of message $1: one look, so that a purge between two cannot hide it.
_PLACE = """
    SELECT c.id, c.conversation_id, c.position, s.is_guest, s.status
    FROM conversation_chunks c JOIN conversations s ON s.id = c.conversation_id WHERE c.dedupe_key = $1
    UNION ALL
    SELECT NULL, NULL, NULL, true, 'deleted' FROM message_tombstones WHERE dedupe_key = $1"""
# Is chunk $1 there? All that was committed before is written to disk.
_IS_THERE = """
    SELECT pg_logical_emit_message(false, '', '', true) FROM conversation_chunks WHERE id = $1"""
_PLACE_WITH_KEY = f"""
    SELECT seen.*, k.id FROM ({_PLACE}) seen, api_keys k JOIN clients c ON c.id = k.client_id AND c.is_active
    WHERE k.key_hash = $2 AND k.revoked_at IS NULL AND c.id = $3"""


def _seen_before(key: UUID | None) -> InboundResult | None:
    """The first result for this message."""
    found = row(_PLACE, key) if key else None
    return _as_before(*found) if found else None


async def _seen_with_key(
    statements: Statements, key: UUID | None, key_hash: bytes, client_id: UUID
) -> tuple[InboundResult, int] | None:
    """The same, with the key's id, where the API key is the client's. The message is on disk when this returns."""
    found = await statements.row(_PLACE_WITH_KEY, key, key_hash, client_id) if key else None
    return (_as_before(*found[:-1]), found[-1]) if found else None


def _as_before(
    chunk_id: int | None, conversation_id: UUID | None, position: int | None, is_guest: bool, status: str
) -> InboundResult:
    return InboundResult(
        conversation_id=conversation_id,
        chunk_id=chunk_id,
        position=position,
        created=False,
        duplicate=True,
        is_guest=is_guest,
        status=status,
    )


def _result(appended: Appended, *, created: bool = False) -> InboundResult:
    return InboundResult(
        conversation_id=appended.conversation_id,
        chunk_id=appended.chunk_id,
        position=appended.position,
        created=created,
        duplicate=False,
        is_guest=appended.is_guest,
        status="active",
    )
