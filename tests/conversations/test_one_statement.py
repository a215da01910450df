"""The statements that append and open at once: they do nothing unless all is as usual, and then write whole rows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import transaction

from conversations.models import (
    ApiKey,
    ChannelAccount,
    Chunk,
    Client,
    Contact,
    ContactIdentity,
    Conversation,
    MessageTombstone,
)
from conversations.services.core import appending, opening
from conversations.services.core.appending import Appended, NewChunk
from conversations.services.core.ledger import Actor
from conversations.services.core.person import Person
from conversations.services.core.statements import THIS_THREAD, Statements, finish
from conversations.services.tenants import account_cache, api_keys
from memory.redaction import RedactionRules
from tests import factories
from tests.among_others import AMONG_OTHERS

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
PHONE, ADDRESS = "+51999999999", "51999999999"
RULES = RedactionRules(cards=True, patterns=())
ENDED = {"status": "closed", "ended_at": NOW, "ended_by": "user", "reply_owed": False}
GRACE = Actor("staff", "grace")


class Where:
    """The place where the statements run: alone, or as one of many."""

    statements: Statements = THIS_THREAD


@pytest.fixture(params=[THIS_THREAD, AMONG_OTHERS], ids=["alone", "one of many"], autouse=True)
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both forms do the same."""
    monkeypatch.setattr(Where, "statements", request.param)


@pytest.fixture
def contact(shop: Client) -> Contact:
    found: Contact = factories.ContactFactory(client=shop, user_id="ann", phone=PHONE, name="Ann", is_guest=False)
    ContactIdentity.objects.create(contact=found, client=shop, channel="sms", kind="phone", address=ADDRESS)
    return found


@pytest.fixture
def conversation(contact: Contact) -> Conversation:
    found: Conversation = factories.ConversationFactory(
        client=contact.client, contact=contact, last_position=2, last_message_at=NOW - HOUR
    )
    return found


def chunk(**more: Any) -> NewChunk:
    usual = {"channel": "sms", "thread": "", "at": NOW, "text": "Hello", "message_id": "m1", "dedupe_key": UUID(int=1)}
    return NewChunk(**{**usual, **more})


def by_key(key: str, client: Client, person: Person | None = None, new: NewChunk | None = None) -> Appended | None:
    who = person or Person(user_id="ann", phone=PHONE, name="Ann")
    return finish(
        appending.append_by_key(Where.statements, new or chunk(), api_keys.key_hash(key), client.pk, who, RULES)
    )


def by_address(client: Client, new: NewChunk | None = None, **more: Any) -> Appended | None:
    usual: dict[str, Any] = {"address": ADDRESS, "phone": PHONE, "name": "Ann", "aliases": []}
    return finish(appending.append_by_address(Where.statements, new or chunk(), client.pk, **{**usual, **more}))


def opened_with_key(
    key: str, client: Client, person: Person | None = None, new: NewChunk | None = None, rules: RedactionRules = RULES
) -> Appended | None:
    who = person or Person(user_id="ann", phone=PHONE, name="Ann")
    return finish(
        opening.open_with_key(Where.statements, new or chunk(), api_keys.key_hash(key), client.pk, who, rules)
    )


def give_to_another(conversation: Conversation) -> None:
    """The conversation is another contact's of the same client."""
    conversation.contact = factories.ContactFactory(client=conversation.client)
    conversation.save(update_fields=["contact"])


def change_conversation(**to: Any) -> Callable[[], object]:
    return lambda: Conversation.objects.update(**to)


def change_client(**to: Any) -> Callable[[], object]:
    return lambda: Client.objects.update(**to)


def was_here() -> object:
    elsewhere = factories.ConversationFactory(client=Client.objects.get(sub_domain="shop"))
    return Chunk.objects.create(conversation=elsewhere, position=3, role="user", dedupe_key=UUID(int=1), content="Hi")


def had_been_here() -> object:
    return MessageTombstone.objects.create(
        client=Client.objects.get(sub_domain="shop"), dedupe_key=UUID(int=1), expires_at=NOW + DAY
    )


