"""Inbound messages: contact, conversation, chunk and the reply owed, once for each message however often it arrives.

settle_with_key   own JSON: append, else open, else find it again; one statement each, which check the API key too
append_from       a provider's message of an account in the cache: one statement
settle            everything else: the general form, by the ORM
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

import orjson
from django.db import IntegrityError, OperationalError, transaction

from channels_out.choices import chosen, number_in
from channels_out.events import MediaReference
from channels_out.opt_out import ConsentChange, HelpRequest, consent_change_in, help_request_in
from conversations import traces
from conversations.models import ChannelAccount, Client, Contact, Conversation, Role, Scope
from conversations.services.contacts import contacts
from conversations.services.core import key_sql, redaction, spans, threads
from conversations.services.core.appending import (
    Appended,
    NewChunk,
    append_by_address,
    append_by_key,
    append_inbound,
    note_answered,
)
from conversations.services.core.dedupe import dedupe_key
from conversations.services.core.errors import UnavailableError
from conversations.services.core.ledger import CONTACT, record
from conversations.services.core.locking import editing, saving
from conversations.services.core.opening import open_conversation, open_with_key
from conversations.services.core.person import Person
from conversations.services.core.sql import row
from conversations.services.core.statements import THIS_THREAD, Statements, finish, is_deadlock
from conversations.services.delivery import opt_outs, outbox
from conversations.services.media import arriving
from conversations.services.transitions import ratings
from memory.redaction import RedactionRules

TRIES = 20
FIRST_POSITION = 3  # of a person's message, after the system and memory chunks


class InboundText(NamedTuple):
    """One message of a person, from any channel.

    `message_id` '' means that it cannot be told from another of the same words. `scope` is where its sender keeps
    message ids unique. `intent` is the provider's word for a wish to opt out or in. If `is_answered`, a reply is owed.
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
    media: tuple[MediaReference, ...] = ()
    is_answered: bool = True

    @property
    def dedupe_key(self) -> UUID | None:
        """The key under which the message is found when it is delivered again."""
        return dedupe_key(self.scope, self.message_id)

    @property
    def wish(self) -> ConsentChange | HelpRequest | None:
        """The person's wish to get no more messages, or messages again, or a carrier's HELP."""
        return consent_change_in(self.channel, self.text, self.intent) or help_request_in(
            self.channel, self.text, self.intent
        )

    @property
    def is_number(self) -> bool:
        """Return whether the text is a number, which may choose one of the choices that were offered by numbers."""
        return number_in(self.text) is not None

    @property
    def may_rate(self) -> bool:
        """Return whether the message may answer the question about satisfaction: a choice that names it, or a thumb."""
        return ratings.pressed(self.metadata) is not None or ratings.is_thumb(self.text)

    @property
    def needs_general_form(self) -> bool:
        """Return whether the statements for the usual message do not do: they know neither wishes, choices nor ratings,
        and they owe a reply."""
        return self.wish is not None or self.is_number or self.may_rate or not self.is_answered

    def cleaned(self, rules: RedactionRules) -> InboundText:
        """Return the message without what the rules remove."""
        text = rules.clean(self.text)
        metadata = rules.clean_json(self.metadata) if self.metadata else self.metadata
        return self if (text, metadata) == (self.text, self.metadata) else self._replace(text=text, metadata=metadata)

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
    if message.needs_general_form:
        return None
    person, rules = message.person, redaction.last_known_rules(client_id)
    # A client's own patterns may take long; an event loop must not.
    cleaned = await statements.in_thread(message.cleaned, rules) if rules.patterns else message.cleaned(rules)
    chunk = cleaned.as_chunk()
    try:
        if appended := await append_by_key(statements, chunk, key_hash, client_id, person, rules):
            _record(client_id, message, appended)
            return _result(appended), appended.key_id or 0
        if opened := await open_with_key(statements, chunk, key_hash, client_id, person, rules):
            _record(client_id, message, opened)
            return _result(opened, created=True), opened.key_id or 0
    except IntegrityError:
        pass  # another request was first: what it stored is found next, or by settle()
    return await _seen_with_key(statements, message.dedupe_key, key_hash, client_id)


