"""Many messages of one person at the same moment: one session, every message once, no gaps."""

from __future__ import annotations

import json
from functools import partial

import pytest
from django.utils import timezone

from conversations.http.own_webhook import read_message
from conversations.models import Chunk, Contact, Conversation, ConversationEvent
from conversations.services.inbound import messages
from tests.races.invariants import assert_sound
from tests.races.threads import not_committed, together
from tests.sizes import times

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

ROUNDS = times(10, 100)


def test_200_simultaneous_first_messages_open_one_session(says):
    answers = together(*(partial(says, f"message {n}", message_id=f"m{n}") for n in range(200)))

    conversation = Conversation.objects.get()
    assert {answer["conversation_id"] for answer in answers} in ({conversation.pk}, {str(conversation.pk)})
    assert [answer["created"] for answer in answers].count(True) == 1
    assert [answer for answer in answers if answer["duplicate"]] == []
    assert sorted(answer["position"] for answer in answers) == list(range(3, 203))
    said = list(Chunk.objects.filter(role="user").values_list("position", "content", "message_id"))
    assert [position for position, *_ in said] == list(range(3, 203))
    assert {content for _, content, _ in said} == {f"message {n}" for n in range(200)}
    answered = {answer["position"]: answer["chunk_id"] for answer in answers}
    assert answered == dict(Chunk.objects.filter(role="user").values_list("position", "pk"))
    assert (conversation.inbound_sequence, conversation.last_position) == (200, 202)
    assert [event.kind for event in ConversationEvent.objects.all()] == ["opened"]
    assert Contact.objects.count() == 1
    assert_sound()


def test_first_messages_of_many_people_do_not_mix(says):
    together(*(partial(says, f"message {n}", user_id=f"5199999{n % 20:04}") for n in range(200)))

    assert Conversation.objects.count() == Contact.objects.count() == 20
    assert set(Conversation.objects.values_list("inbound_sequence", flat=True)) == {10}
    assert_sound()


def test_first_messages_without_an_id_are_all_kept(says):
    together(*[partial(says, "the same words")] * 60)

    assert Conversation.objects.get().inbound_sequence == 60
    assert_sound()


@pytest.mark.parametrize("known", [True, False], ids=["to an open session", "as the first message"])
def test_50_simultaneous_deliveries_of_one_message_are_one_chunk(says, known):
    if known:
        says("Hello", message_id="m0")

    answers = together(*[partial(says, "Anybody?", message_id="m1")] * 50)

    chunk = Chunk.objects.get(message_id="m1")
    assert {(answer["chunk_id"], answer["position"]) for answer in answers} == {(chunk.pk, 4 if known else 3)}
    assert {str(answer["conversation_id"]) for answer in answers} == {str(chunk.conversation_id)}
    assert [answer["duplicate"] for answer in answers].count(False) == 1
    assert Conversation.objects.get().inbound_sequence == (2 if known else 1)
    assert_sound()


def test_deliveries_of_a_first_message_that_take_different_ways_do_not_wait_in_circles(own_json, shop):
    """By one statement, and by the longer way (as after a race that was lost): both make the contact, then the rest."""
    for round_ in range(ROUNDS):
        said = {"client_id": str(shop.pk), "user_id": f"ann {round_}", "message": "Hello", "message_id": "m1"}
        arrival, _ = read_message(json.dumps(said).encode(), "sms", timezone.now())
        together(
            *[partial(own_json, "Hello", user_id=said["user_id"], message_id="m1")] * 3,
            *[partial(messages.settle, shop, arrival)] * 3,
        )

    assert Conversation.objects.count() == Chunk.objects.filter(role="user").count() == ROUNDS
    assert_sound()


def test_redeliveries_among_new_messages_leave_no_gap(says):
    says("message 0", message_id="m0")

    together(*(partial(says, f"message {n % 40}", message_id=f"m{n % 40}") for n in range(200)))

    assert Conversation.objects.get().inbound_sequence == 40
    assert_sound()


def test_a_phone_captured_at_the_same_moment_counts_for_every_session(own_json, shop):
    channels = ["sms", "whatsapp", "orb", "messenger"]
    for round_ in range(ROUNDS):
        ann = f"ann {round_}"
        own_json("Hello", user_id=ann)  # a guest, known before
        Conversation.objects.filter(contact__user_id=ann).delete()
        together(
            *(partial(own_json, "Hello", user_id=ann, channel=channel) for channel in channels),
            partial(own_json, "It's me", user_id=ann, channel="voice", phone=f"+5199999{round_:04}"),
        )

    assert not Contact.objects.filter(is_guest=True).exists()
    assert Conversation.objects.count() == 5 * ROUNDS
    assert_sound()


def test_a_guest_who_is_named_on_another_channel_stays_named(own_json):
    """The message here reads the guest before the phone on the other channel is committed, and the session after it."""
    own_json("Hello", user_id="ann")
    with not_committed(partial(own_json, "It's me", user_id="ann", channel="voice", phone="+51999990001")):
        own_json("Ann speaking", user_id="ann", name="Ann")

    assert not Conversation.objects.filter(is_guest=True).exists()
    assert_sound()