SEEN = {"the message was here": was_here, "the message had been here": had_been_here}
OFF = {"the client is switched off": change_client(is_active=False)}
KEYS = {
    "the key was revoked": lambda: ApiKey.objects.update(revoked_at=NOW),
    "the key is unknown": lambda: ApiKey.objects.update(key_hash=b"another" * 4),
    "cards are kept now": change_client(redact_cards=False),
    "there are patterns now": change_client(redaction_patterns=["x+"]),
}
NOT_ACTIVE = {
    "it is stale": change_conversation(status="stale"),
    "it has ended": change_conversation(**ENDED),
    "it is on another channel": change_conversation(channel="whatsapp"),
    "it is somebody else's": lambda: give_to_another(Conversation.objects.get()),
}


def nothing_changes(act: Callable[[], Appended | None]) -> None:
    before = list(Conversation.objects.order_by("pk").values()), Chunk.objects.count(), Contact.objects.count()
    assert act() is None
    assert (
        list(Conversation.objects.order_by("pk").values()),
        Chunk.objects.count(),
        Contact.objects.count(),
    ) == before


# --- appending --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("happens", [*(all_ := {**OFF, **KEYS, **SEEN, **NOT_ACTIVE}).values()], ids=[*all_])
def test_by_key_nothing_is_appended_if(conversation, shop, key, happens):
    happens()
    nothing_changes(lambda: by_key(key, shop))


@pytest.mark.parametrize("happens", [*(all_ := {**OFF, **SEEN, **NOT_ACTIVE}).values()], ids=[*all_])
def test_by_address_nothing_is_appended_if(conversation, shop, happens):
    happens()
    nothing_changes(lambda: by_address(shop))


@pytest.mark.parametrize(
    ("person", "appends"),
    [
        ({}, True),
        ({"phone": None, "name": ""}, True),
        ({"phone": "+51999999998"}, False),
        ({"name": "Anna"}, False),
        ({"user_id": "bob"}, False),
    ],
)
def test_by_key_a_person_who_says_something_new_is_left_to_the_general_form(conversation, shop, key, person, appends):
    who = Person(user_id="ann", phone=PHONE, name="Ann")._replace(**person)
    assert (by_key(key, shop, who) is not None) is appends


@pytest.mark.parametrize(
    ("known", "said", "appends"),
    [
        ({"phone": None}, {"phone": None}, True),
        ({"phone": None}, {}, False),
        ({}, {"phone": "+51999999998"}, True),
        ({"name": ""}, {}, False),
        ({"name": ""}, {"name": ""}, True),
        ({}, {"name": "Anna"}, True),
        ({}, {"address": "51999999998"}, False),
    ],
)
def test_by_address_only_what_was_missing_is_new(conversation, shop, known, said, appends):
    Contact.objects.update(**known)
    assert (by_address(shop, **said) is not None) is appends


def test_another_client_s_key_and_person_append_nothing(conversation, shop, neighbour, neighbours_key):
    theirs = factories.ContactFactory(client=neighbour, user_id="ann", phone=PHONE, name="Ann", is_guest=False)
    nothing_changes(lambda: by_key(neighbours_key, shop))
    nothing_changes(lambda: by_key(neighbours_key, neighbour))
    nothing_changes(lambda: by_address(neighbour))
    factories.ConversationFactory(client=neighbour, contact=theirs)
    assert by_key(neighbours_key, neighbour).conversation_id != conversation.pk


def test_an_address_is_one_of_its_channel(conversation, shop):
    ContactIdentity.objects.update(channel="whatsapp")
    nothing_changes(lambda: by_address(shop))
    Conversation.objects.update(channel="whatsapp")
    nothing_changes(lambda: by_address(shop))