async def append_from(statements: Statements, account: ChannelAccount, version: str, message: InboundText) -> bool:
    """Append a provider's message to the active conversation of a known person and return whether that was possible.

    version: ACCOUNT_VERSION of the account and client as they were read; nothing is done if they changed since

    Raises IntegrityError where the same message was appended at the same moment.
    """
    if message.media:
        return False
    message = message.cleaned(redaction.rules_of(account.client))
    if message.needs_general_form:
        return False
    appended = await _append(statements, account.client_id, message, version)
    if appended:
        _record(account.client_id, message, appended)
    return appended is not None


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
            may_append = not (message.needs_general_form or append_tried or message.media)
            if may_append and (appended := _append_now(client, message)):
                _record(client.pk, message, appended)
                return _result(appended)
            with transaction.atomic():
                appended = _append_now(client, message) if message.media and not message.needs_general_form else None
                if appended:
                    record_received(client.pk, [message], [appended])
                settled = _result(appended) if appended else _settle(client, message, is_new=is_new)
                if message.media and settled.chunk_id and not settled.duplicate:
                    account_id = message.account.pk if message.account else None
                    arriving.write(client, account_id, [(settled.chunk_id, message.media)], message.at)
                if wish and settled.conversation_id and not settled.duplicate:
                    opt_outs.apply(client.pk, settled.conversation_id, wish, message.at)
                return settled
        except (IntegrityError, OperationalError) as error:
            if isinstance(error, OperationalError) and not is_deadlock(error):
                raise
            # Another request stored, or stores, the same message, contact or conversation: look again.
            is_new = append_tried = False
    raise UnavailableError("Too many requests change this conversation at once. Send the message again.")


def _append_now(client: Client, message: InboundText) -> Appended | None:
    return finish(_append(THIS_THREAD, client.pk, message)) if message.account else None


def is_stored(client_id: UUID, message: InboundText) -> bool:
    """Return whether the message is stored, or was and left a tombstone."""
    return _seen_before(client_id, message.dedupe_key) is not None


async def _append(
    statements: Statements, client_id: UUID, message: InboundText, version: str | None = None
) -> Appended | None:
    person = message.person
    aliases = [address for _, address in person.aliases]
    who = (client_id, person.address, person.phone, person.name, aliases)
    return await append_by_address(statements, message.as_chunk(), *who, version)


def _settle(client: Client, message: InboundText, *, is_new: bool = False) -> InboundResult:
    if not is_new and (seen := _seen_before(client.pk, message.dedupe_key)):
        return seen
    contact, device = contacts.find_or_create(client, message.channel, message.person, message.message_id)
    if message.wish:
        locked = Contact.objects.select_for_update(no_key=True)  # see core/locking.py
        contact = locked.get(client=client, pk=contact.pk)
    if rated := ratings.take_press(client.pk, contact.pk, message.as_chunk()):
        return _rated(client, message, rated)
    conversation, message = _locked_open(contact, message)
    if conversation is None and (rated := _rating_in(contact, message)):
        return _rated(client, message, rated)
    if conversation is None:
        device_id = device.pk if device else None
        opened = open_conversation(client.pk, contact.pk, message.as_chunk(), actor=CONTACT, device_id=device_id)
        if not message.is_answered:
            with editing(opened.conversation_id, client.pk) as conversation:
                note_answered(conversation)
        record_received(client.pk, [message], [opened])
        return _result(opened, created=True)
    conversation.client, conversation.contact = client, contact
    with saving(conversation):
        if message.account:
            _note_account(conversation, message.account)
        conversation.device = device or conversation.device
        # The contact was read before the lock: meanwhile a message on another channel may have named the guest.
        conversation.is_guest = conversation.is_guest and contact.is_guest
        chunk = with_choice(conversation, message).as_chunk()
        appended = append_inbound(conversation, chunk, answer=message.is_answered)
    record_received(client.pk, [message], [appended])
    return _result(appended)


def _rating_in(contact: Contact, message: InboundText) -> ratings.Taken | None:
    """Return the rating, or the reason for a low one, that the message of a person without a conversation is."""
    chunk = message.as_chunk()
    if rated := ratings.take_number(contact.client_id, contact.pk, chunk):
        return rated
    return None if message.wish or message.media else ratings.take_comment(contact, chunk)


