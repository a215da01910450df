"""A message and the end of its session at the same moment: the message is in exactly one session."""

from __future__ import annotations

import random
from datetime import timedelta
from functools import partial

import pytest
from django.db.models import F
from django.utils import timezone

from conversations.models import Chunk, Conversation
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import Actor
from conversations.services.jobs import sweep
from conversations.services.staff_actions import send
from conversations.services.transitions import closing
from tests.races.invariants import assert_sound
from tests.races.threads import outcomes, shuffled, together
from tests.sizes import times

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

ROUNDS = times(1, 10)
PEOPLE = [f"51999990{number:03}" for number in range(24)]
STAFF = Actor("staff", "grace")


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    """The sweep goes through its sessions in many steps, with messages in between."""
    monkeypatch.setattr(sweep, "BATCH", 3)


def rounds(won):
    """Numbers, until the sweep was faster in some of the rounds and a message in others: until all of `won` are."""
    for round_ in range(30 * ROUNDS):
        if round_ >= ROUNDS and all(won.values()):
            return
        yield round_
    pytest.fail(f"One was always faster than the other, so this tried nothing: {won}")


def open_sessions(says, round_, age):
    """Everybody has a session whose last message is so old; somebody with a phone, so that none is deleted."""
    for person in PEOPLE:
        says("before", user_id=person, message_id=f"before {round_} {person}", phone=f"+{person}")
    Chunk.objects.filter(conversation__in=Conversation.objects.open()).update(created_at=F("created_at") - age)
    Conversation.objects.open().update(started_at=F("started_at") - age, last_message_at=F("last_message_at") - age)


def sweeps():
    return [partial(sweep.sweep, timezone.now())] * 3


def messages(says, round_):
    return [
        partial(says, "now", user_id=person, message_id=f"{part} {round_} {person}", phone=f"+{person}")
        for person in PEOPLE
        for part in ("first", "second")
    ]


def assert_everything_was_said_once(round_):
    for person in PEOPLE:
        ids = [f"{part} {round_} {person}" for part in ("first", "second")]
        assert Chunk.objects.filter(message_id__in=ids).count() == 2
        assert Conversation.objects.open().filter(contact__phone=f"+{person}").count() <= 1
    assert Conversation.objects.values("contact").distinct().count() == len(PEOPLE)
    assert_sound()


def test_a_message_that_arrives_while_its_session_expires_is_in_the_one_open_session(says):
    won = {"message": 0, "sweep": 0}
    for round_ in rounds(won):
        open_sessions(says, round_, timedelta(hours=25))
        before = set(Conversation.objects.open().values_list("pk", flat=True))
        together(*sweeps(), *shuffled(messages(says, round_)))

        assert_everything_was_said_once(round_)
        # It is in the old session, which lives on, or in a new one, and the old one has expired.
        assert Conversation.objects.open().count() == len(PEOPLE)
        assert not Chunk.objects.filter(conversation__status="expired", message_id__contains=f" {round_} ").exclude(
            message_id__startswith="before"
        )
        kept = before & set(Conversation.objects.open().values_list("pk", flat=True))
        won["message"] += len(kept)
        won["sweep"] += len(PEOPLE) - len(kept)


def test_a_message_that_arrives_while_its_session_becomes_stale_leaves_it_active(says):
    won = {"sweep": 0}
    for round_ in rounds(won):
        open_sessions(says, round_, timedelta(minutes=11))
        together(*sweeps(), *shuffled(messages(says, round_)))

        assert_everything_was_said_once(round_)
        assert Conversation.objects.count() == len(PEOPLE)
        assert set(Conversation.objects.values_list("status", flat=True)) == {"active"}
        for conversation in Conversation.objects.all():
            changes = list(conversation.events.filter(kind__in=["stale", "revived"]).values_list("kind", flat=True))
            assert changes == ["stale", "revived"] * (len(changes) // 2)
            won["sweep"] += bool(changes)


def test_a_message_that_arrives_while_staff_close_its_session_is_in_one_session(says):
    for round_ in range(ROUNDS):
        open_sessions(says, round_, timedelta(0))
        closers = [
            partial(closing.close, pk, ended_by="staff", actor=STAFF, now=timezone.now())
            for pk in Conversation.objects.open().values_list("pk", flat=True)
        ]
        together(*shuffled([*closers, *closers, *messages(says, round_)]))

        assert_everything_was_said_once(round_)
    for conversation in Conversation.objects.filter(status="closed"):
        assert conversation.events.filter(kind="closed").count() == 1


def test_of_a_close_and_an_expiry_one_wins(own_json):
    for round_ in range(ROUNDS):
        open_sessions(own_json, round_, timedelta(hours=25))
        closers = [
            partial(closing.close, pk, ended_by="user", actor=STAFF, now=timezone.now())
            for pk in Conversation.objects.open().values_list("pk", flat=True)
        ]
        results = outcomes([*sweeps(), *shuffled(closers)])

        refused = [result for result in results if isinstance(result, Exception)]
        assert {(type(error), getattr(error, "code", repr(error))) for error in refused} <= {(ConflictError, "ended")}
        assert Conversation.objects.open().count() == 0
        assert_sound()


def test_what_is_said_for_the_assistant_while_a_session_ends_is_said_before_its_end_or_refused(own_json):
    for round_ in range(ROUNDS):
        open_sessions(own_json, round_, timedelta(0))
        jobs = []
        for pk in Conversation.objects.open().values_list("pk", flat=True):
            jobs.append(partial(closing.close, pk, ended_by="staff", actor=STAFF, now=timezone.now()))
            jobs += [partial(send.send, pk, "Bye", actor=STAFF, now=timezone.now())] * 2
        results = outcomes(random.sample(jobs, len(jobs)))

        refused = [result for result in results if isinstance(result, Exception)]
        assert {(type(error), getattr(error, "code", repr(error))) for error in refused} <= {(ConflictError, "ended")}
        assert_sound()
