"""Each retention rule takes some rows and leaves others: by age, client, state and what comes meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest
from django.db import OperationalError
from django.utils import timezone

from conversations.models import (
    Chunk,
    Contact,
    Conversation,
    InboundEvent,
    Message,
    RefusedWebhooks,
    RetentionReport,
    ToolCall,
    Turn,
)
from conversations.models import RetentionRule as R
from conversations.services.core.ledger import SYSTEM
from conversations.services.retention import deletions, holds, retention
from memory import services as memory
from memory.models import Memory
from tests import factories
from tests.conversations.test_retention import ended, keep, payload
from tests.races.threads import not_committed

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def web(client: Any, days: float) -> Conversation:
    """An open session on the web in which somebody wrote last so many days ago, and first long before."""
    at = timezone.now() - days * DAY
    return factories.ConversationFactory(
        client=client, channel="web", thread=f"{days}", last_message_at=at, started_at=at - 900 * DAY
    )


def remembered(client: Any, days: float, **more: Any) -> Memory:
    at = timezone.now() - days * DAY
    session = ended(client, days)
    more = {"conversation_id": session.pk, "contact_id": session.contact_id, **more}
    return Memory.objects.create(client_id=client.pk, channel="sms", started_at=at, ended_at=at, **more)


def turn_of(session: Conversation, **more: Any) -> Turn:
    now = timezone.now()
    return Turn.objects.create(
        **{
            "conversation": session,
            "status": "committed",
            "attempt": 1,
            "inbound_sequence": 1,
            "lease_until": now,
            **more,
        }
    )


def send_of(session: Conversation, status: str = "sent") -> Message:
    position = session.chunks.count() + 1
    chunk = Chunk.objects.create(conversation=session, position=position, role="ai", content="x")
    return Message.objects.create(
        conversation=session, chunk=chunk, to_address="1", to_kind="phone", text="x", status=status
    )


def guest(client: Any, days: float, **more: Any) -> Conversation:
    return ended(client, days, **{"status": "expired", "ended_by": "timeout", "is_guest": True, **more})


MAKES: dict[R, tuple[Any, Callable[[Any, float], Any]]] = {
    R.GUESTS: (Conversation, guest),
    R.WEB: (Conversation, web),
    R.SESSIONS: (Conversation, ended),
    R.MEMORY: (Memory, remembered),
    R.TURNS: (Turn, lambda client, days: turn_of(ended(client, days))),
    R.SENDS: (Message, lambda client, days: send_of(ended(client, days))),
    R.EVENTS: (InboundEvent, payload),
}


def left(model: Any) -> set[Any]:
    return set(model.objects.values_list("pk", flat=True))


def run(rule: R, **more: Any) -> retention.RetentionRun:
    return retention.run(timezone.now(), by="test", rules=[rule], **more)


# --- by age and client ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", list(R))
def test_a_rule_takes_what_is_older_than_its_client_s_days_and_nothing_else(shop, neighbour, rule):
    model, make = MAKES[rule]
    channel = "sms" if rule == R.WEB else "voice"
    keep(shop, rule, 5)
    keep(shop, rule, 1, channel=channel)
    keep(neighbour, rule, 50)
    for other in set(R) - {rule}:
        keep(shop, other, 1)
    stay = {make(shop, 4).pk, make(neighbour, 49).pk}
    make(shop, 6)
    make(neighbour, 51)
    found = retention.preview(timezone.now(), rules=[rule])
    assert (found.lines[shop.pk, rule].deleted, found.lines[neighbour.pk, rule].deleted) == (1, 1)
    assert run(rule).deleted(rule) == 2
    assert left(model) == stay


@pytest.mark.parametrize(("rule", "make"), [(R.TURNS, turn_of), (R.SENDS, send_of)])
def test_days_for_a_status_are_for_that_status(shop, rule, make):
    keep(shop, rule, 50)
    keep(shop, rule, 5, status="expired")
    stays = make(ended(shop, 9))
    make(ended(shop, 9, status="expired", ended_by="timeout"))
    run(rule)
    assert left(type(stays)) == {stays.pk}


# --- by state ---------------------------------------------------------------------------------------------------------
def in_every_state(client: Any) -> dict[Any, str]:
    """One session of every kind, each without a message for a hundred days, by its id."""
    archived = {"status": "archived", "archived_at": timezone.now()}
    open_ = {"aged": 100 * DAY, "client": client}
    kinds = {
        "open": factories.ConversationFactory(**open_),
        "open guest's": factories.ConversationFactory(**open_, is_guest=True),
        "open on the web": factories.ConversationFactory(**open_, channel="web", thread="1"),
        "stale on the web": factories.ConversationFactory(**open_, channel="web", thread="2", status="stale"),
        "closed on the web": ended(client, 100, channel="web", thread="3"),
        "closed": ended(client, 100),
        "closed guest's": ended(client, 100, is_guest=True),
        "expired": ended(client, 100, status="expired", ended_by="timeout"),
        "expired guest's": guest(client, 100),
        "archived": ended(client, 100, **archived),
    }
    return {session.pk: kind for kind, session in kinds.items()}


ENDED = {"closed on the web", "closed", "closed guest's", "expired", "archived"}


@pytest.mark.parametrize(
    ("rule", "takes"),
    [
        (R.GUESTS, {"expired guest's"}),
        (R.WEB, {"open on the web", "stale on the web"}),
        (R.SESSIONS, ENDED),
        (R.TURNS, {*ENDED, "expired guest's"}),
        (R.SENDS, {*ENDED, "expired guest's"}),
    ],
)
def test_a_rule_takes_the_sessions_of_its_own_state(shop, rule, takes):
    keep(shop, rule, 5)
    kinds = in_every_state(shop)
    for session in Conversation.objects.all():
        turn_of(session)
        send_of(session)
    run(rule)
    model = {R.TURNS: Turn, R.SENDS: Message}.get(rule)
    still = model.objects.values_list("conversation", flat=True) if model else left(Conversation)
    assert {kind for pk, kind in kinds.items() if pk not in set(still)} == takes


@pytest.mark.parametrize("status", ["queued", "claimed", "sending"])
def test_a_send_that_is_on_its_way_stays_with_its_session(shop, status):
    keep(shop, R.SENDS, 5)
    on_its_way = send_of(session := ended(shop, 9), status)
    found = retention.preview(timezone.now(), rules=[R.SENDS])
    assert found.deleted(R.SENDS) == 0, "a session with nothing but that is not announced"
    send_of(session)
    assert run(R.SENDS).deleted(R.SENDS) == 1
    assert left(Message) == {on_its_way.pk}


def test_a_turn_that_runs_and_a_call_that_is_made_stay_with_their_session(shop):
    keep(shop, R.TURNS, 5)
    session, young = ended(shop, 9), ended(shop, 1)
    running, other_s = turn_of(session, status="running"), turn_of(young)
    assert retention.preview(timezone.now(), rules=[R.TURNS]).deleted(R.TURNS) == 0
    turn_of(session)

    def call(of: Conversation, status: str) -> Any:
        return ToolCall.objects.create(client=shop, conversation=of, name="refund", status=status, is_open=False).pk

    call(session, "answered")
    stay = {call(session, "calling"), call(young, "answered")}
    assert run(R.TURNS).deleted(R.TURNS) == 1
    assert (left(Turn), left(ToolCall)) == ({running.pk, other_s.pk}, stay)


def test_an_archived_session_whose_memory_goes_was_remembered_all_the_same(shop):
    keep(shop, R.MEMORY, 5)
    now = timezone.now()
    for session in (archived := ended(shop, 9, status="archived", archived_at=now), closed := ended(shop, 9)):
        Conversation.objects.filter(pk=session.pk).update(remembered_at=now)
        at = session.ended_at
        Memory.objects.create(
            conversation_id=session.pk, client_id=shop.pk, contact_id=session.contact_id, started_at=at, ended_at=at
        )
    run(R.MEMORY)
    archived.refresh_from_db()
    closed.refresh_from_db()
    assert (archived.remembered_at, closed.remembered_at) == (now, None)


@pytest.mark.parametrize("held", ["the session", "its contact", "the contact of a session that is gone"])
def test_memory_of_what_is_on_hold_stays(shop, held):
    keep(shop, R.MEMORY, 5)
    stays = remembered(shop, 9)
    remembered(shop, 9)
    if held == "the session":
        Conversation.objects.filter(pk=stays.pk).update(hold_reason="Case 4711")
    else:
        Contact.objects.filter(pk=stays.contact_id).update(hold_reason="Case 4711")
    if held == "the contact of a session that is gone":
        Conversation.objects.all().delete()
    assert run(R.MEMORY).held_back(R.MEMORY) == 1
    assert left(Memory) == {stays.pk}


# --- what comes meanwhile ---------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("on", ["contact", "session"])
@pytest.mark.parametrize("rule", [R.GUESTS, R.WEB, R.SESSIONS, R.TURNS, R.SENDS])
def test_a_hold_that_is_just_being_set_is_not_overtaken(shop, rule, on):
    model, make = MAKES[rule]
    keep(shop, rule, 5)
    row = make(shop, 9)
    session = row if isinstance(row, Conversation) else row.conversation

    def hold() -> None:
        if on == "contact":
            holds.set_contact_hold(session.client_id, session.contact_id, "Case 4711")
        else:
            holds.hold(session.pk, reason="Case 4711", actor=SYSTEM)

    with not_committed(hold):
        run(rule)
        assert not Contact.objects.exclude(hold_reason="").exists(), "the hold is not committed yet"
        assert not Conversation.objects.exclude(hold_reason="").exists()
    assert left(model) == {row.pk}
    run(rule)
    assert left(model) == {row.pk}


def test_a_guest_who_is_put_on_hold_as_their_session_goes_stays(shop, monkeypatch):
    session = guest(shop, 9)
    delete = deletions._delete_batch

    def then_held(*given: Any) -> Any:
        gone = delete(*given)
        holds.set_contact_hold(session.client_id, session.contact_id, "Case 4711")
        return gone

    monkeypatch.setattr(deletions, "_delete_batch", then_held)
    run(R.GUESTS)
    assert not Conversation.objects.exists()
    assert Contact.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_guest_for_whom_a_session_is_just_being_opened_stays(shop, monkeypatch):
    session = guest(shop, 9)
    delete = deletions._delete_guests

    def opens() -> None:
        contact = Contact.objects.select_for_update(no_key=True).get(pk=session.contact_id)
        factories.ConversationFactory(client=shop, contact=contact)

    def meanwhile(client_id: Any, contact_ids: Any) -> None:
        with not_committed(opens):
            delete(client_id, contact_ids)
            assert not Conversation.objects.exists(), "it is not committed yet"

    monkeypatch.setattr(deletions, "_delete_guests", meanwhile)
    assert run(R.GUESTS).errors() == []
    assert Conversation.objects.get().contact_id == session.contact_id


# --- the run ----------------------------------------------------------------------------------------------------------
def test_a_run_drops_reports_and_counts_that_are_too_old(shop):
    now = timezone.now()
    old = RetentionReport.objects.create(by="old", started_at=now - 401 * DAY)
    RetentionReport.objects.create(by="newer", started_at=now - 399 * DAY)
    for days in (31, 29):
        day: date = (now - days * DAY).date()
        RefusedWebhooks.objects.create(channel="sms", provider="plivo", day=day, last_at=now)
    retention.clean_up(now)
    assert not RetentionReport.objects.filter(pk=old.pk).exists()
    assert RetentionReport.objects.filter(by="newer").exists()
    assert [refused.day for refused in RefusedWebhooks.objects.all()] == [(now - 29 * DAY).date()]


def test_a_purge_that_finds_everything_held_leaves_no_report(shop):
    guest(shop, 9, hold_reason="Case 4711")
    assert retention.purge_guests(timezone.now()) == 0
    assert not RetentionReport.objects.exists()


def test_a_database_that_is_away_ends_the_run_and_is_no_result_of_a_rule(shop, monkeypatch):
    def away(*_: Any) -> None:
        raise OperationalError("away")

    monkeypatch.setitem(deletions.DELETE, R.SESSIONS, away)
    with pytest.raises(OperationalError):
        run(R.SESSIONS)
    assert not RetentionReport.objects.exists()


def test_vectors_that_cannot_be_cleared_stand_in_the_report(shop, monkeypatch):
    def away(_seconds: float) -> None:
        raise memory.StoreError("Away.", code="connect", retryable=True)

    monkeypatch.setattr(memory, "delete_orphaned_vectors", away)
    assert run(R.MEMORY).errors() == ["memory: connect"]
