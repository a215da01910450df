"""STOP at any moment of a reply's way: after its confirmation nothing is said, and nothing leaves."""

from __future__ import annotations

import random
import time

import pytest
from django.utils import timezone

from conversations.models import Chunk, Contact, Conversation, Message, Turn
from conversations.services.core.ledger import Actor
from conversations.services.delivery import opt_outs
from conversations.services.replies import leases
from tests import bounds
from tests.races.hesitant import the_turn_ends
from tests.races.interleavings import AT_ONCE, Sender, reply, rounds, sent_by_turns
from tests.races.invariants import assert_sound
from tests.races.threads import eventually
from tests.sizes import times

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

STAFF = Actor("staff", "grace")
INTERLEAVINGS = times(100, 1_000)


def test_a_reply_that_was_being_written_is_not_said(own_json, engine):
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
            opt_outs.opt_out(contact, "sms", reason="on the phone", actor=STAFF, now=timezone.now())
        over[pk] = time.monotonic()

    def more(_pk, person):
        own_json("and blue?", user_id=person)

    for failed in rounds(own_json, sender, INTERLEAVINGS, stop, more):
        assert not failed, failed
        for turn in leases.claim(timezone.now(), AT_ONCE):  # a message came with the STOP, and owed a reply
            assert reply(turn) == "dropped"

    queued = Message.objects.filter(status="queued")
    for _ in bounds.rounds("Sending", lambda: list(queued.values_list("pk", "conversation", "attempts", "due_at"))):
        if not queued.exists():
            break
        sender.send()
    assert Contact.objects.filter(opted_out__has_key="sms").count() == INTERLEAVINGS
    assert not Conversation.objects.filter(reply_owed=True).exists()
    said = dict(Chunk.objects.filter(pk__in=Turn.objects.values("chunk")).values_list("conversation", "position"))
    notices = dict(Chunk.objects.filter(metadata__has_key="notice").values_list("conversation", "position"))
    assert {pk: position for pk, position in notices.items() if said.get(pk, 0) >= position} == {}
    assert sender.sent_after(over) == []
    statuses = set(Message.objects.filter(pk__in=sent_by_turns()).values_list("status", flat=True))
    assert statuses <= {"delivered", "sent", "cancelled"}
    assert_sound()
