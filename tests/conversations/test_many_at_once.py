"""People who write at the same moment: one statement stores their messages, each where it belongs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection

from channels_out.kinds import AddressKind
from conversations.models import ChannelAccount, Chunk, Client, ContactIdentity, Conversation
from conversations.services.core import redaction
from conversations.services.core.batches import Batches
from conversations.services.core.person import Person
from conversations.services.core.sql import close_connections
from conversations.services.inbound import messages
from conversations.services.inbound.messages import InboundText
from conversations.services.tenants import account_cache, api_keys
from tests import factories

pytestmark = pytest.mark.django_db(transaction=True)

NOW = datetime(2026, 12, 2, 12, 0, tzinfo=UTC)
PEOPLE = 30


def message_of(person: int, number: int, channel: str = "sms") -> InboundText:
    return InboundText(
        channel=channel,
        person=Person(user_id=f"person-{person}", name=f"Ann “{person}”"),
        text=f"{number} from person {person}: é \\ \" '",
        message_id=f"{person}-{number}",
        at=NOW,
        scope=f"{channel}-{person}",
        metadata={"n": number},
    )


def settled_at_once(shop: Client, key: str, sent: list[InboundText]) -> list[Any]:
    """Return what becomes of messages that arrive in one turn of the loop."""
    redaction.remember_rules(shop)
    return at_once(lambda where, each: messages.settle_with_key(where, each, api_keys.key_hash(key), shop.pk), sent)


def at_once(act: Callable[[Batches, InboundText], Coroutine[Any, Any, Any]], sent: list[InboundText]) -> list[Any]:
    """Return what `act` returns for each message, or its error, where all begin in one turn of the loop."""

    async def main() -> list[Any]:
        open_batches = Batches(threads)
        asked = [act(open_batches, each) for each in sent]
        try:
            return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 60)
        finally:
            open_batches.close()

    with ThreadPoolExecutor(4) as threads:
        try:
            return asyncio.run(main())
        finally:
            close_connections(threads, 4, 10)


def said() -> list[tuple[str, int, str, Any]]:
    """Return who said what, by person and position."""
    said_by_people = Chunk.objects.filter(role="user").order_by("conversation__contact__user_id", "position")
    return list(said_by_people.values_list("conversation__contact__user_id", "position", "content", "metadata"))


def statements() -> int:
    """Return how many statements have written what people said."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(DISTINCT xmin::text || ' ' || cmin::text) FROM conversation_chunks WHERE role = 'user'"
        )
        [(count,)] = cursor.fetchall()
        return int(count)


def test_each_new_person_and_each_known_one_gets_their_own_message_by_few_statements(shop: Client, key: str) -> None:
    opened = settled_at_once(shop, key, [message_of(person, 1) for person in range(PEOPLE)])
    assert statements() <= 2  # of a batch of at most 32, and of one that was sent before the others came
    appended = settled_at_once(shop, key, [message_of(person, 2) for person in range(PEOPLE)])
    assert statements() <= 4

    of_person = {user_id: (pk, last) for user_id, pk, last in Conversation.objects.values_list(*_PLACE)}
    for results, position, created in ((opened, 3, True), (appended, 4, False)):
        for person, (result, _) in enumerate(results):
            assert (result.conversation_id, 4) == of_person[f"person-{person}"]
            assert (result.position, result.created, result.duplicate) == (position, created, False)
            assert Chunk.objects.get(pk=result.chunk_id).content == message_of(person, position - 2).text
    assert said() == sorted(
        (f"person-{person}", number + 2, message_of(person, number).text, {"n": number})
        for person in range(PEOPLE)
        for number in (1, 2)
    )


_PLACE = ("contact__user_id", "pk", "last_position")


def test_one_message_that_arrives_three_times_at_once_is_stored_once(shop: Client, key: str) -> None:
    settled_at_once(shop, key, [message_of(person, 1) for person in range(8)])
    for number in (2, 3):
        sent = [message_of(person, number) for person in range(8)] * 3
        settled = [result for result, _ in settled_at_once(shop, key, sent)]
        assert [each.duplicate for each in settled].count(False) == 8
        assert {(each.conversation_id, each.position) for each in settled[:8]} == {
            (each.conversation_id, number + 2) for each in settled[8:]
        }
    assert len(said()) == 8 * 3
    assert set(Conversation.objects.values_list("last_position", "inbound_sequence")) == {(5, 3)}


def test_one_person_who_begins_on_two_channels_at_once_is_one_contact(shop: Client, key: str) -> None:
    sent = [message_of(person, 1, channel) for person in range(4) for channel in ("sms", "whatsapp")]
    settled = settled_at_once(shop, key, sent)
    assert [type(each) for each in settled] == [tuple] * 8
    assert len(said()) == 8
    assert Conversation.objects.count() == 8
    assert shop.contacts.count() == 4


def test_one_of_many_that_the_database_refuses_is_refused_alone(shop: Client, key: str) -> None:
    """A thread's name that is none breaks a check of the table."""
    sent = [message_of(person, 1) for person in range(6)]
    settled_at_once(shop, key, sent[:3])
    broken = message_of(9, 1)
    broken = InboundText(**{**{name: getattr(broken, name) for name in broken._fields}, "thread": "not a thread"})
    *good, bad = settled_at_once(shop, key, [*[message_of(person, 2) for person in range(6)], broken])
    assert [type(each) for each in good] == [tuple] * 6
    assert not isinstance(bad, tuple)
    assert {each[0] for each in said()} == {f"person-{person}" for person in range(6)}
    assert len(said()) == 3 + 6


def test_two_new_people_who_tell_one_phone_at_once_are_noted_as_perhaps_one(shop: Client, key: str) -> None:
    """However it is written: the first number is how Mexico's mobiles were written before."""
    sent = []
    for person, phone in enumerate(("+5215512345678", "+525512345678")):
        known = message_of(person, 1)
        fields = {name: getattr(known, name) for name in known._fields}
        sent.append(InboundText(**{**fields, "person": Person(user_id=f"person-{person}", phone=phone)}))
    first, second = settled_at_once(shop, key, sent)
    assert isinstance(first, tuple)
    assert second is None  # for the general form, which looks for others with the phone
    assert shop.contacts.count() == 1


def test_one_person_who_writes_from_two_addresses_at_once_has_both_messages_in_one_conversation(shop: Client) -> None:
    account = ChannelAccount.objects.select_related("client").annotate(version=account_cache.VERSION)
    known: Any = account.get(client=shop, channel="sms")
    contact = factories.ContactFactory(client=shop, user_id="ann")
    factories.ConversationFactory(client=shop, contact=contact, channel="sms", last_position=2)
    sent = []
    for number, address in enumerate(("51999000001", "51999000002"), start=1):
        ContactIdentity.objects.create(contact=contact, client=shop, channel="sms", kind="phone", address=address)
        message = message_of(0, number)
        fields = {name: getattr(message, name) for name in message._fields}
        sender = Person(address=address, kind=AddressKind.PHONE)
        sent.append(InboundText(**{**fields, "person": sender, "account": known, "scope": str(known.pk)}))

    appended = at_once(lambda statements, each: messages.append_from(statements, known, known.version, each), sent)
    assert appended == [True, False]  # the second is for the general form
    settled = messages.settle(shop, sent[1], append_tried=True)
    assert (settled.position, settled.duplicate) == (4, False)
    assert [content for _, _, content, _ in said()] == [each.text for each in sent]
