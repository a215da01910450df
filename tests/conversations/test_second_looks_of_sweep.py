"""The sweep and the archive look first and act later: what happened in between is seen before they act."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import Contact, Conversation
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.history import archive
from conversations.services.jobs import sweep
from conversations.services.retention import holds
from conversations.services.staff_actions import send
from conversations.services.transitions import takeover
from tests import factories
from tests.races.threads import not_committed

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
GRACE = Actor("staff", "grace")
KINDS = {"stale": 2 * HOUR, "expired": 25 * HOUR}


def write(session: Conversation) -> None:
    """Somebody writes in the conversation just now."""
    Conversation.objects.filter(pk=session.pk).update(last_message_at=timezone.now())


def status(session: Conversation) -> str:
    session.refresh_from_db()
    return session.status


def taken_long_ago(client: Any) -> Conversation:
    """A conversation that a colleague has, and that is to be handed back."""
    session = factories.ConversationFactory(client=client)
    takeover.take_over(session.pk, actor=GRACE, now=timezone.now() - 900 * HOUR)
    return session


# --- ageing -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("meanwhile", ["somebody writes", "a colleague takes it over"])
def test_a_conversation_in_which_something_happens_after_the_look_does_not_age(shop, monkeypatch, kind, meanwhile):
    session = factories.ConversationFactory(client=shop, aged=KINDS[kind])
    other = factories.ConversationFactory(client=shop, aged=KINDS[kind])
    act = sweep._in_batches

    def happens(*given: Any) -> int:
        if meanwhile == "somebody writes":
            write(session)
        else:
            takeover.take_over(session.pk, actor=GRACE, now=timezone.now())
        return act(*given)

    monkeypatch.setattr(sweep, "_in_batches", happens)
    report = sweep.sweep(timezone.now())
    assert getattr(report, kind) == 1
    assert (status(session), status(other)) == ("active", kind)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", KINDS)
def test_a_conversation_in_which_somebody_is_just_writing_does_not_age_and_holds_nothing_up(shop, kind):
    session = factories.ConversationFactory(client=shop, aged=KINDS[kind])
    with not_committed(lambda: write(session)):
        report = sweep.sweep(timezone.now())
    assert getattr(report, kind) == 0
    assert status(session) == "active"


def test_a_conversation_that_expires_waits_for_no_person_and_ends_what_was_asked(shop):
    session = factories.ConversationFactory(client=shop, aged=25 * HOUR, needs_staff_since=timezone.now())
    sweep.sweep(timezone.now())
    assert status(session) == "expired"
    assert session.needs_staff_since is None


# --- handing back -----------------------------------------------------------------------------------------------------
def test_a_colleague_who_writes_after_the_look_keeps_the_conversation(shop, monkeypatch):
    session, other = taken_long_ago(shop), taken_long_ago(shop)
    act = takeover.hand_back_abandoned

    def writes(*given: Any) -> int:
        send.send(session.pk, "I am still here.", actor=GRACE, now=timezone.now())
        return act(*given)

    monkeypatch.setattr(takeover, "hand_back_abandoned", writes)
    assert sweep.sweep(timezone.now()).handed_back == 1
    session.refresh_from_db()
    other.refresh_from_db()
    assert (session.taken_over_name, other.taken_over_name) == ("grace", "")


@pytest.mark.django_db(transaction=True)
def test_a_colleague_who_is_just_writing_keeps_the_conversation_and_holds_nothing_up(shop):
    session = taken_long_ago(shop)
    with not_committed(lambda: send.send(session.pk, "I am still here.", actor=GRACE, now=timezone.now())):
        assert sweep.sweep(timezone.now()).handed_back == 0
    session.refresh_from_db()
    assert session.taken_over_name == "grace"


# --- archiving --------------------------------------------------------------------------------------------------------
def remembered(client: Any, **more: Any) -> Conversation:
    """A conversation that ended long ago and is remembered."""
    at = timezone.now() - 90_000 * HOUR
    session = factories.ConversationFactory(
        **{
            "client": client,
            "status": "closed",
            "ended_by": "user",
            "ended_at": at,
            "last_message_at": at,
            "remembered_at": at,
            **more,
        }
    )
    session.chunks.create(position=1, role="user", content="Hello")
    return session


@pytest.mark.parametrize("by", ["time", "hand"])
@pytest.mark.parametrize("why", ["held", "its contact held", "changed since", "not remembered", "archived already"])
def test_what_may_not_be_archived_keeps_its_messages(shop, by, why):
    now = timezone.now()
    more: dict[str, Any] = {
        "held": {"hold_reason": "Case 4711"},
        "changed since": {"remember_due_at": now},
        "not remembered": {"remembered_at": None},
        "archived already": {"archived_at": now, "status": "archived"},
    }.get(why, {})
    session = remembered(shop, **more)
    if why == "its contact held":
        Contact.objects.filter(pk=session.contact_id).update(hold_reason="Case 4711")
    if by == "time":
        assert archive.archive(now) == 0
    else:
        with pytest.raises(Exception, match=r"on hold|has ended and is remembered"):
            archive.archive_one(session.pk, actor=SYSTEM, now=now)
    assert session.chunks.exists()
    assert session.events.filter(kind="archived").count() == 0


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("by", ["time", "hand"])
def test_a_hold_that_is_just_being_set_keeps_the_messages(shop, by):
    session = remembered(shop)
    with not_committed(lambda: holds.hold(session.pk, reason="Case 4711", actor=SYSTEM)):
        if by == "time":
            assert archive.archive(timezone.now()) == 0
        else:
            with pytest.raises(Exception, match="has ended and is remembered"):
                archive.archive_one(session.pk, actor=SYSTEM, now=timezone.now())
    assert session.chunks.exists()


def test_a_hold_that_comes_after_the_look_at_holds_keeps_the_messages(shop, monkeypatch):
    session = remembered(shop)
    look = holds.refuse_if_held

    def held_then(client_id: Any, conversation_id: Any) -> None:
        look(client_id, conversation_id)
        holds.hold(session.pk, reason="Case 4711", actor=SYSTEM)

    monkeypatch.setattr(holds, "refuse_if_held", held_then)
    with pytest.raises(Exception, match="has ended and is remembered"):
        archive.archive_one(session.pk, actor=SYSTEM, now=timezone.now())
    assert session.chunks.exists()
