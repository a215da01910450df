"""What happens to a session while an engine writes: a reply that has not seen it does not go out."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone

from conversations.engines.contract import Reply
from conversations.models import Chunk, Conversation, Message, Turn
from conversations.services.core.ledger import Actor
from conversations.services.jobs import sweep
from conversations.services.replies import leases, pipeline
from conversations.services.staff_actions import send
from conversations.services.transitions import closing
from tests.races.hesitant import the_turn_ends
from tests.races.invariants import assert_sound
from tests.races.threads import eventually, shuffled, together
from tests.sizes import times

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

STAFF = Actor("staff", "grace")


def said_by_the_assistant():
    return list(Chunk.objects.filter(role="ai").values_list("content", flat=True))


def test_a_message_that_comes_meanwhile_is_in_the_one_reply(own_json, engine):
    own_json("one")
    first = engine.next()
    own_json("two")
    first.answer("to one")
    second = engine.next()
    assert second.heard == ["one", "two"]
    second.answer("to one and two")

    the_turn_ends(2)
    eventually(lambda: not Conversation.objects.get().reply_owed, "nothing owed any more")
    assert said_by_the_assistant() == ["to one and two"]
    assert list(Turn.objects.values_list("status", "draft")) == [
        ("overtaken", "to one"),
        ("committed", "to one and two"),
    ]
    assert_sound()


def test_somebody_who_never_stops_gets_the_third_draft_and_is_still_owed_a_reply(own_json, engine):
    own_json("zero")
    for number, more in enumerate(("one", "two", "three")):
        call = engine.next()
        own_json(more)
        call.answer(f"draft {number}")
        the_turn_ends(number + 1)
    assert said_by_the_assistant() == ["draft 2"]

    last = engine.next()
    assert last.heard == ["zero", "one", "two", "three"]
    assert last.said == ["draft 2"]
    last.answer("to all")

    eventually(lambda: not Conversation.objects.get().reply_owed, "nothing owed any more")
    assert said_by_the_assistant() == ["draft 2", "to all"]
    assert list(Turn.objects.values_list("status", flat=True)) == ["overtaken", "overtaken", "committed", "committed"]
    assert_sound()


def test_two_overtaken_drafts_count_anew_after_a_reply(own_json, engine):
    for round_ in range(2):
        own_json("one")
        for _ in range(2):
            call = engine.next()
            own_json("more")
            call.answer("dropped")
        engine.next().answer(f"reply {round_}")
        eventually(lambda: not Conversation.objects.get().reply_owed, "nothing owed any more")

    assert said_by_the_assistant() == ["reply 0", "reply 1"]
    assert_sound()


@pytest.mark.parametrize("fails", [True, False], ids=["the engine fails", "the engine answers"])
def test_nothing_is_said_in_a_session_that_was_closed_meanwhile(own_json, engine, fails):
    own_json("one")
    call = engine.next()
    closing.close(Conversation.objects.get().pk, ended_by="staff", actor=STAFF, now=timezone.now())
    call.fail() if fails else call.answer("too late")

    the_turn_ends()
    assert said_by_the_assistant() == []
    assert Turn.objects.get().status == "dropped"
    assert Turn.objects.get().code == "ended"
    assert not Message.objects.exists()
    assert_sound()


def test_nothing_is_said_in_a_session_that_expired_or_was_deleted_meanwhile(own_json, engine):
    own_json("one", user_id="guest")
    own_json("one", user_id="ann", phone="+51999999999")
    calls = [engine.next(), engine.next()]
    long_ago = timezone.now() - timedelta(hours=25)
    Conversation.objects.update(started_at=long_ago, last_message_at=long_ago)
    report = sweep.sweep(timezone.now())
    assert (report.expired, report.purged) == (2, 1)
    for call in calls:
        call.answer("too late")

    the_turn_ends()
    assert Turn.objects.get().code == "ended"
    assert said_by_the_assistant() == []


def test_what_a_program_says_meanwhile_takes_the_place_of_the_reply(own_json, engine):
    own_json("one")
    call = engine.next()
    send.send(Conversation.objects.get().pk, "from a person", actor=STAFF, now=timezone.now())
    call.answer("from the assistant")

    the_turn_ends()
    assert said_by_the_assistant() == ["from a person"]
    assert (Turn.objects.get().status, Turn.objects.get().code) == ("dropped", "answered")
    assert not Conversation.objects.get().reply_owed
    assert_sound()


def test_a_message_after_what_a_program_said_is_answered(own_json, engine):
    own_json("one")
    call = engine.next()
    send.send(Conversation.objects.get().pk, "from a person", actor=STAFF, now=timezone.now())
    own_json("two")
    call.answer("too early")
    second = engine.next()
    assert second.heard == ["one", "two"]
    second.answer("to two")

    eventually(lambda: not Conversation.objects.get().reply_owed, "nothing owed any more")
    assert said_by_the_assistant() == ["from a person", "to two"]
    assert_sound()


def test_a_reply_whose_lease_was_lost_is_not_said_beside_the_next_one(own_json, engine, settings):
    own_json("one")
    first = engine.next()
    Turn.objects.update(lease_until=timezone.now() - timedelta(seconds=1))  # as if its process had stood still
    leases.recover(timezone.now())
    second = engine.next()
    together(*shuffled([partial(first.answer, "lost"), partial(second.answer, "kept")]))

    the_turn_ends(2)
    assert said_by_the_assistant() == ["kept"]
    assert sorted(Turn.objects.values_list("status", flat=True)) == ["abandoned", "committed"]
    assert_sound()


def test_whatever_comes_as_a_reply_commits_no_message_stays_unseen(own_json):
    """Messages, a send or a close in the very moment of the commit, many times."""
    for round_ in range(times(4, 50)):
        for person in range(4):
            own_json("one", user_id=f"{round_} {person}")
        turns = leases.claim(timezone.now(), 10)
        for turn in turns:
            pipeline.prepare(turn)
        now = timezone.now()
        pks = [turn.conversation_id for turn in turns]
        together(
            *shuffled(
                [
                    *(partial(pipeline.commit, turn, Reply("to one", "offline"), now) for turn in turns),
                    *(partial(own_json, "two", user_id=f"{round_} {person}") for person in range(2)),
                    partial(send.send, pks[2], "from a person", actor=STAFF, now=now),
                    partial(closing.close, pks[3], ended_by="staff", actor=STAFF, now=now),
                ]
            )
        )
        for conversation in Conversation.objects.filter(pk__in=pks):
            last = conversation.chunks.last()
            assert conversation.reply_owed == (conversation.is_open and last.role == "user")
        assert_sound()


def test_a_slow_reply_does_not_hold_up_other_sessions(own_json, engine):
    own_json("slow", user_id="slow")
    slow = engine.next()
    for person in range(5):
        own_json("quick", user_id=f"quick {person}")
        engine.next().answer("at once")
    eventually(lambda: Message.objects.filter(status="delivered").count() == 5, "the quick ones' replies sent")
    slow.answer("at last")
    eventually(lambda: Message.objects.filter(status="delivered").count() == 6, "the slow one's reply sent")
    assert_sound()
