"""The clock: what it announces happens exactly then, by the same code, and what it says is held does not."""

from __future__ import annotations

import io
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from django.core.management import call_command
from django.urls import reverse
from django.utils import timezone

from channels_out.errors import SendError
from conversations.engines.contract import EngineError
from conversations.models import (
    ChannelAccount,
    Client,
    Conversation,
    Message,
    RetentionReport,
    SendPause,
    Turn,
)
from conversations.models import RetentionRule as R
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import claiming
from conversations.services.delivery import sending as delivery
from conversations.services.history import archive, remember
from conversations.services.jobs import forecast, sweep
from conversations.services.jobs.upcoming import UpcomingEvent
from conversations.services.replies import leases, pipeline
from conversations.services.retention import holds, policies, retention
from conversations.services.retention.policies import Policy
from conversations.services.transitions import takeover
from memory.models import Memory
from tests import factories
from tests.bounds import rounds
from tests.claims import message_ids
from tests.conftest import reply_to_all, send_all
from tests.conversations.conftest import close

pytestmark = pytest.mark.django_db
MOMENT = timedelta(milliseconds=1)
DAY = timedelta(days=1)
DRY_RUN = {"stale": "stale", "expired": "expired", "handed_back": "handed_back"}


def state(pk: Any) -> dict[str, Any]:
    """What there is of the session."""
    conversation = Conversation.objects.filter(pk=pk).first()
    if conversation is None:
        return {"status": "gone"}
    return {
        "status": conversation.status,
        "taken": conversation.taken_over_at is not None,
        "turns": conversation.turns.exists(),
        "receipts": conversation.messages.exists(),
        "memory": Memory.objects.filter(pk=pk).exists(),
    }


