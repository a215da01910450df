"""Conversations that are opened: who answers, what is known at the beginning, and which rows are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import IntegrityError, transaction

from conversations.models import (
    Assistant,
    ChannelAccount,
    Chunk,
    Client,
    Contact,
    ContactIdentity,
    Conversation,
    ConversationEvent,
    MessageTombstone,
)
from conversations.services.core import opening
from conversations.services.core.appending import Appended, NewChunk
from conversations.services.core.ledger import CONTACT, Actor
from memory.context import DEFAULT_SYSTEM_PROMPT
from memory.models import Memory
from tests import factories

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)
PHONE, ADDRESS = "+51999999999", "51999999999"
ENDED = {"status": "closed", "ended_at": NOW, "ended_by": "user", "reply_owed": False}
GRACE = Actor("staff", "grace")


@pytest.fixture
def contact(shop: Client) -> Contact:
    found: Contact = factories.ContactFactory(client=shop, user_id="ann", phone=PHONE, name="Ann", is_guest=False)
    ContactIdentity.objects.create(contact=found, client=shop, channel="sms", kind="phone", address=ADDRESS)
    return found


def chunk(**more: Any) -> NewChunk:
    usual = {"channel": "sms", "thread": "", "at": NOW, "text": "Hello", "message_id": "m1", "dedupe_key": UUID(int=1)}
    return NewChunk(**{**usual, **more})


# --- what is opened ---------------------------------------------------------------------------------------------------
def opened(contact: Contact, new: NewChunk | None = None, **more: Any) -> Conversation:
    said = new or chunk(dedupe_key=None)
    appended = opening.open_conversation(contact.client_id, contact.pk, said, **{"actor": CONTACT, **more})
    return Conversation.objects.get(pk=appended.conversation_id)


def chunks_of(conversation: Conversation) -> list[tuple[Any, ...]]:
    return list(conversation.chunks.order_by("position").values_list("position", "role", "content", "message_id"))


def test_a_first_message_is_the_third_chunk_and_is_owed_a_reply(contact, shop):
    Client.objects.update(quiet_windows={"sms": 2, "voice": 9}, default_goal="Sell")
    appended = opening.open_conversation(shop.pk, contact.pk, chunk(metadata='{"a": 1}'), actor=CONTACT)
    found = Conversation.objects.get()
    system, memory, first = found.chunks.order_by("position")
    assert (system.position, system.role, system.content) == (1, "system", Assistant.objects.get().system_prompt)
    assert (memory.position, memory.role) == (2, "memory")
    assert (first.position, first.role, first.content) == (3, "user", "Hello")
    assert [(each.message_id, each.dedupe_key, each.metadata) for each in (system, memory, first)] == [
        *[("", None, {})] * 2,
        ("m1", UUID(int=1), {"a": 1}),
    ]
    assert {each.created_at for each in (system, memory, first)} == {NOW}
    assert appended == Appended(found.pk, first.pk, 3, False, sequence=1)
    assert (found.last_position, found.inbound_sequence, found.reply_owed) == (3, 1, True)
    assert (found.burst_began_at, found.reply_due_at) == (NOW, NOW + 2 * SECOND)
    assert (found.started_at, found.last_message_at, found.goal, found.summary) == (NOW, NOW, "Sell", "")
    assert (found.client, found.contact, found.channel, found.thread) == (shop, contact, "sms", "")
    assert found.assistant == Assistant.objects.get()


def test_without_a_message_nothing_is_owed_and_nobody_has_written(contact):
    found = opened(contact, chunk(text="", message_id="", dedupe_key=None))
    assert [role for _, role, *_ in chunks_of(found)] == ["system", "memory"]
    assert (found.last_position, found.inbound_sequence, found.reply_owed) == (2, 0, False)
    assert (found.burst_began_at, found.reply_due_at) == (None, None)


@pytest.mark.parametrize(
    ("client", "person", "owed"),
    [
        ({"auto_reply": False}, {}, False),
        ({}, {"opted_out": {"sms": {"word": "STOP"}}}, False),
        ({}, {"opted_out": {"whatsapp": {"word": "STOP"}}}, True),
    ],
)
def test_no_reply_is_owed_where_nobody_answers_or_may(contact, client, person, owed):
    Client.objects.update(**{"name": "Shop", **client})
    Contact.objects.update(**{"name": "Ann", **person})
    found = opened(contact)
    assert (found.reply_owed, found.reply_due_at) == (owed, NOW if owed else None)
    assert (found.inbound_sequence, found.burst_began_at) == (1, NOW)


def test_a_reply_is_due_after_the_longest_wait_at_the_latest(contact, shop):
    Client.objects.update(quiet_windows={"sms": 30})
    shop.refresh_from_db()
    assert opened(contact).reply_due_at == NOW + shop.longest_wait


def test_who_opens_it_may_say_all_of_it(contact, shop):
    other = factories.AssistantFactory(client=shop, key="other", is_default=False, system_prompt="You are Bea.")
    older = ContactIdentity.objects.get()
    ContactIdentity.objects.create(contact=contact, client=shop, channel="sms", kind="phone", address="newer")
    account = factories.SandboxFactory(client=shop, channel="voice", address="second")
    new = chunk(channel="voice", thread="t", dedupe_key=None, channel_account_id=account.pk)
    named = {"goal": "Help", "summary": "So far", "device_id": older.pk, "assistant_id": other.pk}
    found = opened(contact, new, conversation_id=UUID(int=7), actor=GRACE, **named)
    assert (found.pk, found.thread, found.goal, found.summary) == (UUID(int=7), "t", "Help", "So far")
    assert (found.device, found.assistant, found.channel_account) == (older, other, account)
    assert chunks_of(found)[0][2] == "You are Bea."
    event = ConversationEvent.objects.get()
    assert (event.kind, event.actor, event.actor_name, event.to_status) == ("opened", "staff", "grace", "active")
    assert (event.created_at, event.conversation_id) == (NOW, found.pk)


def test_replies_go_to_the_contact_s_newest_address_on_the_channel(contact, shop):
    add = ContactIdentity.objects.create
    newest = add(contact=contact, client=shop, channel="sms", kind="phone", address="newer")
    add(contact=contact, client=shop, channel="whatsapp", kind="phone", address=ADDRESS)
    add(contact=factories.ContactFactory(client=shop), client=shop, channel="sms", kind="phone", address="bob")
    assert opened(contact).device == newest


def test_the_account_is_the_oldest_that_is_on_and_no_simulated_one_unless_it_is_named(contact, shop, neighbour):
    ChannelAccount.objects.filter(client=shop, channel="sms").delete()
    make = factories.SandboxFactory
    made = {
        name: make(client=shop, address=name, **more).pk
        for name, more in {
            "off": {"is_active": False},
            "simulated": {"is_simulated": True},
            "elsewhere": {"channel": "whatsapp"},
            "first": {},
            "second": {},
        }.items()
    }
    theirs = ChannelAccount.objects.get(client=neighbour, channel="sms")
    for days, pk in enumerate([theirs.pk, *made.values()]):
        ChannelAccount.objects.filter(pk=pk).update(created_at=NOW + days * DAY)

    def chosen(account_id: Any) -> Any:
        with transaction.atomic():
            found = opened(contact, chunk(dedupe_key=None, channel_account_id=account_id)).channel_account_id
            transaction.set_rollback(True)
        return found

    assert chosen(None) == made["first"]
    assert chosen(made["second"]) == made["second"]
    assert chosen(made["simulated"]) == made["simulated"]
    assert [chosen(made["off"]), chosen(made["elsewhere"]), chosen(theirs.pk)] == [None] * 3


def test_the_assistant_is_the_account_s_or_else_the_client_s_own_default(contact, shop, neighbour):
    default = Assistant.objects.get(client=shop)
    other = factories.AssistantFactory(client=shop, key="other", is_default=False, system_prompt="")
    assert opened(contact).assistant == default
    Conversation.objects.update(**ENDED)
    ChannelAccount.objects.filter(channel="sms").update(assistant=other)
    found = opened(contact)
    assert found.assistant == other
    assert chunks_of(found)[0][2] == DEFAULT_SYSTEM_PROMPT
    Conversation.objects.update(**ENDED)
    ChannelAccount.objects.update(assistant=None)
    Assistant.objects.filter(client=shop).update(is_default=False)
    assert opened(contact).assistant is None


def test_a_guest_s_conversation_is_a_guest_s(contact):
    assert not opened(contact).is_guest
    Conversation.objects.update(**ENDED)
    Contact.objects.update(is_guest=True, phone=None)
    assert opened(contact).is_guest


@pytest.mark.parametrize("happens", ["merged", "deleted", "the message was here", "the message had been here"])
def test_nothing_is_opened_for_who_is_not_there_or_said_it_before(contact, shop, happens):
    if happens == "merged":
        Contact.objects.filter(pk=contact.pk).update(merged_into=factories.ContactFactory(client=shop), phone=None)
    elif happens == "deleted":
        contact.client_id, contact.pk = shop.pk, uuid4()
    elif happens == "the message was here":
        elsewhere = factories.ConversationFactory(client=shop)
        Chunk.objects.create(conversation=elsewhere, position=3, role="user", dedupe_key=UUID(int=1), content="Hi")
    else:
        MessageTombstone.objects.create(client=shop, dedupe_key=UUID(int=1), expires_at=NOW + DAY)
    before = Conversation.objects.count()
    with pytest.raises(IntegrityError):
        opening.open_conversation(shop.pk, contact.pk, chunk(), actor=CONTACT)
    assert Conversation.objects.count() == before


def test_many_are_opened_in_their_order_and_none_for_who_is_not_there(contact, shop):
    device = ContactIdentity.objects.get()
    other = factories.ContactFactory(client=shop)
    theirs = ContactIdentity.objects.create(contact=other, client=shop, channel="sms", kind="phone", address="bob")
    firsts = [
        (other.pk, theirs.pk, chunk(text="one", dedupe_key=None)),
        (uuid4(), device.pk, chunk(text="two", dedupe_key=None)),
        (contact.pk, device.pk, chunk(text="three", dedupe_key=None)),
    ]
    with transaction.atomic():
        one, none, three = opening.open_each(shop.pk, firsts)
    assert none is None
    said = [Chunk.objects.get(pk=each.chunk_id) for each in (one, three)]
    assert [each.content for each in said] == ["one", "three"]
    assert [each.conversation.device for each in said] == [theirs, device]
    assert set(ConversationEvent.objects.values_list("kind", "actor")) == {("opened", "contact")}


# --- what it knows at its beginning -----------------------------------------------------------------------------------
def memory_of(contact: Contact) -> str:
    with transaction.atomic():
        text = str(chunks_of(opened(contact))[1][2])
        transaction.set_rollback(True)
    return text


def over(contact: Contact, summary: str, days: int = 1, **more: Any) -> Conversation:
    at = NOW - days * DAY
    return factories.ConversationFactory(
        client=contact.client, contact=contact, summary=summary, last_message_at=at, **{**ENDED, **more}
    )


def remembered(contact: Contact, language: str, days: int, **more: Any) -> None:
    usual = {"client_id": contact.client_id, "contact_id": contact.pk, "channel": "sms", "language": language}
    at = NOW - days * DAY
    Memory.objects.create(
        **{**usual, "conversation_id": uuid4(), "document": "", "started_at": at, "ended_at": at, **more}
    )


def test_the_language_is_that_of_the_person_s_newest_memory(contact, neighbour):
    facts = "What is known of this contact:\n- Name: Ann\n{}- Phone number: known\n\n"
    assert memory_of(contact).startswith(facts.format("")[:-2])
    remembered(contact, "german", 1)
    remembered(contact, "spanish", 2)
    remembered(contact, "french", 0, contact_id=uuid4())
    remembered(contact, "dutch", 0, client_id=neighbour.pk)
    assert "- Name: Ann\n- Language: German\n- Phone number: known" in memory_of(contact)
    remembered(contact, "simple", 0)
    assert "Language" not in memory_of(contact)


def test_a_correction_replaces_the_facts_and_what_came_before_it(contact):
    over(contact, "Long before.", 3)
    over(contact, "At that moment.", 2)
    over(contact, "After it.", 1)
    Contact.objects.update(known="Prefers mornings.", known_at=NOW, known_until=NOW - 2 * DAY)
    assert memory_of(contact) == (
        "What staff say is known of this contact (2026-11-29):\nPrefers mornings.\n\n"
        "From earlier sessions with this contact:\n- 2026-11-28: After it.\n- 2026-11-27: At that moment."
    )


def test_summaries_are_those_of_the_person_s_conversations_that_are_over_the_newest_five(contact, shop):
    for days in range(1, 8):
        over(contact, f"{days} days ago.", days)
    over(contact, "", 0)
    over(factories.ContactFactory(client=shop), "Another's.", 0)
    over(contact, "Not over.", 0, status="active", ended_at=None, ended_by="", channel="whatsapp")
    over(contact, "Stale.", 0, status="stale", ended_at=None, ended_by="", channel="orb")
    lines = memory_of(contact).partition("From earlier sessions with this contact:\n")[2].splitlines()
    assert lines == [f"- {NOW - days * DAY:%Y-%m-%d}: {days} days ago." for days in range(1, 6)]


def test_a_summary_is_told_to_its_two_thousandth_character_and_all_within_the_budget(contact):
    over(contact, "a" * 2_001, 1)
    over(contact, "b" * 2_000, 2)
    over(contact, "c", 3)
    told = memory_of(contact)
    assert (told.count("a" * 2_000), told.count("a" * 2_001), told.count("b" * 2_000)) == (1, 0, 1)
    assert "- 2026-11-26: c" not in told, "the first two have used the room to its last byte"
    over(contact, "語" * 2_000, 0)
    assert memory_of(contact).count("語") == opening.RECALL_BYTES // 4


def test_where_nothing_is_known_it_says_so(shop):
    stranger = factories.ContactFactory(client=shop)
    assert memory_of(stranger) == opening.NOTHING_KNOWN
    Contact.objects.update(known="Prefers mornings.", known_at=NOW, known_until=NOW)
    assert opening.NOTHING_KNOWN not in memory_of(stranger)
    Contact.objects.update(known="", known_at=None, known_until=None)
    over(stranger, "Bought paint.")
    assert memory_of(stranger) == "From earlier sessions with this contact:\n- 2026-11-28: Bought paint."


def test_the_memory_names_the_conversations_that_it_tells_of_in_its_order(contact):
    older, newer = over(contact, "Bought paint.", 2), over(contact, "Bought tea.", 1)
    over(contact, "", 0)
    system, memory, first = opened(contact).chunks.order_by("position")
    told = [(each["session"], each["on"], each["why"], each["store"]) for each in memory.metadata["recalled"]]
    why = ("last summaries", "sessions")
    assert told == [(str(newer.pk), "2026-11-28", *why), (str(older.pk), "2026-11-27", *why)]
    assert (system.metadata, first.metadata) == ({}, {})