def _rated(client: Client, message: InboundText, rated: ratings.Taken) -> InboundResult:
    """Return the place of a message that rates an ended conversation, which stays as it is."""
    record_received(client.pk, [message], [rated.appended])
    return replace(_result(rated.appended), status=rated.status)


def _locked_open(contact: Contact, message: InboundText) -> tuple[Conversation | None, InboundText]:
    """Return the open conversation that the message belongs to, locked, or None, and the message with its thread."""
    account = message.account
    if account is None or message.channel in threads.OTHER_THREADS:
        found = Conversation.objects.of(contact.client_id).open().select_for_update(no_key=True)
        return found.filter(contact=contact, channel=message.channel, thread=message.thread).first(), message
    conversation = threads.open_over(account).filter(contact=contact).select_for_update(no_key=True).first()
    if conversation is None or threads.takes(conversation, account):
        return conversation, message
    return None, message._replace(thread=threads.own_thread(account))


def with_choice(conversation: Conversation, message: InboundText) -> InboundText:
    """Return the message, with the choice that its number chooses in the metadata.

    The choices are those of the newest message of ours, if it offers any.
    """
    number = number_in(message.text)
    if number is None:
        return message
    newest = conversation.chunks.filter(role=Role.AI).order_by("-position").first()
    choices = outbox.choices_of(newest) if newest else None
    found = chosen(choices, number) if choices else None
    if found is None:
        return message
    choice = {"choice": number, "payload": found.id, "title": found.title}
    return message._replace(metadata={**(message.metadata or {}), **choice})


def _note_account(conversation: Conversation, account: ChannelAccount) -> None:
    """Let the account that was written to answer from now on."""
    before = conversation.channel_account_id
    conversation.channel_account = account
    if before not in (None, account.pk):
        record(conversation, "account_changed", CONTACT, cause=str(account)[:200], channel_account_id=str(account.pk))


def confirmed(client_id: UUID, returned: tuple[Any, ...]) -> InboundResult | None:
    """Return the place of a message of which a statement returned this row before its connection was lost.

    None if it is not there. A row that is seen is on disk: its commit waited for that.
    """
    appended = Appended(*returned)
    found = row(_IS_THERE, appended.chunk_id, client_id)
    return _result(appended, created=appended.position == FIRST_POSITION) if found else None


# --- messages that are delivered again --------------------------------------------------------------------------------
# The place of message $1: one look, so that a purge between two cannot hide it.
_PLACE = """
    SELECT c.id, c.conversation_id, c.position, s.is_guest, s.status
    FROM conversation_chunks c JOIN conversations s ON s.client_id = c.client_id AND s.id = c.conversation_id
    WHERE c.client_id = {client} AND c.dedupe_key = $1
    UNION ALL
    SELECT NULL, NULL, NULL, true, 'deleted' FROM message_tombstones WHERE client_id = {client} AND dedupe_key = $1"""
_IS_THERE = "SELECT 1 FROM conversation_chunks WHERE client_id = $2 AND id = $1"
_PLACE_OF_CLIENT = _PLACE.format(client="$2")
_PLACE_WITH_KEY = f"""
    SELECT seen.*, k.id
    FROM ({_PLACE.format(client="$3")}) seen, api_keys k JOIN clients c ON c.id = k.client_id AND c.is_active
    WHERE k.key_hash = $2 AND {key_sql.may(Scope.MESSAGES_WRITE)} AND c.id = $3"""


def _seen_before(client_id: UUID, key: UUID | None) -> InboundResult | None:
    """The first result for this message."""
    found = row(_PLACE_OF_CLIENT, key, client_id) if key else None
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


def record_received(client_id: UUID, messages: Sequence[InboundText], stored: Sequence[Appended | None]) -> None:
    """Record the spans of messages that are stored in this transaction, once it is committed."""
    if traces.is_on():
        for message, place in zip(messages, stored, strict=True):
            if place:
                transaction.on_commit(partial(_record, client_id, message, place), robust=True)


def _record(client_id: UUID, message: InboundText, place: Appended) -> None:
    about = (client_id, place.conversation_id, place.sequence, place.position)
    spans.received(*about, message.channel, message.at)


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
