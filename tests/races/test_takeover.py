"""A takeover at any moment of a reply's way: after it nothing of the assistant's is said, and nothing leaves."""

from __future__ import annotations

import random
import time
from collections import Counter
from functools import partial

import pytest
from django.utils import timezone

from conversations.models import Chunk, Conversation, ConversationEvent, Message, Turn
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import Actor
from conversations.services.staff_actions import send
from conversations.services.transitions import closing, takeover
from tests.races.interleavings import Sender, rounds
from tests.races.invariants import assert_sound
from tests.sizes import times

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

STAFF = Actor("staff", "grace")
INTERLEAVINGS = times(100, 2_000)


def test_after_a_takeover_nothing_of_the_assistants_is_said_or_leaves(own_json):
    """Many sessions, each with a reply being written, a takeover, and what else may happen, in any order."""
    sender, over = Sender(), {}

    def take(pk, _person):
        takeover.take_over(pk, actor=STAFF, now=timezone.now(), tell=random.random() < 0.5)
        over[pk] = time.monotonic()

    def close(pk):
        closing.close(pk, ended_by="staff", actor=STAFF, now=timezone.now())
        over[pk] = min(over.get(pk, float("inf")), time.monotonic())

    def happens(pk, person):
        what = random.choice(
            [
                partial(own_json, "and blue?", user_id=person),
                partial(own_json, "and blue?", user_id=person),
                partial(send.send, pk, "from a person", actor=STAFF, now=timezone.now()),
                partial(close, pk),
                lambda: None,
            ]
        )
        what()

    for failed in rounds(own_json, sender, INTERLEAVINGS, take, happens):
        assert {(type(error), getattr(error, "code", repr(error))) for error in failed} <= {(ConflictError, "ended")}

    assert Turn.objects.exclude(status="running").count() == INTERLEAVINGS
    assert Turn.objects.filter(status="dropped").exclude(draft="red!").count() == 0, "dropped drafts are kept"
    assert_silent_after_it()
    assert sender.sent_after(over) == []
    assert set(Counter(message for _, message, _ in sender.left).values()) <= {1}
    assert_sound()


def assert_silent_after_it():
    """By position, which the session's row lock gives out one by one."""
    taken = ConversationEvent.objects.filter(kind="taken_over").values_list("conversation", "data")
    assert len(taken) >= INTERLEAVINGS * 0.5
    spoken = Turn.objects.filter(chunk__isnull=False).values_list("chunk", flat=True)
    last_words = dict(Chunk.objects.filter(pk__in=spoken).values_list("conversation", "position"))
    for conversation, data in taken:
        assert last_words.get(conversation, 0) <= data["position"]
    assert not Message.objects.filter(chunk__in=spoken, status__in=["queued", "claimed"]).exists()
    assert not Conversation.objects.filter(taken_over_at__isnull=True, status="active").exists()
