"""The brake on loops: another machine is not answered for ever, and people who repeat themselves are."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from conversations.models import Chunk, Conversation, Message
from conversations.services.core.ledger import SYSTEM
from conversations.services.replies import loops
from conversations.services.transitions import takeover
from tests.conftest import reply_to_all

pytestmark = pytest.mark.django_db

AWAY = "I am out of the office until {}. Your ticket has the number {}."


def goes_on(door, text="", rounds=1, **more):
    """Somebody writes so often, and is answered as often as the assistant likes to. Returns the number of replies."""
    return sum(reply_to_all() for number in range(rounds) if door.says(text or AWAY.format(number, 7 * number), **more))


def conversation():
    return Conversation.objects.get()


@pytest.mark.parametrize("channel", ["sms", "whatsapp", "messenger"])
def test_an_auto_reply_is_answered_a_few_times_and_then_waits_for_a_person(door, channel):
    goes_on(door, rounds=8, channel=channel)
    assert Chunk.objects.filter(role="ai").count() == loops.ALIKE - 1
    waiting = conversation()
    assert (waiting.needs_staff_reason, waiting.taken_over_name) == (loops.ALIKE_REASON, "")
    assert waiting.taken_over_at
    assert waiting.events.filter(kind="taken_over", cause=loops.ALIKE_REASON).count() == 1
    assert Message.objects.count() == loops.ALIKE - 1, "the other machine is told nothing"


def test_somebody_else_is_answered_meanwhile(door):
    goes_on(door, rounds=6)
    goes_on(door, "Where is my parcel?", user_id="bob")
    theirs = Conversation.objects.get(contact__user_id="bob")
    assert theirs.taken_over_at is None
    assert Chunk.objects.filter(conversation=theirs, role="ai").count() == 1


def test_after_a_hand_back_counting_begins_anew(door):
    goes_on(door, rounds=6)
    takeover.hand_back(conversation().pk, actor=SYSTEM, now=timezone.now())
    goes_on(door, "So, who are you then, my friend?")
    assert conversation().taken_over_at is None
    assert Chunk.objects.filter(role="ai").count() == loops.ALIKE


@pytest.mark.parametrize(
    ("text", "rounds"),
    [("yes", 8), ("OK!", 8), ("Where is my parcel, please?", loops.ALIKE - 1), ("👍", 14), ("12", 14)],
)
def test_people_who_repeat_a_little_are_answered(door, text, rounds):
    goes_on(door, text, rounds)
    assert conversation().taken_over_at is None
    assert Chunk.objects.filter(role="ai").count() == rounds


def test_what_is_different_or_long_ago_or_unanswered_is_no_loop(door):
    words = ("red", "green", "blue", "black", "white", "grey")
    for word in words:
        goes_on(door, f"Do you have the shirt in {word} as well?")
    for _ in range(6):
        door.says("Are you there? I am waiting for you.")  # one burst
    reply_to_all()
    for _ in range(3):
        goes_on(door)
    Chunk.objects.update(created_at=timezone.now() - timedelta(hours=2))
    goes_on(door, rounds=2)
    assert conversation().taken_over_at is None


def test_short_words_are_a_loop_in_the_end(door):
    goes_on(door, "beep", loops.ALIKE_SHORT + 1)
    assert conversation().needs_staff_reason == loops.ALIKE_REASON


@pytest.mark.parametrize(("ago", "braked"), [(timedelta(seconds=30), True), (timedelta(minutes=3), False)])
def test_very_many_replies_in_a_short_time_are_a_loop_whatever_is_said(door, ago, braked):
    goes_on(door, "Hello, who are you?")
    talk = conversation()
    when = timezone.now() - ago
    for number in range(loops.REPLIES):
        position = talk.last_position + 2 * number
        Chunk.objects.create(
            conversation=talk, position=position + 1, role="user", content="a" * number, created_at=when
        )
        Chunk.objects.create(conversation=talk, position=position + 2, role="ai", content="b" * number, created_at=when)
    moved = {"last_position": talk.last_position + 2 * loops.REPLIES, "inbound_sequence": loops.REPLIES + 1}
    Conversation.objects.update(**moved)
    goes_on(door, "And now?")
    assert conversation().needs_staff_reason == (loops.REPLIES_REASON if braked else "")


def test_devices_and_calls_have_no_brake(door, shop):
    goes_on(door, "Play the next song, please!", 7, channel="orb")
    assert conversation().taken_over_at is None
