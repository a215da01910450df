"""Batches: many events of one webhook, settled in few transactions.

One transaction for each event costs its commit. So messages are settled in chunks, people in the order of their
addresses, and each person's messages in the order of the payload. A chunk that fails is undone, and halved until what
is bad stands alone: that is left to the general form (`messages.settle`), and so are the person's messages after it.

A chunk waits for nobody's rows but for those that another transaction is just creating, in the same order. Everything
may be done twice: a message that is there already is a duplicate.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import groupby
from uuid import UUID

from django.db import InterfaceError, OperationalError, connection, transaction

from channels_out.contract import Adapter
from channels_out.events import Receipt, Unhandled
from conversations.models import ChannelAccount, Client
from conversations.services.contacts import contacts_bulk
from conversations.services.core import redaction, threads
from conversations.services.core.appending import NewChunk, append_each_by_address
from conversations.services.core.dedupe import seen_keys
from conversations.services.core.opening import open_each
from conversations.services.core.person import Person
from conversations.services.core.sql import column, rows
from conversations.services.core.statements import is_deadlock
from conversations.services.delivery import receipts
from conversations.services.inbound import unprocessed
from conversations.services.inbound.messages import InboundText, record_received
from conversations.services.media import arriving

log = logging.getLogger(__name__)

AT_LEAST = 10  # events; fewer are settled one by one
CHUNK = 200
SMALLEST = 4  # a chunk that is not halved any more
PLAN_ANEW = {8, 16, 32, 64}  # numbers of chunks, each with tables twice as large; a plan for fewer rows helps little

_OPEN = """
    SELECT contact_id FROM conversations
    WHERE client_id = $4 AND contact_id = ANY($1::uuid[]) AND channel || '' = $2 AND thread = ANY($3::text[])
      AND status IN ('active', 'stale')"""
_HELD = (
    _OPEN
    + """ AND status || '' = 'active' AND thread = $5 AND channel_account_id = $6
    FOR NO KEY UPDATE SKIP LOCKED"""
)

Numbered = Sequence[tuple[int, InboundText]]


class _NotAsExpectedError(Exception):
    """A message that another transaction changed something about meanwhile."""


# --- messages ---------------------------------------------------------------------------------------------------------
def settle_messages(client: Client, texts: Sequence[InboundText]) -> set[int]:
    """Store the messages of one account and return the indexes of those that are settled; duplicates are.

    Those left are for `messages.settle`, in their order.
    """
    if len(texts) < AT_LEAST:
        return set()
    return _Batch(client, texts).settle()


class _Batch:
    """The messages of one webhook to one account."""

    def __init__(self, client: Client, texts: Sequence[InboundText]) -> None:
        self.client = client
        rules = redaction.remember_rules(client)
        self.texts = [text.cleaned(rules) for text in texts]
        self.left = self._for_the_general_form()

    def settle(self) -> set[int]:
        order = sorted(range(len(self.texts)), key=lambda index: self.texts[index].person.address)
        settled: set[int] = set()
        for number, at in enumerate(range(0, len(order), CHUNK), start=1):
            if number in PLAN_ANEW:
                _plan_anew()
            settled |= self._chunk([(index, self.texts[index]) for index in order[at : at + CHUNK]])
        return settled

    def _for_the_general_form(self) -> set[str]:
        """The addresses of people of whom one message opts out or in, or who may be one person with another."""
        named: dict[str, set[frozenset[str]]] = {}
        for text in self.texts:
            together = _addresses(text.person)
            for address in together:
                named.setdefault(address, set()).add(together)
        mixed = {address for address, sets in named.items() if len(sets) > 1}
        return {
            text.person.address
            for text in self.texts
            if text.needs_general_form or text.dedupe_key is None or _addresses(text.person) & mixed
        }

    def _chunk(self, numbered: Numbered) -> set[int]:
        """The indexes of the messages that were settled; the people of the others are in `left`."""
        wanted = [(index, text) for index, text in numbered if text.person.address not in self.left]
        try:
            with transaction.atomic():
                settled, left = self._settle(wanted)
        except Exception as error:
            if _is_away(error):
                raise
            log.info("messages not settled together: messages=%d error=%s", len(wanted), type(error).__name__)
        else:
            self.left |= left
            return settled
        if len(wanted) <= SMALLEST:
            self.left |= {text.person.address for _, text in wanted}
            return set()
        middle = len(wanted) // 2
        return self._chunk(wanted[:middle]) | self._chunk(wanted[middle:])

    def _settle(self, numbered: Numbered) -> tuple[set[int], set[str]]:
        """The indexes of the messages that are settled, and the addresses of the people who are left."""
        seen = seen_keys(self.client.pk, [text.dedupe_key for _, text in numbered])
        settled = {index for index, text in numbered if text.dedupe_key in seen}
        people = [
            (address, list(said))
            for address, said in groupby(
                ((index, text) for index, text in numbered if index not in settled),
                key=lambda each: each[1].person.address,
            )
        ]
        if not people:
            return settled, set()
        channel = people[0][1][0][1].channel
        senders = [_with_first_name(said) for _, said in people]
        found = contacts_bulk.find_or_create_many(self.client, channel, senders)
        known = [each.contact_id for each in found if each and not each.is_new]
        text = people[0][1][0][1]
        own = [threads.own_thread(text.account)] if text.account else []
        where = (known, channel, ["", *own], self.client.pk)
        opened = column(_OPEN, *where)
        alone = {each for each in opened if opened.count(each) == 1}
        held = alone & set(column(_HELD, *where, text.thread, text.account.pk if text.account else None))
        left: set[str] = set()
        firsts: list[tuple[UUID, int, InboundText]] = []
        others: list[InboundText] = []
        for (address, said), sender in zip(people, found, strict=True):
            if sender is None or (sender.contact_id in opened and sender.contact_id not in held):
                left.add(address)
            else:
                first, *more = _each_once(text for _, text in said)
                if sender.contact_id in held:
                    more.insert(0, first)
                else:
                    firsts.append((sender.contact_id, sender.identity_id, first))
                others += more
                settled |= {index for index, _ in said}
        beginnings = [(contact_id, identity_id, first.as_chunk()) for contact_id, identity_id, first in firsts]
        written = [
            *open_each(self.client.pk, beginnings),
            *append_each_by_address(self.client.pk, [_to_append(text) for text in others]),
        ]
        if None in written:
            raise _NotAsExpectedError
        stored = [first for *_, first in firsts] + others
        self._write_media(stored, [each.chunk_id for each in written if each])
        record_received(self.client.pk, stored, written)
        return settled, left

    def _write_media(self, texts: Sequence[InboundText], chunk_ids: Sequence[int]) -> None:
        """Write the files of those of the messages that have any."""
        of_chunks = [(pk, text.media) for text, pk in zip(texts, chunk_ids, strict=True) if text.media]
        if of_chunks:
            account = texts[0].account
            arriving.write(self.client, account.pk if account else None, of_chunks, texts[0].at)


def _plan_anew() -> None:
    """Have PostgreSQL plan this connection's statements anew.

    A plan that was made for small tables may read all of a client's rows. By itself PostgreSQL plans anew only after an
    ANALYZE, which autovacuum begins once a minute.
    """
    with connection.cursor() as cursor:
        cursor.execute("DISCARD PLANS")


def _each_once(texts: Iterable[InboundText]) -> list[InboundText]:
    once: dict[UUID | None, InboundText] = {}
    for text in texts:
        once.setdefault(text.dedupe_key, text)
    return list(once.values())


def _to_append(text: InboundText) -> tuple[NewChunk, str, str | None, str, list[str]]:
    person = text.person
    return text.as_chunk(), person.address, person.phone, person.name, [address for _, address in person.aliases]


def _addresses(person: Person) -> frozenset[str]:
    return frozenset([person.address, *(address for _, address in person.aliases)])


def _with_first_name(said: Numbered) -> Person:
    """The person, as the first message that says their name describes them."""
    return next((text.person for _, text in said if text.person.name), said[0][1].person)


def _is_away(error: Exception) -> bool:
    """Return whether the database is away, so that the provider should deliver the webhook again."""
    return isinstance(error, OperationalError | InterfaceError) and not is_deadlock(error)


# --- receipts and other events ----------------------------------------------------------------------------------------
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended(about, 0))::text FROM unnest($1::text[]) AS t(about)"


def store_unmatched(adapter: Adapter, account: ChannelAccount, reported: Sequence[Receipt]) -> set[int]:
    """Store the receipts of messages that we do not know (yet), and return their indexes.

    Those left are for `receipts.apply`.
    """
    stored: set[int] = set()
    if len(reported) < AT_LEAST:
        return stored
    order = sorted(range(len(reported)), key=lambda index: reported[index].provider_message_id)
    for at in range(0, len(order), CHUNK):
        chunk = order[at : at + CHUNK]
        with transaction.atomic():
            # As `receipts.apply` does it for one: the commits of their sends may be just coming.
            rows(_LOCK, list(dict.fromkeys(reported[index].provider_message_id for index in chunk)))
            known = receipts.known_among(account, [reported[index] for index in chunk])
            unknown = [index for index, is_known in zip(chunk, known, strict=True) if not is_known]
            unprocessed.store_receipts(adapter, account, [reported[index] for index in unknown])
        stored |= set(unknown)
    return stored


def store_unhandled(adapter: Adapter, account: ChannelAccount | None, events: Sequence[Unhandled]) -> set[int]:
    """Store events of types that are not processed, and return the indexes of those that were stored."""
    stored: set[int] = set()
    if len(events) < AT_LEAST:
        return stored
    for at in range(0, len(events), CHUNK):
        chunk = events[at : at + CHUNK]
        try:
            with transaction.atomic():
                unprocessed.store_all_unhandled(adapter, account, chunk)
        except Exception as error:
            if _is_away(error):
                raise
            log.info("events not stored together: events=%d error=%s", len(chunk), type(error).__name__)
        else:
            stored |= set(range(at, at + len(chunk)))
    return stored
