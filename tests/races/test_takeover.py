"""A takeover at any moment of a reply's way: after it nothing of the assistant's is said, and nothing leaves."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from functools import partial
from uuid import UUID

import pytest
from django.utils import timezone

from conversations.engines.contract import Reply
from conversations.models import Chunk, Conversation, ConversationEvent, Message, Turn
from conversations.services.answering import leases, replies
from conversations.services.delivering import delivery, sending
from conversations.services.errors import ConflictError
from conversations.services.session import closing, takeover
from conversations.services.session.ledger import Actor
from tests.races.invariants import assert_sound
from tests.races.threads import outcomes

pytestmark = pytest.mark.django_db(transaction=True)

STAFF = Actor("staff", "grace")
INTERLEAVINGS = 500
AT_ONCE = 50


class Sender:
    """Sends what is due, as dispatchers do, and notes when it went to the session's row to ask whether it still may."""

    def __init__(self):
        self.guard = threading.Lock()
        self.left: list[tuple[UUID, UUID, float]] = []  # conversation, message, when it was asked

    def send(self):
        token, ids = delivery.claim(timezone.now(), 5)
        for pk in ids:
            time.sleep(random.uniform(0, 0.001))
            asked_at = time.monotonic()
            if begun := delivery.begin(pk, token, timezone.now()):
                with self.guard:
                    self.left.append((begun.conversation_id, pk, asked_at))
                delivery.succeeded(begun, begun.send(), timezone.now())


def test_after_a_takeover_nothing_of_the_assistants_is_said_or_leaves(own_json):
    """500 sessions, each with a reply being written, a takeover, and what else may happen, in any order."""
    sender, over = Sender(), {}

    def take(pk):
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
                partial(sending.send, pk, "from a person", actor=STAFF, now=timezone.now()),
                partial(close, pk),
                lambda: None,
            ]
        )
        what()

    def reply(turn):
        replies.commit(turn.turn_id, Reply("red!", "offline"), timezone.now())

    def in_a_moment(job):
        time.sleep(random.uniform(0, 0.004))
        return job()

    for round_ in range(INTERLEAVINGS // AT_ONCE):
        people = {}
        for number in range(AT_ONCE):
            person = f"person {round_} {number}"
            people[UUID(own_json("red?", user_id=person)["conversation_id"])] = person
        jobs = []
        for turn in leases.claim(timezone.now(), AT_ONCE):
            pk = turn.conversation_id
            mine = [
                partial(reply, turn),
                partial(take, pk),
                partial(happens, pk, people[pk]),
                sender.send,
            ]
            jobs += [partial(in_a_moment, job) for job in random.sample(mine, len(mine))]
        results = outcomes(jobs, threads=16)
        failed = [result for result in results if isinstance(result, Exception)]
        assert all(isinstance(error, ConflictError) and error.code == "ended" for error in failed), failed

    assert Turn.objects.exclude(status="running").count() == INTERLEAVINGS
    assert Turn.objects.filter(status="dropped").exclude(draft="red!").count() == 0, "dropped drafts are kept"
    assert_silent_after_it()
    assert_nothing_left_after_it(sender, over)
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


def assert_nothing_left_after_it(sender, over):
    by_turns = set(Message.objects.filter(chunk__in=Turn.objects.values("chunk")).values_list("pk", flat=True))
    late = [pk for pk, message, asked_at in sender.left if message in by_turns and asked_at > over[pk]]
    assert late == []
    assert set(Counter(message for _, message, _ in sender.left).values()) <= {1}