@pytest.mark.parametrize(
    ("of", "channel", "appends"), [("ann", "sms", True), ("bob", "sms", False), ("ann", "whatsapp", False)]
)
def test_all_aliases_are_the_person_s_on_the_channel_or_it_is_left_to_the_general_form(
    conversation, shop, contact, of, channel, appends
):
    other = contact if of == "ann" else factories.ContactFactory(client=shop)
    ContactIdentity.objects.create(contact=other, client=shop, channel=channel, kind="phone", address="alias")
    assert (by_address(shop, aliases=[ADDRESS, "alias"]) is not None) is appends


def test_an_alias_of_another_client_s_person_counts_for_nothing(conversation, shop, neighbour):
    other = factories.ContactFactory(client=neighbour)
    ContactIdentity.objects.create(contact=other, client=neighbour, channel="sms", kind="phone", address="alias")
    nothing_changes(lambda: by_address(shop, aliases=["alias"]))


def test_the_account_is_the_one_that_was_read(conversation, shop):
    known = ChannelAccount.objects.select_related("client").annotate(version=account_cache.VERSION)
    account: Any = known.get(client=shop, channel="sms", address="sandbox")
    new = chunk(channel_account_id=account.pk)
    nothing_changes(lambda: by_address(shop, new, account_version="another"))
    other = known.get(client=shop, channel="whatsapp")
    nothing_changes(lambda: by_address(shop, new, account_version=other.version))
    assert by_address(shop, new, account_version=account.version)


def test_a_message_is_appended_with_what_it_names_and_moves_one_conversation_alone(conversation, shop, key):
    other = factories.ConversationFactory(client=shop, last_position=2, last_message_at=NOW - HOUR)
    before = Conversation.objects.values().get(pk=other.pk)
    account = ChannelAccount.objects.get(client=shop, channel="whatsapp")
    appended = by_key(key, shop, new=chunk(channel_account_id=account.pk, metadata='{"a": 1}'))
    written = Chunk.objects.get()
    assert appended == Appended(conversation.pk, written.pk, 3, False, ApiKey.objects.get().pk, 1)
    assert (written.conversation_id, written.position, written.role) == (conversation.pk, 3, "user")
    assert (written.content, written.message_id, written.dedupe_key) == ("Hello", "m1", UUID(int=1))
    assert (written.metadata, written.created_at) == ({"a": 1}, NOW)
    conversation.refresh_from_db()
    assert (conversation.last_position, conversation.inbound_sequence) == (3, 1)
    assert (conversation.last_message_at, conversation.channel_account) == (NOW, account)
    assert Conversation.objects.values().get(pk=other.pk) == before


def test_by_address_the_reply_goes_where_the_message_came_from(conversation, shop, contact):
    newer = ContactIdentity.objects.create(
        contact=contact, client=shop, channel="sms", kind="phone", address="51999999997"
    )
    account = conversation.channel_account
    appended = by_address(shop, address=newer.address)
    assert appended.key_id is None
    conversation.refresh_from_db()
    assert (conversation.device, conversation.channel_account) == (newer, account)


def test_a_conversation_that_ends_while_a_message_waits_for_its_row_gets_no_chunk(conversation, shop, key):
    """The second delivery of a message is refused as a whole: neither position nor time moves."""
    assert by_key(key, shop)
    before = Conversation.objects.values().get()
    assert by_key(key, shop) is None
    assert Conversation.objects.values().get() == before


def test_many_are_appended_in_their_order_and_the_unusual_left_out(conversation, shop, contact):
    account = ChannelAccount.objects.get(client=shop, channel="sms", address="sandbox")
    message = chunk(channel_account_id=account.pk)
    given = [
        (message._replace(text="one", dedupe_key=uuid4()), ADDRESS, PHONE, "Ann", []),
        (message._replace(text="two", dedupe_key=uuid4()), "unknown", PHONE, "Ann", []),
        (message._replace(text="three", dedupe_key=None), ADDRESS, PHONE, "Ann", []),
    ]
    with transaction.atomic():
        one, none, three = appending.append_each_by_address(shop.pk, given)
    assert (one.position, none, three.position) == (3, None, 4)
    assert list(Chunk.objects.order_by("position").values_list("content", flat=True)) == ["one", "three"]


