"""An erasure to its end: whose certificate it is, what a problem stops, and how long late writers are watched."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import timezone

from conversations.models import Client, Contact, Conversation, Correction, EngineChatRemoval, Erasure
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.retention import erasure, holds
from memory import services as memory
from memory.models import Memory
from tests import factories
from tests.races.threads import not_committed

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
TICK = timedelta(microseconds=1)
GRACE = Actor("staff", "grace")


def person(client: Client, conversations: int = 1) -> Contact:
    """Somebody with so many conversations, each with a reply and a step."""
    contact = factories.ContactFactory(client=client, is_guest=False)
    for number in range(conversations):
        session = factories.ConversationFactory(client=client, contact=contact, channel="voice", thread=f"{number}")
        chunk = session.chunks.create(position=1, role="user", content="Hello")
        Correction.objects.create(client=client, chunk=chunk, kind="correction", text="Good evening")
        factories.StepFactory(conversation=session)
    return contact


def begin(contact: Contact, now: datetime) -> Erasure:
    return erasure.begin(contact.pk, actor=GRACE, now=now)


def facts(of: Erasure) -> dict[str, Any]:
    of.refresh_from_db()
    return erasure.verify(of.certificate)


# --- the certificate --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("conversations", [0, 1, 3])
def test_everybody_who_is_erased_has_a_certificate(shop, conversations):
    contact, now = person(shop, conversations), timezone.now()
    begun = begin(contact, now)
    assert erasure.pending()
    assert erasure.continue_erasures(now + TICK) == 1
    found = facts(begun)
    assert found["contact"] == erasure.hash_id(contact.pk)
    assert len(found["sessions"]) == found["removed"]["sessions"] == conversations
    assert (found["asked_by"], found["client"], found["erasure"]) == ("grace", str(shop.pk), str(begun.pk))
    assert found["begun_at"] == now.isoformat()
    assert found["finished_at"] == (now + TICK).isoformat()
    assert found["proof"] == {
        "vectors": {"asked_for": 0, "found": 0, "asked_by": "id, and by contact"},
        "chats": {"asked_for": 0, "found": 0, "asked_by": "id"},
        "files": {"asked_for": 0, "found": 0, "asked_by": "folder"},
    }


def test_the_command_finishes_the_erasure_of_somebody_without_conversations(shop, capsys):
    contact = person(shop, 0)
    call_command("erase_contact", client=shop.sub_domain, contact=str(contact.pk))
    assert erasure.verify(capsys.readouterr().out)["contact"] == erasure.hash_id(contact.pk)


def test_each_of_several_has_their_own(shop, neighbour):
    now = timezone.now()
    begun = [begin(person(client, 2), now + number * HOUR) for number, client in enumerate((shop, neighbour, shop))]
    theirs = {each.pk: (erasure.hash_id(each.contact), sorted(map(erasure.hash_id, each.sessions))) for each in begun}
    assert erasure.continue_erasures(now + 2 * HOUR) == 3
    assert {each.pk: (found["contact"], found["sessions"]) for each in begun for found in [facts(each)]} == theirs
    assert erasure.continue_erasures(now + 2 * HOUR) == 0, "none is finished twice"


def test_what_one_person_had_is_counted_and_deleted_and_no_more(shop):
    other, contact = person(shop, 3), person(shop, 2)
    removed = begin(contact, timezone.now()).removed
    assert {name: removed[name] for name in ("sessions", "chunks", "corrections", "steps")} == {
        "sessions": 2,
        "chunks": 2,
        "corrections": 2,
        "steps": 2,
    }
    assert set(Conversation.objects.values_list("contact", flat=True)) == {other.pk}
    assert list(Contact.objects.all()) == [other]


# --- problems ---------------------------------------------------------------------------------------------------------
def test_a_problem_stops_its_own_erasure_and_no_other(shop, monkeypatch):
    now = timezone.now()
    first, second = begin(person(shop), now), begin(person(shop), now + TICK)
    confirm = memory.confirm_forgotten

    def away(client_id: Any, contact_id: Any, known: Any) -> None:
        if contact_id == first.contact:
            raise memory.StoreError("x" * 300, code="connect", retryable=True)
        confirm(client_id, contact_id, known)

    with monkeypatch.context() as broken:
        broken.setattr(memory, "confirm_forgotten", away)
        assert erasure.continue_erasures(now + HOUR) == 1
    for each in (first, second):
        each.refresh_from_db()
    assert first.problem == f"connect: {'x' * 300}"[:200]
    assert (first.certificate, first.finished_at) == ("", None)
    assert first.sessions, "its ids are still needed"
    assert (second.problem, bool(second.certificate)) == ("", True)
    assert erasure.continue_erasures(now + HOUR) == 1
    first.refresh_from_db()
    assert (first.problem, first.finished_at) == ("", now + HOUR)


def test_a_problem_is_not_told_of_somebody_who_is_erased_already(shop, monkeypatch):
    now = timezone.now()
    finished = begin(person(shop), now)
    assert erasure.continue_erasures(now + TICK) == 1
    stuck = begin(person(shop), now + 2 * TICK)

    def away(_client_id: Any, contact_id: Any, _known: Any) -> None:
        if contact_id == stuck.contact:
            raise memory.StoreError("Nobody is there.", code="connect", retryable=True)

    monkeypatch.setattr(memory, "confirm_forgotten", away)
    assert erasure.continue_erasures(now + 3 * TICK) == 0
    finished.refresh_from_db()
    stuck.refresh_from_db()
    assert (finished.problem, stuck.problem) == ("", "connect: Nobody is there.")


@pytest.mark.django_db(transaction=True)
def test_two_processes_finish_an_erasure_once(shop):
    now = timezone.now()
    begun = begin(person(shop), now)
    with not_committed(partial(erasure.continue_erasures, now + TICK)):
        assert erasure.continue_erasures(now + HOUR - TICK) == 0
    assert facts(begun)["finished_at"] == (now + TICK).isoformat()


# --- the watch --------------------------------------------------------------------------------------------------------
def test_it_is_watched_for_an_hour_to_the_instant(shop):
    now = timezone.now()
    begun = begin(person(shop), now)
    for later, watched in ((TICK, True), (HOUR - TICK, True), (HOUR, False)):
        erasure.continue_erasures(now + later)
        begun.refresh_from_db()
        assert erasure.pending() is watched
        assert bool(begun.sessions) is bool(begun.contact) is watched
    assert begun.finished_at == now + TICK, "the end of the watch is not the end of the erasure"
    assert not EngineChatRemoval.objects.exists()


def test_what_is_remembered_late_of_somebody_else_stays(shop):
    contact, other = person(shop), person(shop)
    begun, now = begin(contact, timezone.now()), timezone.now()
    theirs = other.conversations.get()
    for pk, whose in ((begun.sessions[0], contact), (theirs.pk, other)):
        Memory.objects.create(
            conversation_id=pk, client_id=shop.pk, contact_id=whose.pk or begun.contact, started_at=now, ended_at=now
        )
    erasure.continue_erasures(now)
    assert list(Memory.objects.values_list("pk", flat=True)) == [theirs.pk]


# --- who is not erased ------------------------------------------------------------------------------------------------
def test_an_alias_is_not_erased_alone(shop):
    contact = person(shop)
    alias = factories.ContactFactory(client=shop, is_guest=False, merged_into=contact)
    with pytest.raises(ConflictError, match="is an alias of another"):
        begin(alias, timezone.now())
    begin(contact, timezone.now())
    assert not Contact.objects.exists()
    with pytest.raises(NotFoundError, match="does not exist"):
        begin(contact, timezone.now())


def test_a_hold_is_of_one_person_and_of_their_conversations(shop):
    held, other = person(shop), person(shop)
    holds.hold(held.conversations.get().pk, reason="Case 4711", actor=SYSTEM)
    with pytest.raises(ConflictError, match="A conversation of this contact is on hold: Case 4711"):
        begin(held, timezone.now())
    begin(other, timezone.now())
    assert list(Contact.objects.all()) == [held]


@pytest.mark.django_db(transaction=True)
def test_somebody_who_is_just_being_put_on_hold_is_kept(shop):
    contact = person(shop)
    refused = pytest.raises(ConflictError, match="This contact is on hold: Case 4711")
    with not_committed(partial(holds.set_contact_hold, contact.client_id, contact.pk, "Case 4711")), refused:
        begin(contact, timezone.now())
    assert Conversation.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_hold_that_comes_too_late_says_so(shop):
    """Else somebody would believe that the person is kept."""
    contact = person(shop)
    refused = pytest.raises(NotFoundError, match="This contact does not exist")
    with not_committed(partial(begin, contact, timezone.now())), refused:
        holds.set_contact_hold(contact.client_id, contact.pk, "Case 4711")
