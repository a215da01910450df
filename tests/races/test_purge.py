"""A guest's session is deleted while the guest writes, or while a provider delivers again what was in it."""

from __future__ import annotations

import threading
from datetime import timedelta
from functools import partial

import pytest
from django.db.models import F
from django.utils import timezone

from conversations.models import Chunk, Contact, Conversation, MessageTombstone
from conversations.services.core.errors import ConflictError
from conversations.services.inbound import messages
from conversations.services.jobs import sweep
from conversations.services.staff_actions import seed_helpers
from tests.races.invariants import assert_sound
from tests.races.threads import outcomes, shuffled, together
from tests.sizes import times

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

ROUNDS = times(1, 10)
GUESTS = [f"5199990{number:04}" for number in range(24)]
DAY_OLD = timedelta(hours=25)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    """The purge goes through its sessions in many steps, with messages in between."""
    monkeypatch.setattr(sweep, "BATCH", 3)


def guests_fall_silent(says, round_):
    """Every guest has said something, more than a day ago."""
    for guest in GUESTS:
        says("old", user_id=guest, message_id=f"old {round_} {guest}")
    Chunk.objects.update(created_at=F("created_at") - DAY_OLD)
    Conversation.objects.update(started_at=F("started_at") - DAY_OLD, last_message_at=F("last_message_at") - DAY_OLD)


def sweeps():
    return [partial(sweep.sweep, timezone.now())] * 3


def forget_everybody():
    Conversation.objects.all().delete()
    Contact.objects.all().delete()


def test_a_message_delivered_again_before_during_and_after_the_purge_opens_nothing(says):
    for round_ in range(ROUNDS):
        guests_fall_silent(says, round_)
        again = [partial(says, "old", user_id=guest, message_id=f"old {round_} {guest}") for guest in GUESTS]
        answers = together(*sweeps(), *shuffled(again * 4))[3:]
        sweep.sweep(timezone.now())
        answers += together(*again)

        assert [answer for answer in answers if not answer["duplicate"]] == []
        assert [answer for answer in answers if answer["created"]] == []
        assert {(answer["status"], answer["chunk_id"] is None) for answer in answers[-len(GUESTS) :]} == {
            ("deleted", True)
        }
        assert not Conversation.objects.exists()
        assert not Contact.objects.exists()
        assert MessageTombstone.objects.count() == len(GUESTS) * (round_ + 1)
        assert_sound()


def test_a_guest_who_comes_back_during_the_purge_has_one_session_with_everything_new(says):
    for round_ in range(ROUNDS):
        guests_fall_silent(says, round_)
        jobs = []
        for guest in GUESTS:
            jobs += [partial(says, "old", user_id=guest, message_id=f"old {round_} {guest}")] * 2
            jobs += [
                partial(says, "new", user_id=guest, message_id=f"{part} {round_} {guest}")
                for part in ("first", "second", "second")
            ]
        together(*sweeps(), *shuffled(jobs))
        sweep.sweep(timezone.now())

        assert Contact.objects.count() == Conversation.objects.open().count() == Conversation.objects.count() == 24
        for guest in GUESTS:
            [conversation] = Conversation.objects.filter(contact__user_id=guest)
            new = Chunk.objects.filter(message_id__in=[f"first {round_} {guest}", f"second {round_} {guest}"])
            assert {chunk.conversation_id for chunk in new} == {conversation.pk}
            assert len(new) == 2
        assert_sound()
        forget_everybody()


@pytest.mark.parametrize("learned", ["phone", "name"])
def test_a_guest_who_gives_a_phone_or_name_during_the_purge_is_heard(says, learned):
    for round_ in range(ROUNDS):
        guests_fall_silent(says, round_)
        jobs = [
            partial(says, "new", user_id=guest, **{learned: f"+{guest}" if learned == "phone" else "Ann"})
            for guest in GUESTS
        ]
        together(*sweeps(), *shuffled(jobs))

        assert Conversation.objects.open().count() == Contact.objects.count() == len(GUESTS)
        assert Chunk.objects.filter(content="new").count() == len(GUESTS)
        assert Contact.objects.filter(is_guest=True).count() == (0 if learned == "phone" else len(GUESTS))
        assert_sound()
        forget_everybody()


def test_a_session_opened_for_a_guest_by_a_program_during_the_purge_is_opened(own_json, shop, monkeypatch):
    for round_ in range(ROUNDS):
        guests_fall_silent(own_json, round_)
        with monkeypatch.context() as without_purge:
            without_purge.setattr(sweep, "purge_guests", lambda *_: 0)
            sweep.sweep(timezone.now())
        jobs = [partial(seed_helpers.create_conversation, shop.pk, guest, "sms", "Ask") for guest in GUESTS]
        results = outcomes([*[seed_helpers.delete_guest_expired] * 3, *shuffled(jobs * 2)])[3:]

        refused = [result for result in results if isinstance(result, Exception)]
        assert {(type(error), getattr(error, "code", repr(error))) for error in refused} <= {
            (ConflictError, "already_open")
        }
        assert len(results) - len(refused) == len(GUESTS)
        assert Conversation.objects.open().count() == Contact.objects.count() == len(GUESTS)
        assert_sound()
        forget_everybody()


def test_a_guest_loses_no_session_that_a_sweep_finds_while_the_phone_is_captured(own_json):
    for round_ in range(ROUNDS):
        guests_fall_silent(own_json, round_)
        jobs = [partial(own_json, "new", channel="whatsapp", user_id=guest, phone=f"+{guest}") for guest in GUESTS]
        together(*sweeps(), *shuffled(jobs))

        # The old session was deleted while it was a guest's, or it stays.
        assert not Conversation.objects.filter(contact__is_guest=False, is_guest=True).exists()
        assert Conversation.objects.open().filter(channel="whatsapp").count() == len(GUESTS)
        assert_sound()
        forget_everybody()


@pytest.mark.parametrize("answered", ["nothing is open", "another session is open"])
def test_a_delivery_that_was_overtaken_by_the_whole_life_of_its_session_opens_nothing(own_json, monkeypatch, answered):
    """The process that takes the second delivery stands still (a suspended machine) between looking and writing."""
    looked, go_on, this_thread = threading.Event(), threading.Event(), threading.local()
    look = messages.append_by_key

    async def slowly(*arguments):
        found = await look(*arguments)
        if hasattr(this_thread, "is_slow"):
            looked.set()
            assert go_on.wait(30)
        return found

    monkeypatch.setattr(messages, "append_by_key", slowly)

    def slow():
        this_thread.is_slow = True
        return own_json("old", message_id="m1")

    def meanwhile():
        assert looked.wait(30)
        own_json("old", message_id="m1")
        sweep.sweep(timezone.now() + DAY_OLD)
        if answered == "another session is open":
            own_json("new", message_id="m2")
        go_on.set()

    answer, _ = together(slow, meanwhile)

    assert (answer["duplicate"], answer["status"]) == (True, "deleted")
    assert list(Chunk.objects.filter(role="user").values_list("content", flat=True)) == (
        ["new"] if answered == "another session is open" else []
    )
    assert_sound()
