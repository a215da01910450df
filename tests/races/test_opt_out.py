"""STOP at any moment of a reply's way: after its confirmation nothing is said, and nothing leaves."""

from __future__ import annotations

import random
import time
from functools import partial
from uuid import UUID

import pytest
from django.utils import timezone

from conversations.engines.contract import Reply
from conversations.models import Chunk, Contact, Conversation, Message, Turn
from conversations.services.answering import leases, replies
from conversations.services.people import opting_out
from conversations.services.session.ledger import Actor
from tests.races.invariants import assert_sound
from tests.races.test_fence import engine, the_turn_ends  # noqa: F401 - a fixture
from tests.races.test_takeover import Sender
from tests.races.threads import eventually, outcomes

pytestmark = pytest.mark.django_db(transaction=True)

STAFF = Actor("staff", "grace")
INTERLEAVINGS = 200
AT_ONCE = 50


def test_a_reply_that_was_being_written_is_not_said(own_json, engine):  # noqa: F811
    own_json("one")
    call = engine.next()
    own_json("STOP")
    call.answer("too late")

    the_turn_ends()
    turn = Turn.objects.get()
    assert (turn.status, turn.code, turn.draft) == ("dropped", "opted_out", "too late")
    eventually(lambda: Message.objects.filter(status="delivered").exists(), "the confirmation")
    [notice] = Chunk.objects.filter(role="ai")
    assert "notice" in notice.metadata
    own_json("Hello?")
    own_json("START")
    own_json("Hello again")
    engine.next().answer("welcome back")
    eventually(lambda: Message.objects.filter(text="welcome back", status="delivered").exists(), "the reply")
    assert_sound()


def test_whatever_else_happens_nothing_follows_the_confirmation(own_json):
    """Many sessions, each with a reply being written and sent, and a STOP: by the person, or by staff who heard it."""
    sender, over = Sender(), {}

    def stop(pk, person):
        if random.random() < 0.5:
            own_json("STOP", user_id=person)
        else:
            contact = Conversation.objects.get(pk=pk).contact_id
            opting_out.opt_out(contact, "sms", reason="on the phone", actor=STAFF, now=timezone.now())
        over[pk] = time.monotonic()

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
            more = partial(own_json, "and blue?", user_id=people[pk])
            mine = [partial(reply, turn), partial(stop, pk, people[pk]), more, sender.send]
            jobs += [partial(in_a_moment, job) for job in random.sample(mine, len(mine))]
        failed = [result for result in outcomes(jobs, threads=16) if isinstance(result, Exception)]
        assert not failed, failed
        for turn in leases.claim(timezone.now(), AT_ONCE):  # a message came with the STOP, and owed a reply
            assert replies.commit(turn.turn_id, Reply("red!", "offline"), timezone.now()) == "dropped"

    while Message.objects.filter(status="queued").exists():
        sender.send()
    assert Contact.objects.filter(opted_out__has_key="sms").count() == INTERLEAVINGS
    assert not Conversation.objects.filter(reply_owed=True).exists()
    said = dict(Chunk.objects.filter(pk__in=Turn.objects.values("chunk")).values_list("conversation", "position"))
    notices = dict(Chunk.objects.filter(metadata__has_key="notice").values_list("conversation", "position"))
    assert all(said.get(pk, 0) < position for pk, position in notices.items())
    by_turns = set(Message.objects.filter(chunk__in=Turn.objects.values("chunk")).values_list("pk", flat=True))
    late = [pk for pk, message, asked_at in sender.left if message in by_turns and asked_at > over[pk]]
    assert late == []
    statuses = set(Message.objects.filter(pk__in=by_turns).values_list("status", flat=True))
    assert statuses <= {"delivered", "sent", "cancelled"}
    assert_sound()