def happened(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The word for the difference; '' for none."""
    if after["status"] != before["status"]:
        return "deleted" if after["status"] == "gone" else after["status"]
    if before["status"] == "gone":
        return ""
    if before["taken"] and not after["taken"]:
        return "handed_back"
    return " ".join(f"{name}_deleted" for name in ("turns", "receipts", "memory") if before[name] and not after[name])


def all_jobs(now: datetime) -> None:
    """Whatever runs by the clock."""
    sweep.sweep(now)
    archive.archive(now)
    retention.clean_up(now)


def announced(pk: Any, now: datetime) -> list[UpcomingEvent]:
    conversation = Conversation.objects.select_related("contact", "client").filter(pk=pk).first()
    return forecast.upcoming_events(conversation, now) if conversation else []


def dry_run(prospect: UpcomingEvent, now: datetime) -> int:
    """How many sessions `sweep --dry-run` and `retain --dry-run` name for it at that time."""
    if prospect.what in DRY_RUN:
        return int(getattr(sweep.preview(now), DRY_RUN[prospect.what]))
    if prospect.what == "archived":
        return archive.count_due(now)[0]
    found = retention.preview(now)
    rules = [prospect.what.removesuffix("_deleted")] if prospect.what != "deleted" else [R.GUESTS, R.WEB, R.SESSIONS]
    return sum(found.deleted(rule) for rule in rules)


def live(pk: Any) -> list[str]:
    """Move the time to what the clock announces, again and again, until it announces nothing. Returns what happened:
    each thing at its announced time, and nothing a moment before."""
    lived: list[str] = []
    now = timezone.now()
    for _ in rounds("The conversation's life", lambda: lived):
        upcoming = forecast.next_event(announced(pk, now))
        if upcoming is None:
            break
        assert upcoming.at is not None
        before = state(pk)
        if upcoming.what == "remembered":
            client_id = Conversation.objects.values_list("client", flat=True).get(pk=pk)
            assert remember.remember(client_id, pk)
            lived.append("remembered")
            continue
        assert dry_run(upcoming, upcoming.at - MOMENT) == 0, upcoming
        assert dry_run(upcoming, upcoming.at) == 1, upcoming
        all_jobs(upcoming.at - MOMENT)
        assert state(pk) == before, f"{upcoming} was early"
        now = upcoming.at
        all_jobs(now)
        assert happened(before, state(pk)) == upcoming.what
        lived.append(upcoming.what)
        assert len(lived) < 20
    return lived


def keep(client: Client, **days: int) -> None:
    policies.replace(client, [Policy(rule, "", "", number) for rule, number in days.items()])


def answered(door: Any, **more: Any) -> Any:
    session = UUID(door.says("Hello", **more)["conversation_id"])
    reply_to_all()
    send_all()
    return session


def test_a_known_persons_session_lives_as_its_clock_says(door, shop):
    keep(shop, turns=10, receipts=20, memory=50, sessions=60)
    session = answered(door, phone="+51999999999")
    later = {each.what: each.at for each in announced(session, timezone.now())}
    expires = later["expired"]
    assert (later["archived"], later["deleted"]) == (expires + 30 * DAY, expires + 60 * DAY)
    assert live(session) == [
        *("stale", "expired", "remembered", "turns_deleted", "receipts_deleted", "archived"),
        *("memory_deleted", "deleted"),
    ]


def test_a_guests_session_does(door, shop):
    keep(shop, guests=2, sessions=1)
    assert live(answered(door)) == ["stale", "expired", "deleted"]


def test_one_that_was_taken_over_does(door, shop):
    session = answered(door, phone="+51999999999")
    takeover.take_over(session, actor=SYSTEM, now=timezone.now(), name="Mona")
    held = {each.what: each for each in announced(session, timezone.now())}
    assert "Mona has the conversation" in held["expired"].held_by
    assert held["expired"].at is None
    assert live(session)[:5] == ["handed_back", "stale", "expired", "remembered", "archived"]


def test_one_on_the_web_does(door, shop, settings):
    session = factories.ConversationFactory(client=shop, channel="web", thread="t").pk
    assert [each.what for each in announced(session, timezone.now()) if each.at] == ["deleted"]
    assert live(session) == ["deleted"]


def test_one_that_its_agent_extended_does(door, shop):
    session = answered(door, phone="+51999999999")
    until = timezone.now() + 3 * DAY
    Conversation.objects.update(extended_until=until)
    assert live(session)[:2] == ["stale", "expired"]
    assert Conversation.objects.get().ended_at == until


def test_where_guests_are_not_kept_at_all_the_end_is_both(door, shop):
    session = answered(door)
    later = {each.what: each.at for each in announced(session, timezone.now())}
    assert later["expired"] == later["deleted"]
    all_jobs(later["expired"])
    assert state(session) == {"status": "gone"}


def test_other_days_for_archived_ones_count_once_it_is_archived(door, shop):
    policies.replace(shop, [Policy(R.SESSIONS, "", "", 40), Policy(R.SESSIONS, "", "archived", 35)])
    session = answered(door, phone="+51999999999")
    close(session)
    [deleted] = [each for each in announced(session, timezone.now()) if each.what == "deleted"]
    ended = Conversation.objects.get().ended_at
    assert (deleted.at, deleted.after) == (ended + 35 * DAY, "archived")
    assert live(session) == ["remembered", "archived", "deleted"]


def test_one_whose_memory_goes_first_is_never_archived(door, shop):
    keep(shop, memory=5, sessions=60)
    session = answered(door, phone="+51999999999")
    close(session)
    assert live(session) == ["remembered", "memory_deleted", "deleted"]


def test_what_is_on_hold_says_so_and_stays(door, shop):
    keep(shop, turns=10, receipts=20, memory=50, sessions=60)
    session = answered(door, phone="+51999999999")
    close(session)
    remember.remember(*Conversation.objects.values_list("client_id", "pk").get())
    holds.hold(session, reason="Case 1", actor=SYSTEM)
    found = announced(session, timezone.now())
    assert {each.what for each in found} == {
        *("archived", "turns_deleted", "receipts_deleted", "memory_deleted", "deleted"),
    }
    assert {each.held_by for each in found} == {"hold: Case 1"}
    assert live(session) == []
    before = state(session)
    all_jobs(timezone.now() + 1000 * DAY)
    assert state(session) == before
    lines = RetentionReport.objects.get(client=shop, by="clean_up").lines
    assert [line for line in lines if line["held_back"]], lines


# --- replies and sends ------------------------------------------------------------------------------------------------
def one(pk: Any, what: str, now: datetime) -> UpcomingEvent:
    [found] = [each for each in announced(pk, now) if each.what == what]
    return found


def test_a_reply_is_claimed_when_the_clock_says(door, shop):
    Client.objects.update(quiet_windows={"sms": 5})
    session = door.says("Hello")["conversation_id"]
    reply = one(session, "reply", timezone.now())
    assert "Quiet window on SMS: 5 s" in reply.setting
    assert leases.claim(reply.at - MOMENT, 10) == []
    [claim] = leases.claim(reply.at, 10)
    assert one(session, "reply", reply.at).held_by == "a reply is being written"
    freed = one(session, "freed", reply.at)
    assert freed.at == Turn.objects.get().lease_until
    assert sweep.sweep(freed.at - MOMENT).recovered == 0

    pipeline.fail(claim, EngineError("later", code="http_503", retryable=True), reply.at)
    again = one(session, "reply", reply.at)
    assert "tried 1 times of" in again.rule
    assert leases.claim(again.at - MOMENT, 10) == []
    assert len(leases.claim(again.at, 10)) == 1
    assert sweep.sweep(one(session, "freed", again.at).at + MOMENT).recovered == 1


def test_who_has_the_session_holds_the_reply(door, shop):
    session = door.says("Hello")["conversation_id"]
    takeover.take_over(session, actor=SYSTEM, now=timezone.now(), name="Mona")
    held = one(session, "reply", timezone.now())
    assert held.held_by == "Mona has the conversation and owes the answer"
    assert leases.claim(timezone.now() + DAY, 10) == []


def test_a_message_is_sent_when_the_clock_says(door, shop):
    session = door.says("Hello")["conversation_id"]
    reply_to_all()
    token, [claimed] = claiming.claim(timezone.now(), 10)
    sending = delivery.begin(claimed, token, timezone.now())
    delivery.record_failed(sending, SendError("busy", code="http_503", retryable=True), timezone.now())
    send = one(session, "send", timezone.now())
    assert "tried 1 times of" in send.rule
    assert message_ids(send.at - MOMENT, 10) == []

    message = Message.objects.get()
    paused_until = send.at + timedelta(hours=1)
    SendPause.objects.create(
        channel_account=message.channel_account, to_address=message.to_address, until=paused_until, times=1
    )
    paused = one(session, "send", timezone.now())
    assert (paused.at, paused.rule) == (paused_until, "the provider throttles")
    assert message_ids(paused.at - MOMENT, 10) == []

    ChannelAccount.objects.update(health="broken")
    assert one(session, "send", timezone.now()).held_by == "the account is refused by its provider"
    assert message_ids(paused.at, 10) == []
    ChannelAccount.objects.update(health="ok")
    assert message_ids(paused.at, 10) == [claimed.message_id]
    freed = one(session, "freed", paused.at)
    assert sweep.sweep(freed.at + MOMENT).recovered == 1


# --- the page and the command -----------------------------------------------------------------------------------------
def page_of(session: Any) -> str:
    return reverse("admin:conversations_conversation_clock", args=[session])


def test_the_page_says_what_comes_and_why_what_came_did(door, shop, neighbour, viewer):
    session = answered(door, phone="+51999999999", name="Ann")
    stale = one(session, "stale", timezone.now())
    shown = viewer.get(page_of(session)).content.decode()
    assert "The conversation becomes stale" in shown
    assert stale.at.strftime("%H:%M:%S") in shown
    assert "A conversation becomes stale after: 10 minutes" in shown
    assert "by sweep, every 5 minutes" in shown
    sweep.sweep(stale.at)
    holds.hold(session, reason="Case <1>", actor=SYSTEM)
    shown = viewer.get(page_of(session)).content.decode()
    assert "rule stale_after = 10 minutes, since " in shown
    assert "sweep (system)" in shown
    assert "Case &lt;1&gt;" in shown

    theirs = Conversation.objects.create(
        client=neighbour, contact=neighbour.contacts.create(user_id="x"), channel="sms"
    )
    assert viewer.get(page_of(theirs.pk)).status_code == 404
    assert viewer.get(page_of("5f0c7a52-0000-4000-8000-000000000000")).status_code == 404


def test_a_dry_run_of_the_future_names_what_all_jobs_would_do(door, shop):
    keep(shop, sessions=60)
    session = answered(door, phone="+51999999999")
    close(session)
    remember.remember(*Conversation.objects.values_list("client_id", "pk").get())
    deleted = one(session, "deleted", timezone.now())
    out = io.StringIO()
    call_command("sweep", "--dry-run", "--now", deleted.at.isoformat(), stdout=out)
    assert "would be archived by archive: 1" in out.getvalue()
    assert "would be deleted by clean_up (sessions): 1" in out.getvalue()


def test_what_waits_for_something_is_never_the_next():
    prospect = UpcomingEvent("x", "X", timezone.now(), "", "", "sweep")
    assert forecast.next_event([replace(prospect, held_by="hold"), replace(prospect, after="expired")]) is None
    assert forecast.next_event([replace(prospect, at=None), prospect]) == prospect
