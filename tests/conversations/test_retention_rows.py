"""Retention at the instant of each deadline, in batches, and the rows beside those that it deletes."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import (
    Client,
    Contact,
    Conversation,
    EngineChat,
    EngineChatRemoval,
    InboundEvent,
    MessageTombstone,
    RetentionReport,
    Turn,
)
from conversations.models import RetentionRule as R
from conversations.services.retention import deletions, retention
from memory.models import Memory
from tests import factories
from tests.conversations.test_retention import ended, keep, payload
from tests.conversations.test_retention_rules import DAY, MAKES, guest, left, remembered, send_of, turn_of, web
from tests.races.threads import not_committed

pytestmark = pytest.mark.django_db

TICK = timedelta(microseconds=1)
SINCE = {R.WEB: "last_message_at", R.MEMORY: "ended_at", R.EVENTS: "received_at"}


def run(rule: R, at: datetime | None = None, **more: Any) -> retention.RetentionRun:
    return retention.run(at or timezone.now(), **{"by": "test", "rules": [rule], **more})


def since(row: Any, rule: R) -> datetime:
    """When the age of the row began."""
    of = row.conversation if rule in (R.TURNS, R.SENDS) else row
    of.refresh_from_db()
    found: datetime = getattr(of, SINCE.get(rule, "ended_at"))
    return found


# --- the instant ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("other", [None, 1, 9])
@pytest.mark.parametrize("rule", list(R))
def test_a_row_goes_at_its_instant_and_not_before(shop, neighbour, rule, other):
    """The rows of another client stay, with any days of its own."""
    model, make = MAKES[rule]
    keep(shop, rule, 5)
    if other:
        keep(neighbour, rule, other)
    at = since(make(shop, 1), rule) + 5 * DAY
    assert retention.preview(at - TICK, rules=[rule]).lines == {}
    assert run(rule, at - TICK).deleted(rule) == 0
    assert model.objects.count() == 1
    found = retention.preview(at, rules=[rule]).lines[shop.pk, rule]
    assert (found.deleted, found.oldest, found.held_back) == (1, at - 5 * DAY, 0)
    assert run(rule, at).deleted(rule) == 1
    assert not model.objects.exists()


@pytest.mark.parametrize("rule", [R.GUESTS, R.SESSIONS, R.TURNS, R.SENDS, R.EVENTS, R.MEMORY, R.WEB])
def test_days_of_a_setting_count_for_who_has_no_policy(shop, neighbour, settings, rule):
    model, make = MAKES[rule]
    for name in ("GUEST_DAYS", "COPILOT_IDLE_DAYS", "SESSION_DAYS", "MEMORY_DAYS", "TURN_DAYS", "SEND_DAYS"):
        setattr(settings, name, 5)
    settings.INBOUND_EVENT_DAYS = 5
    keep(neighbour, rule, 50)
    stays = make(neighbour, 9)
    make(shop, 9)
    assert run(rule).deleted(rule) == 1
    assert left(model) == {stays.pk}


# --- batches ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("rule", list(R))
def test_it_goes_on_batch_by_batch_and_tells_of_each(shop, neighbour, rule, monkeypatch):
    monkeypatch.setattr(deletions, "BATCH", 2)
    monkeypatch.setattr(deletions, "BATCH_BELOW", 2)
    model, make = MAKES[rule]
    keep(shop, rule, 5)
    keep(neighbour, rule, 5)
    for number in range(3):
        make(shop, 9 + number)
    for number in range(2):
        make(neighbour, 7 + number)
    told: list[tuple[str, int]] = []
    found = run(rule, progress=lambda what, count: told.append((what, count)))
    assert {what for what, _ in told} == {rule.shown}
    counts = [count for _, count in told]  # some go client by client, others in the order of their ends
    assert counts in ([2, 4, 5], [2, 3, 5])
    assert {client: line.deleted for (client, _), line in found.lines.items()} == {shop.pk: 3, neighbour.pk: 2}
    assert not model.objects.exists()


def test_the_oldest_is_reported_in_whatever_order_they_go(shop):
    keep(shop, R.EVENTS, 5)
    times = [since(payload(shop, days), R.EVENTS) for days in (7, 9, 8)]
    assert run(R.EVENTS).lines[shop.pk, R.EVENTS].oldest == min(times)


# --- beside a deleted conversation ------------------------------------------------------------------------------------
@pytest.mark.parametrize(("rule", "make"), [(R.GUESTS, guest), (R.SESSIONS, ended), (R.WEB, web)])
def test_the_chats_of_deleted_conversations_and_no_others_are_to_be_deleted_at_retell(shop, rule, make):
    keep(shop, rule, 5)
    for name, days in (("gone", 9), ("stays", 1)):
        EngineChat.objects.create(chat_id=name, conversation=make(shop, days), agent_id="a")
    now = timezone.now()
    run(rule, now)
    removal = EngineChatRemoval.objects.get()
    assert (removal.chat_id, removal.due_at, removal.attempts, removal.error) == ("gone", now, 0, "")
    assert [chat.chat_id for chat in EngineChat.objects.all()] == ["stays"]


def test_memory_and_tombstones_are_of_the_deleted_conversations(shop):
    keep(shop, R.SESSIONS, 5)
    gone, stays = remembered(shop, 9), remembered(shop, 1)
    for of in (gone, stays):
        session = Conversation.objects.get(pk=of.pk)
        session.chunks.create(position=1, role="user", content="Hello", dedupe_key=of.pk)
    run(R.SESSIONS)
    assert left(Memory) == {stays.pk}
    assert left(MessageTombstone) == {gone.pk}


def test_of_people_only_guests_of_the_deleted_conversations_go(shop):
    keep(shop, R.GUESTS, 5)
    known = guest(shop, 9)
    Contact.objects.filter(pk=known.contact_id).update(is_guest=False)
    back = guest(shop, 9)
    factories.ConversationFactory(client=shop, contact_id=back.contact_id, contact=back.contact)
    gone = guest(shop, 9)
    stay = {known.contact_id, back.contact_id}
    stay |= {factories.ContactFactory(client=shop, is_guest=is_guest).pk for is_guest in (True, False)}
    run(R.GUESTS)
    assert left(Contact) == stay
    assert gone.contact_id not in stay


# --- below a conversation ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "make", "kind"),
    [
        (R.TURNS, turn_of, "turns_deleted"),
        (R.SENDS, send_of, "receipts_deleted"),
    ],
)
def test_the_ledger_says_how_many_went_of_its_own_conversation(shop, rule, make, kind):
    keep(shop, rule, 5)
    one, three, young = ended(shop, 9), ended(shop, 8), ended(shop, 1)
    for session, number in ((one, 1), (three, 3), (young, 2)):
        for _ in range(number):
            make(session)
    assert run(rule).lines[shop.pk, rule].deleted == 4
    said = {session: list(session.events.values_list("kind", "data__deleted")) for session in (one, three, young)}
    assert said == {one: [(kind, 1)], three: [(kind, 3)], young: []}
    assert MAKES[rule][0].objects.filter(conversation=young).count() == 2


def test_memory_that_goes_changes_nothing_of_other_conversations(shop):
    keep(shop, R.MEMORY, 5)
    gone, young = remembered(shop, 9), remembered(shop, 1)
    lost = remembered(shop, 9)
    Conversation.objects.filter(pk=lost.pk).delete()
    now = timezone.now()
    Conversation.objects.update(remembered_at=now)
    run(R.MEMORY)
    assert left(Memory) == {young.pk}
    noted = Conversation.objects.filter(events__kind="memory_deleted").values_list("pk", flat=True)
    assert list(noted) == [gone.pk]
    assert dict(Conversation.objects.values_list("pk", "remembered_at")) == {gone.pk: None, young.pk: now}


# --- payloads and holds -----------------------------------------------------------------------------------------------
def test_a_hold_keeps_the_payloads_that_name_the_person_of_their_client_or_of_none(shop, neighbour, settings):
    settings.INBOUND_EVENT_DAYS = 5
    held = factories.ContactFactory(client=shop, user_id="zebulon", hold_reason="Case 1")
    stay = {payload(shop, 9, sender="zebulon").pk, payload(None, 9, sender="zebulon").pk}
    by_id = payload(shop, 9)
    InboundEvent.objects.filter(pk=by_id.pk).update(message_id="of zebulon")
    stay.add(by_id.pk)
    payload(neighbour, 9, sender="zebulon")
    payload(shop, 9, sender="somebody")
    payload(None, 9, sender="somebody")
    found = run(R.EVENTS)
    assert left(InboundEvent) == stay
    kept = {client: line.held_back for (client, _), line in found.lines.items() if line.held_back}
    assert kept == {shop.pk: 2, None: 1}
    Contact.objects.filter(pk=held.pk).update(hold_reason="")
    assert run(R.EVENTS).deleted(R.EVENTS) == 3


@pytest.mark.parametrize("rule", [R.GUESTS, R.WEB, R.SESSIONS, R.MEMORY, R.TURNS, R.SENDS])
def test_what_a_hold_keeps_is_counted_for_its_client(shop, neighbour, rule):
    _, make = MAKES[rule]
    for client in (shop, neighbour):
        keep(client, rule, 5)
    make(shop, 9)
    make(shop, 8)
    make(neighbour, 9)
    Contact.objects.filter(client=shop).update(hold_reason="Case 1")
    seen = retention.preview(timezone.now(), rules=[rule])
    only_theirs = retention.preview(timezone.now(), client=neighbour, rules=[rule])
    assert {client: (line.deleted, line.held_back) for (client, _), line in seen.lines.items()} == {
        shop.pk: (0, 2),
        neighbour.pk: (1, 0),
    }
    assert list(only_theirs.lines) == [(neighbour.pk, rule)]
    assert (run(rule).deleted(rule), run(rule).held_back(rule)) == (1, 2)


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("rule", [R.EVENTS, R.MEMORY])
def test_what_somebody_has_locked_is_left_for_the_next_run(shop, rule):
    model, make = MAKES[rule]
    keep(shop, rule, 5)
    row = make(shop, 9)
    with not_committed(lambda: model.objects.select_for_update().get(pk=row.pk)):
        assert run(rule).deleted(rule) == 0
    assert left(model) == {row.pk}
    assert run(rule).deleted(rule) == 1


# --- the run and its report -------------------------------------------------------------------------------------------
def test_a_purge_names_at_most_three_and_counts_all(shop):
    keep(shop, R.GUESTS, 5)
    due = {str(guest(shop, 9).pk) for _ in range(4)}
    guest(shop, 1)
    guest(shop, 9, hold_reason="Case 1")
    count, named = retention.count_guests_due(timezone.now())
    assert (count, len(named), set(named) < due) == (4, 3, True)
    assert retention.purge_guests(timezone.now()) == 4
    report = RetentionReport.objects.get()
    assert (report.client, report.by, report.lines[0]["deleted"]) == (shop, "sweep", 4)


def test_reports_are_kept_for_400_days_to_the_instant(shop):
    now = timezone.now()
    for days in (timedelta(days=400), timedelta(days=400, microseconds=1)):
        RetentionReport.objects.create(by=str(days.microseconds), started_at=now - days)
    run(R.SESSIONS, now, by="x" * 200)
    assert sorted(report.by for report in RetentionReport.objects.all()) == ["0", "x" * 150]


def test_a_client_that_is_deleted_meanwhile_gets_no_report_and_spoils_no_other(shop, neighbour):
    """Its rows were deleted all the same."""
    for client in (shop, neighbour):
        keep(client, R.EVENTS, 5)
        payload(client, 9)

    def deletes(_what: str, _count: int) -> None:
        Client.objects.filter(pk=neighbour.pk).delete()

    assert run(R.EVENTS, progress=deletes).deleted(R.EVENTS) == 2
    assert [report.client for report in RetentionReport.objects.all()] == [shop]


def test_a_clean_up_runs_every_rule_and_counts_each(shop):
    for rule in R:
        keep(shop, rule, 5)
    for rule in (R.GUESTS, R.WEB, R.SESSIONS, R.EVENTS):
        MAKES[rule][1](shop, 9)
    ended(shop, 9, hold_reason="Case 1")
    report = retention.clean_up(timezone.now())
    assert (report.guest_sessions, report.web_sessions, report.sessions, report.inbound_events) == (1, 1, 1, 1)
    assert (report.memories, report.turns, report.sends, report.held_back, report.skipped) == (0, 0, 0, 1, False)
    assert not Turn.objects.exists()