@pytest.mark.parametrize("thread", ["", "s", "t", "u"])
def test_a_message_belongs_to_the_conversation_in_its_thread(conversation, shop, key, thread):
    Conversation.objects.update(channel="voice", thread="t")
    new = chunk(channel="voice", thread=thread)
    if thread == "t":
        assert opened_with_key(key, shop, new=new) is None
        assert by_key(key, shop, new=new).conversation_id == conversation.pk
        assert Chunk.objects.get().role == "voice"
    else:
        nothing_changes(lambda: by_key(key, shop, new=new))
        assert opened_with_key(key, shop, new=new).conversation_id != conversation.pk


# --- opening with a key -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("happens", [*(all_ := {**OFF, **KEYS, **SEEN}).values()], ids=[*all_])
def test_with_a_key_nothing_is_opened_if(contact, shop, key, happens):
    happens()
    nothing_changes(lambda: opened_with_key(key, shop))


@pytest.mark.parametrize("status", ["active", "stale"])
def test_with_a_key_nothing_is_opened_beside_an_open_conversation(conversation, shop, key, status):
    Conversation.objects.update(status=status)
    nothing_changes(lambda: opened_with_key(key, shop))


@pytest.mark.parametrize("to", [ENDED, {"channel": "whatsapp"}])
def test_with_a_key_one_is_opened_beside_what_is_over_or_elsewhere(conversation, shop, key, to):
    Conversation.objects.update(**to)
    assert opened_with_key(key, shop).conversation_id != conversation.pk


@pytest.mark.parametrize(
    ("known", "said", "opens"),
    [
        ({}, {}, True),
        ({}, {"phone": None, "name": ""}, True),
        ({}, {"phone": "+51999999998"}, False),
        ({}, {"name": "Anna"}, False),
        ({"merged_into": "bob"}, {"phone": None, "name": ""}, False),
    ],
)
def test_with_a_key_a_person_who_says_something_new_is_left_to_the_general_form(contact, shop, key, known, said, opens):
    if known:
        Contact.objects.filter(pk=contact.pk).update(merged_into=factories.ContactFactory(client=shop), phone=None)
    who = Person(user_id="ann", phone=PHONE, name="Ann")._replace(**said)
    assert (opened_with_key(key, shop, who) is not None) is opens


def test_another_client_s_key_opens_nothing_here(contact, shop, neighbours_key):
    nothing_changes(lambda: opened_with_key(neighbours_key, shop))


@pytest.mark.parametrize("written", ["+5215512345678", "+525512345678"])
def test_a_new_person_with_a_known_phone_is_left_to_the_general_form_however_it_is_written(shop, key, written):
    factories.ContactFactory(client=shop, phone="+525512345678", is_guest=False)
    nothing_changes(lambda: opened_with_key(key, shop, Person(user_id="new", phone=written)))


def test_a_phone_that_another_client_knows_is_new_here(shop, key, neighbour):
    factories.ContactFactory(client=neighbour, phone=PHONE, is_guest=False)
    assert opened_with_key(key, shop, Person(user_id="new", phone=PHONE))


@pytest.mark.parametrize(
    ("phone", "channel", "is_guest", "address"),
    [(PHONE, "sms", False, ADDRESS), (None, "sms", True, None), (PHONE, "web", False, None)],
)
def test_a_new_person_is_written_with_the_address_that_their_phone_has_on_the_channel(
    shop, key, phone, channel, is_guest, address
):
    opened = opened_with_key(key, shop, Person(user_id="new", phone=phone, name="Nea"), chunk(channel=channel))
    contact, conversation = Contact.objects.get(), Conversation.objects.get()
    assert (contact.client, contact.user_id, contact.phone, contact.name) == (shop, "new", phone, "Nea")
    assert (contact.is_guest, conversation.is_guest, opened.is_guest) == (is_guest,) * 3
    assert conversation.contact == contact
    addresses = [(each.contact, each.channel, each.kind, each.address) for each in ContactIdentity.objects.all()]
    assert addresses == ([(contact, channel, "phone", address)] if address else [])
    assert (conversation.device is None) is (address is None)
