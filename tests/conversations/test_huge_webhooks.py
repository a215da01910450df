"""One signed webhook with very many events: each is stored once, in the provider's order, whatever the others are."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from channels_out.simulators import messenger as composed
from channels_out.simulators import whatsapp
from conversations.models import ChannelAccount, Chunk, Contact, ContactIdentity, Conversation, InboundEvent, Message
from conversations.services.contacts import contacts_bulk
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import claiming, sending
from conversations.services.inbound import messages, messages_bulk, replay, settling
from conversations.services.staff_actions import send
from conversations.services.transitions import closing
from tests.conftest import reply_to_all, send_all
from tests.conversations.meta_doors import account_at, post
from tests.fakes.messenger import FakeMessenger
from tests.races.invariants import assert_sound
from tests.races.threads import together

pytestmark = pytest.mark.django_db
PEOPLE = 400


@pytest.fixture
def account(meta, shop):
    ChannelAccount.objects.filter(client=shop, provider="sandbox", channel__in=["whatsapp", "messenger"]).delete()
    return account_at(meta, shop)


@pytest.fixture
def in_bulk(monkeypatch):
    """Fail where a message takes the general form, so that the test shows what the bulk form does."""
    monkeypatch.setattr(messages, "settle", lambda *_, **__: pytest.fail("settled one by one"))


def number(person):
    return f"5199{person:07d}"


def texts(people, *, times=1, run="a"):
    """`times` messages of each person, one round after the other."""
    return [
        whatsapp.text(f"{person} says {round_}", sender=number(person), message_id=f"wamid.{run}.{person}.{round_}")
        for round_ in range(times)
        for person in people
    ]


def arrives(meta, *said, **batches_of):
    status, outcome = post(meta.webhook(messages=said, **batches_of), "whatsapp")
    assert status == 200, outcome
    return outcome


def said_by_person():
    """The user chunks of each address, by position."""
    found = defaultdict(list)
    chunks = Chunk.objects.filter(role="user").order_by("conversation", "position")
    for address, content in chunks.values_list("conversation__device__address", "content"):
        found[address].append(content)
    return dict(found)


def assert_no_gaps():
    for conversation in Conversation.objects.all():
        positions = list(conversation.chunks.order_by("position").values_list("position", flat=True))
        assert positions == list(range(1, conversation.last_position + 1))
        assert conversation.inbound_sequence == conversation.chunks.filter(role="user").count()
    assert_sound()


@pytest.mark.usefixtures("in_bulk")
def test_every_message_of_new_people_is_stored_once_and_in_order(meta, account):
    webhook = meta.webhook(messages=texts(range(PEOPLE), times=3))
    for _ in range(2):
        assert post(webhook, "whatsapp") == (200, {"messages": 3 * PEOPLE, "receipts": 0, "recorded": 0})
    expected = {number(person): [f"{person} says {n}" for n in range(3)] for person in range(PEOPLE)}
    assert said_by_person() == expected
    assert Contact.objects.count() == Conversation.objects.count() == PEOPLE
    assert_no_gaps()


@pytest.mark.usefixtures("in_bulk")
def test_a_webhook_that_makes_the_tables_grow_is_planned_anew_in_between(meta, account, monkeypatch):
    monkeypatch.setattr(messages_bulk, "CHUNK", 5)
    with CaptureQueriesContext(connection) as seen:
        post(meta.webhook(messages=texts(range(5 * 16))), "whatsapp")
    assert [query["sql"] for query in seen].count("DISCARD PLANS") == 2, "before the 8th and the 16th"
    assert said_by_person() == {number(person): [f"{person} says 0"] for person in range(5 * 16)}


@pytest.mark.usefixtures("in_bulk")
def test_people_who_are_known_go_on_in_their_conversations_or_begin_new_ones(meta, account):
    arrives(meta, *texts(range(20)))
    for conversation in Conversation.objects.filter(device__address__in=[number(n) for n in range(10)]):
        closing.close(conversation.pk, ended_by="user", actor=SYSTEM, now=timezone.now())
    arrives(meta, *texts(range(30), times=2, run="b"))
    counts = sorted(Conversation.objects.values_list("last_position", flat=True))
    assert counts == sorted([3] * 10 + [4] * 10 + [5] * 10 + [4] * 10)
    assert Contact.objects.count() == 30
    assert_no_gaps()


@pytest.mark.usefixtures("in_bulk")
def test_people_of_a_page_are_told_apart_and_are_guests(shop):
    ChannelAccount.objects.filter(client=shop, provider="sandbox", channel="messenger").delete()
    with FakeMessenger() as page:
        account_at(page, shop)
        items = [composed.text(page.page, f"psid-{n % 30}", f"say {n}", mid=f"m_{n}") for n in range(90)]
        assert post(page.webhook(*items), "messenger")[1]["messages"] == 90
    assert said_by_person() == {f"psid-{n}": [f"say {n}", f"say {n + 30}", f"say {n + 60}"] for n in range(30)}
    assert Contact.objects.filter(is_guest=True).count() == 30
    assert_no_gaps()


def test_the_bulk_form_writes_the_same_rows_as_the_general_form(meta, account, monkeypatch):
    def user_id(person):
        return {"wa_id": number(person), "user_id": f"PE.{person}", "profile": {"name": f"Person {person}"}}

    said = [each | {"from_user_id": f"PE.{n % 12}"} for n, each in enumerate(texts(range(12), times=2))]
    contacts = [user_id(person) for person in range(12)]

    def rows():
        people = Contact.objects.values("user_id", "phone", "name", "is_guest", "merged_into")
        identities = ContactIdentity.objects.values("contact__user_id", "kind", "address", "channel")
        conversations = Conversation.objects.values(
            *("contact__user_id", "device__address", "status", "is_guest", "goal", "last_position", "reply_owed"),
            *("inbound_sequence", "channel_account", "assistant", "thread"),
        )
        chunks = list(Chunk.objects.values("conversation__contact__user_id", "position", "role", "content", "metadata"))
        for each in chunks:
            each["metadata"].pop("written_at", None)  # of a form that took its time
        events = Conversation.objects.values("contact__user_id", "events__kind", "events__actor")
        return [sorted(map(str, each)) for each in (people, identities, conversations, chunks, events)]

    arrives(meta, *said, contacts=contacts)
    in_bulk = rows()
    Conversation.objects.all().delete()
    Contact.objects.all().delete()
    ContactIdentity.objects.all().delete()
    monkeypatch.setattr(messages_bulk, "AT_LEAST", 1_000)
    arrives(meta, *said, contacts=contacts)
    assert rows() == in_bulk


def test_a_mix_with_repeated_ids_reactions_and_words_that_opt_out_is_settled_whole(meta, account):
    said = texts(range(50), times=2)
    stop = [whatsapp.text("STOP", sender=number(n), message_id=f"wamid.stop.{n}") for n in range(3)]
    after = [whatsapp.text("Sorry", sender=number(n), message_id=f"wamid.after.{n}") for n in range(3)]
    reactions = [
        {"from": number(n), "id": f"wamid.r{n}", "type": "reaction", "reaction": {"emoji": "👍"}} for n in range(40)
    ]
    outcome = arrives(meta, *said, *reactions, *stop, *said, *after, *stop)
    assert outcome == {"messages": 209, "receipts": 0, "recorded": 40}
    assert Contact.objects.exclude(opted_out={}).count() == 3
    spoken = said_by_person()
    assert spoken[number(0)] == ["0 says 0", "0 says 1", "STOP", "Sorry"]
    assert spoken[number(40)] == ["40 says 0", "40 says 1"]
    assert InboundEvent.objects.filter(reason="not_a_turn").count() == 40
    assert_no_gaps()


def test_a_message_that_cannot_be_stored_touches_only_itself(meta, account, monkeypatch):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE conversation_chunks ADD CONSTRAINT no_seven CHECK (content <> '7 says 0')")
    monkeypatch.setattr(messages, "TRIES", 1)
    assert arrives(meta, *texts(range(40))) == {"messages": 39, "receipts": 0, "recorded": 1}
    assert said_by_person() == {number(n): [f"{n} says 0"] for n in range(40) if n != 7}
    with connection.cursor() as cursor:
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE; ALTER TABLE conversation_chunks DROP CONSTRAINT no_seven")
    assert replay.retry_failed(timezone.now()) == 1
    assert said_by_person() == {number(n): [f"{n} says 0"] for n in range(40)}
    assert_no_gaps()


def test_texts_with_characters_that_cannot_be_stored_and_very_long_ones_are_stored_cleaned(meta, account):
    said = texts(range(30))
    said[3]["text"]["body"] = "NUL \x00 in it"
    said[5]["text"]["body"] = "half of a pair \ud83d"
    said[7]["text"]["body"] = "long " * 20_000
    said[9]["id"] = "i" * 300
    arrives(meta, *said)
    spoken = said_by_person()
    assert spoken[number(3)] == ["NUL \ufffd in it"]
    assert spoken[number(5)] == ["half of a pair \ufffd"]
    assert len(spoken[number(7)][0]) > 90_000
    assert number(9) not in spoken
    assert InboundEvent.objects.get().reason == "malformed"
    assert len(spoken) == 29


def test_a_crash_half_way_and_a_redelivery_lose_and_repeat_nothing(meta, account, monkeypatch):
    webhook = meta.webhook(messages=texts(range(60), times=2))
    monkeypatch.setattr(messages_bulk, "CHUNK", 20)
    real, calls = contacts_bulk.find_or_create_many, []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise OperationalError("the connection is lost")
        return real(*arguments)

    monkeypatch.setattr(contacts_bulk, "find_or_create_many", dies)
    assert post(webhook, "whatsapp")[0] == 503
    assert 0 < Chunk.objects.filter(role="user").count() < 120
    assert post(webhook, "whatsapp")[1]["messages"] == 120
    assert said_by_person() == {number(n): [f"{n} says 0", f"{n} says 1"] for n in range(60)}
    assert_no_gaps()


@pytest.mark.django_db(transaction=True)
def test_simultaneous_deliveries_in_other_orders_store_each_message_once(meta, account):
    said = texts(range(60), times=2)
    backwards = [*reversed(said[:60]), *reversed(said[60:])]
    deliveries = [meta.webhook(messages=each) for each in (said, backwards, said, backwards)]
    single = [meta.webhook(messages=[each]) for each in said[:10]]
    answers = together(*[partial(post, each, "whatsapp") for each in (*deliveries, *single)])
    assert {status for status, _ in answers} == {200}
    assert {tuple(sorted(each)) for each in said_by_person().values()} == {
        (f"{n} says 0", f"{n} says 1") for n in range(60)
    }
    assert Contact.objects.count() == Conversation.objects.count() == 60
    assert_no_gaps()


def test_what_would_keep_the_provider_waiting_is_kept_and_settled_by_the_sweep(meta, account, monkeypatch):
    monkeypatch.setattr(settling, "MOST_ONE_BY_ONE", 5)
    stops = [whatsapp.text("STOP", sender=number(n), message_id=f"wamid.stop.{n}") for n in range(25)]
    assert arrives(meta, *texts(range(25)), *stops)["recorded"] == 45
    assert InboundEvent.objects.get().reason == "processing_failed"
    assert replay.retry_failed(timezone.now()) == 1
    assert said_by_person() == {number(n): [f"{n} says 0", "STOP"] for n in range(25)}
    assert Contact.objects.exclude(opted_out={}).count() == 25
    assert_no_gaps()


def test_many_receipts_move_their_messages_on_or_wait_for_them(meta, account):
    arrives(meta, *texts(range(30)))
    reply_to_all()
    send_all()
    known = [whatsapp.status(sent.wamid, "delivered") for sent in meta.sent]
    unknown = [whatsapp.status(f"wamid.unknown.{n}", word) for n in range(100) for word in ("sent", "failed")]
    with CaptureQueriesContext(connection) as captured:
        outcome = arrives(meta, statuses=[*known, *unknown, *known])
    assert outcome == {"messages": 0, "receipts": 60, "recorded": 200}
    assert set(Message.objects.values_list("status", flat=True)) == {"delivered"}
    assert InboundEvent.objects.filter(reason="receipt_unmatched").count() == 200
    assert len(captured) < 60, "not one transaction for each"


def test_receipts_that_came_in_a_batch_before_their_send_are_applied_by_it(meta, account):
    arrives(meta, *texts(range(1)))
    send.send(Conversation.objects.get().pk, "Hi", actor=SYSTEM, now=timezone.now())
    token, [claimed] = claiming.claim(timezone.now(), 1)
    held = sending.begin(claimed, token, timezone.now())
    result = held.send()
    early = [whatsapp.status(f"wamid.other.{n}", "sent") for n in range(20)]
    arrives(meta, statuses=[*early, whatsapp.status(result.provider_message_id, "delivered")])
    sending.record_sent(held, result, timezone.now())
    assert Message.objects.get().status == "delivered"
