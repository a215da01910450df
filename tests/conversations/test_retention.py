"""Retention: what each rule deletes and when, what a hold keeps, what a report and a preview say."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.urls import reverse
from django.utils import timezone

from conversations.models import (
    Contact,
    Conversation,
    ConversationEvent,
    InboundEvent,
    Membership,
    Message,
    MessageTombstone,
    RetentionPolicy,
    RetentionReport,
    StaffAction,
    ToolCall,
    Turn,
)
from conversations.models import RetentionRule as R
from conversations.services.core.errors import ConflictError, InvalidError
from conversations.services.core.ledger import SYSTEM
from conversations.services.history import archive, remember
from conversations.services.jobs import sweep
from conversations.services.retention import deletions, erasure, holds, policies, retention
from conversations.services.retention.policies import Policy
from conversations.services.staff_actions import corrections
from memory.models import Memory
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations.back_office import do, sign_in
from tests.conversations.conftest import close

pytestmark = pytest.mark.django_db
DAY = timedelta(days=1)


def ended(client: Any, days: float, **more: Any) -> Conversation:
    """A session that ended so many days ago."""
    at = timezone.now() - days * DAY
    return factories.ConversationFactory(
        **{"client": client, "status": "closed", "ended_by": "user", "ended_at": at, "last_message_at": at, **more}
    )


def keep(client: Any, rule: str, days: int, channel: str = "", status: str = "") -> None:
    policies.replace(client, [*policies.policies_of(client), Policy(rule, channel, status, days)])


def left() -> set[Any]:
    return set(Conversation.objects.values_list("pk", flat=True))


def test_nothing_that_ended_is_deleted_where_nobody_decided_so(shop):
    kept = ended(shop, 4000)
    retention.clean_up(timezone.now())
    assert left() == {kept.pk}


def test_the_narrowest_policy_counts_and_each_client_s_own(shop, neighbour):
    keep(shop, R.SESSIONS, 100)
    keep(shop, R.SESSIONS, 10, channel="sms")
    keep(shop, R.SESSIONS, 50, status="archived")
    keep(shop, R.SESSIONS, 20, channel="sms", status="expired")
    archived = {"status": "archived", "archived_at": timezone.now()}
    kept = {
        ended(shop, 9).pk,
        ended(shop, 99, channel="voice", thread="1").pk,
        ended(shop, 19, status="expired").pk,
        ended(shop, 49, channel="orb", **archived).pk,
        ended(neighbour, 900).pk,
    }
    for days, more in (
        (11, {}),
        (101, {"channel": "voice", "thread": "2"}),
        (21, {"status": "expired"}),
        (11, archived),  # the channel goes before the status
        (51, {"channel": "orb", **archived}),
    ):
        ended(shop, days, **more)
    report = retention.clean_up(timezone.now())
    assert report.sessions == 5
    assert left() == kept


def test_a_setting_is_for_those_who_decided_nothing(shop, neighbour, settings):
    settings.SESSION_DAYS = 5
    keep(shop, R.SESSIONS, 50)
    kept, _ = ended(shop, 40), ended(neighbour, 40)
    retention.clean_up(timezone.now())
    assert left() == {kept.pk}


def test_more_than_a_batch_goes_and_a_run_that_broke_off_is_resumed(shop, monkeypatch):
    keep(shop, R.SESSIONS, 5)
    monkeypatch.setattr(deletions, "BATCH", 3)
    for _ in range(8):
        ended(shop, 6)
    kept = ended(shop, 4)

    def breaks_off(_what: str, count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        retention.run(timezone.now(), by="test", progress=breaks_off)
    assert len(left()) == 6
    assert retention.clean_up(timezone.now()).sessions == 5
    assert left() == {kept.pk}


def test_a_session_goes_with_what_memory_has_of_it_and_its_message_ids_stay_for_a_while(door, shop):
    session = door.says("Hello", message_id="m1", phone="+51999999999")["conversation_id"]
    close(session)
    remember.remember_ended()
    assert Memory.objects.exists()
    keep(shop, R.SESSIONS, 2)
    retention.clean_up(timezone.now() + 3 * DAY)
    assert not Conversation.objects.exists()
    assert not Memory.objects.exists()
    assert MessageTombstone.objects.count() == 1
    assert Contact.objects.count() == 1, "a person whom we know stays"


def test_memory_goes_and_a_session_that_was_to_be_archived_never_is(door, shop):
    session = door.says("Hello", phone="+51999999999")["conversation_id"]
    close(session)
    remember.remember_ended()
    keep(shop, R.MEMORY, 2)
    late = timezone.now() + 3 * DAY
    assert retention.clean_up(late).memories == 1
    assert not Memory.objects.exists()
    assert archive.count_due(late + 90 * DAY) == (0, [])
    assert Conversation.objects.get().chunks.exists()
    assert ConversationEvent.objects.filter(kind="memory_deleted", actor_name="retention").count() == 1


def test_turns_and_sends_go_and_the_session_stays(door, shop):
    session = door.says("Hello", phone="+51999999999")["conversation_id"]
    reply_to_all()
    send_all()
    ToolCall.objects.create(client=shop, conversation_id=session, name="find_order", status="answered", is_open=False)
    keep(shop, R.TURNS, 2)
    keep(shop, R.SENDS, 4)
    retention.clean_up(timezone.now() + 9 * DAY)
    assert Turn.objects.exists(), "of open sessions nothing is taken"
    close(session)
    retention.clean_up(timezone.now() + 3 * DAY)
    assert (Turn.objects.exists(), Message.objects.exists()) == (False, True)
    assert not ToolCall.objects.exists(), "what a turn called goes with it"
    retention.clean_up(timezone.now() + 5 * DAY)
    assert not Message.objects.exists()
    assert Conversation.objects.get().chunks.count() == 4
    kinds = list(ConversationEvent.objects.filter(actor_name="retention").values_list("kind", flat=True))
    assert kinds == ["turns_deleted", "receipts_deleted"]


def test_guests_are_kept_as_long_as_their_client_says(shop, neighbour):
    keep(shop, R.GUESTS, 3)
    for client in (shop, neighbour):
        ended(client, 2, status="expired", ended_by="timeout", is_guest=True)
    assert sweep.sweep(timezone.now()).purged == 1
    assert Conversation.objects.get().client == shop
    assert sweep.sweep(timezone.now() + 1.5 * DAY).purged == 1
    assert set(Contact.objects.values_list("client", flat=True)) == set()


def payload(client: Any, days: float, **raw: Any) -> InboundEvent:
    event = InboundEvent.objects.create(
        client=client, provider="p", kind="k", reason="not_a_turn", channel="sms", raw=raw
    )
    InboundEvent.objects.filter(pk=event.pk).update(received_at=timezone.now() - days * DAY)
    return event


def test_raw_payloads_go_but_not_those_of_somebody_on_hold(shop, neighbour):
    held = factories.ContactFactory(client=shop, phone="+51999000111", is_guest=False, hold_reason="Case 1")
    of_session = factories.ConversationFactory(client=shop, hold_reason="Case 2")
    Contact.objects.filter(pk=of_session.contact_id).update(user_id="zebulon")
    keep(shop, R.EVENTS, 5)
    kept = {
        payload(shop, 6, sender=held.phone[1:]).pk,
        payload(shop, 6, sender="zebulon").pk,
        payload(shop, 4).pk,
        payload(neighbour, 29).pk,
        payload(None, 29).pk,
    }
    payload(shop, 6, sender="someone")
    payload(neighbour, 31, sender=held.phone[1:])
    report = retention.run(timezone.now(), by="test")
    assert set(InboundEvent.objects.values_list("pk", flat=True)) == kept
    assert report.lines[shop.pk, R.EVENTS].held_back == 2


def test_a_hold_on_a_session_or_its_contact_is_respected_by_every_deletion(door, shop, settings):
    """Each way of deleting, for a session on hold and for one whose contact is: not a row goes until it is lifted."""
    settings.GUEST_DAYS = settings.SESSION_DAYS = settings.MEMORY_DAYS = settings.TURN_DAYS = settings.SEND_DAYS = 0
    shop.archive_after = timedelta(0)
    shop.save()
    for user, phone in (("one", "+51999000111"), ("two", "+51999000112")):
        session = door.says("Hello", user_id=user, phone=phone)["conversation_id"]
        reply_to_all()
        send_all()
        close(session)
    remember.remember_ended()
    for user in ("guest-one", "guest-two"):
        door.says("Hello", user_id=user)
        contact = Contact.objects.get(user_id=user)
        factories.ConversationFactory(client=shop, contact=contact, channel="web", thread=user, is_guest=True)
    Conversation.objects.filter(channel="sms", status="active").update(
        status="expired", ended_at=timezone.now(), ended_by="timeout", reply_owed=False
    )
    for user in ("one", "guest-one"):
        Contact.objects.filter(user_id=user).update(hold_reason="Case 4711")
    for conversation in Conversation.objects.filter(contact__user_id__in=["two", "guest-two"]):
        holds.hold(conversation.pk, reason="Case 4712", actor=SYSTEM)

    def all_rows() -> list[int]:
        return [model.objects.count() for model in (Conversation, Contact, Memory, Turn, Message)]

    before, late = all_rows(), timezone.now() + 400 * DAY
    assert before[:3] == [6, 4, 2]
    sweep.sweep(late)
    archive.archive(late)
    found = retention.run(late, by="test")
    assert all_rows() == before
    assert [found.held_back(rule) for rule in (R.GUESTS, R.WEB, R.SESSIONS, R.MEMORY)] == [2, 2, 2, 2]
    assert (found.held_back(R.TURNS), found.held_back(R.SENDS)) == (2, 2)
    for contact in Contact.objects.all():
        with pytest.raises(ConflictError, match="on hold: Case 471"):
            erasure.begin(contact.pk, actor=SYSTEM, now=late)
    for conversation in Conversation.objects.filter(channel="sms"):
        with pytest.raises(ConflictError, match="on hold"):
            corrections.redact(conversation.pk, 1, actor=SYSTEM, now=late)
        with pytest.raises(ConflictError, match="on hold"):
            archive.archive_one(conversation.pk, actor=SYSTEM, now=late)
    assert all_rows() == before

    Contact.objects.update(hold_reason="")
    for conversation in Conversation.objects.all():
        holds.lift(conversation.pk, actor=SYSTEM)
    retention.run(late, by="test")
    assert all_rows() == [0, 2, 0, 0, 0]


def test_every_run_leaves_a_report_that_only_the_client_s_own_staff_read(shop, neighbour):
    retention.clean_up(timezone.now(), by="/cron/cleanup")
    empty = RetentionReport.objects.get()
    assert (empty.client, empty.lines, empty.by) == (None, [], "/cron/cleanup")
    keep(shop, R.SESSIONS, 5)
    keep(neighbour, R.SESSIONS, 5)
    oldest = ended(shop, 9)
    ended(shop, 8)
    ended(shop, 7, hold_reason="Case 1")
    ended(neighbour, 7)
    call_command("retain", stdout=io.StringIO(), stderr=io.StringIO())
    theirs = RetentionReport.objects.get(client=shop)
    assert theirs.by == "retain"
    assert theirs.lines == [
        {"rule": "sessions", "deleted": 2, "oldest": oldest.ended_at.isoformat(), "held_back": 1, "error": ""}
    ]
    assert RetentionReport.objects.filter(run=theirs.run).count() == 2
    vera = sign_in("vera", shop, Membership.Role.VIEWER)
    listed = vera.get(reverse("admin:conversations_retentionreport_changelist")).content.decode()
    assert "2 sessions" in listed
    page = vera.get(reverse("admin:conversations_retentionreport_change", args=[theirs.pk])).content.decode()
    assert "2 deleted, the oldest of" in page
    assert "1 kept by a hold" in page
    other = RetentionReport.objects.get(client=neighbour)
    assert vera.get(reverse("admin:conversations_retentionreport_change", args=[other.pk])).status_code == 302


def test_a_rule_that_fails_is_reported_and_the_others_go_on(shop, monkeypatch):
    keep(shop, R.SESSIONS, 5)
    ended(shop, 6)
    payload(shop, 40)

    def broken(*_: Any) -> None:
        raise ValueError("quotes a row")

    monkeypatch.setitem(deletions.DELETE, R.SESSIONS, broken)
    with pytest.raises(CommandError, match="sessions: ValueError"):
        call_command("retain", stdout=io.StringIO(), stderr=io.StringIO())
    assert not InboundEvent.objects.exists()
    [report] = RetentionReport.objects.filter(client=None)
    assert report.lines[0]["error"] == "ValueError"


def test_a_dry_run_says_what_the_run_does(shop, neighbour):
    keep(shop, R.SESSIONS, 5)
    keep(neighbour, R.SESSIONS, 5)
    for client, days in ((shop, 9), (shop, 3), (neighbour, 8)):
        ended(client, days)
    out = io.StringIO()
    call_command("retain", "--dry-run", "--rule", "sessions", stdout=out)
    assert "sessions: 2 would be deleted, the oldest of" in out.getvalue()
    out = io.StringIO()
    call_command("retain", "--dry-run", "--client", "shop", "--now", (timezone.now() + 3 * DAY).isoformat(), stdout=out)
    assert "sessions: 2 would be deleted" in out.getvalue()
    assert "events: 0 would be deleted" in out.getvalue()
    assert Conversation.objects.count() == 3
    assert not RetentionReport.objects.exists()
    with pytest.raises(CommandError, match="--dry-run"):
        call_command("retain", "--client", "shop")


@pytest.mark.parametrize(
    "policy",
    [
        Policy("nonsense", "", "", 1),
        Policy(R.SESSIONS, "pigeon", "", 1),
        Policy(R.SESSIONS, "", "active", 1),
        Policy(R.EVENTS, "", "closed", 1),
        Policy(R.SESSIONS, "", "", -1),
        Policy(R.SESSIONS, "", "", 36_501),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(shop, policy):
    with pytest.raises(InvalidError):
        policies.replace(shop, [policy])


# --- in the back office -----------------------------------------------------------------------------------------------
def form(**more: Any) -> dict[str, Any]:
    empty = {f"form-{row}-{name}": "" for row in range(3) for name in ("rule", "channel", "status", "days")}
    days = dict.fromkeys(R.values, "")
    return {"form-TOTAL_FORMS": "3", "form-INITIAL_FORMS": "0", **days, **empty, **more}


def path_of(client: Any) -> str:
    return reverse("admin:conversations_client_retention", args=[client.pk])


def test_a_manager_sees_what_would_be_deleted_before_it_is_saved(shop, neighbour, manager):
    oldest = ended(shop, 40)
    ended(shop, 12)
    ended(shop, 11, hold_reason="Case 1")
    ended(neighbour, 50)
    chosen = form(sessions="30", **{"form-0-rule": "sessions", "form-0-channel": "sms", "form-0-days": "10"})

    seen = manager.post(path_of(shop), {**chosen, "preview": ""})
    text = seen.content.decode()
    assert f"would delete 2 conversations, the oldest of {oldest.ended_at:%Y-%m-%d %H:%M}" in text
    assert "1 on hold stay" in text
    assert not RetentionPolicy.objects.exists(), "a preview saves nothing"

    other = {**chosen, "sessions": "1", "save": "", "seen": seen.context["seen"]}
    assert manager.post(path_of(shop), other).status_code == 200
    assert not RetentionPolicy.objects.exists(), "what was not previewed is not saved"

    assert manager.post(path_of(shop), {**chosen, "save": "", "seen": seen.context["seen"]}).status_code == 302
    assert policies.policies_of(shop) == [Policy("sessions", "", "", 30), Policy("sessions", "sms", "", 10)]
    done = StaffAction.objects.get(object_type="client", object_id=str(shop.pk))
    assert done.changes == {"retention": ["the settings'", "sessions 30, sessions sms 10"]}
    assert retention.clean_up(timezone.now()).sessions == 2
    assert 'value="30"' in manager.get(path_of(shop)).content.decode()


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ({"sessions": "soon"}, "Enter a whole number"),
        ({"sessions": "-1"}, "greater than or equal to 0"),
        ({"events": "99999999999999999999"}, "less than or equal to 36500"),
        ({"form-0-rule": "web", "form-0-channel": "web"}, "Enter the number of days."),
        ({"form-0-rule": "sessions", "form-0-days": "3"}, "Choose a channel or a status"),
        ({"form-0-rule": "events", "form-0-status": "closed", "form-0-days": "3"}, "does not depend on the status"),
        ({"form-0-days": "3"}, "Choose what the days apply to."),
        (
            {f"form-{n}-{k}": v for n in (0, 1) for k, v in (("rule", "web"), ("channel", "web"), ("days", n))},
            "only one number of days",
        ),
    ],
)
def test_what_makes_no_sense_is_said_beside_it(shop, manager, typed, sentence):
    answer = manager.post(path_of(shop), {**form(**typed), "preview": ""})
    assert sentence in answer.content.decode()
    assert not RetentionPolicy.objects.exists()


def test_only_managers_set_retention_and_only_of_their_clients(shop, neighbour, agent, manager):
    assert agent.get(path_of(shop)).status_code == 403
    assert manager.get(path_of(neighbour)).status_code == 302
    assert manager.post(path_of(neighbour), form(sessions="0", preview="")).status_code == 302


def test_managers_hold_a_session_and_the_trails_say_so(session, manager, agent):
    assert do(agent, session, "hold", reason="Case 1")[0] == 403
    assert do(manager, session, "hold", reason=" ")[0] == 409
    status, answer = do(manager, session, "hold", reason="Case 1")
    assert (status, "on hold" in answer["said"]) == (200, True)
    assert "Case 1" in agent.get(reverse("admin:conversations_conversation_change", args=[session.pk])).content.decode()
    assert do(manager, session, "lift-hold")[0] == 200
    session.refresh_from_db()
    assert session.hold_reason == ""
    kinds = session.events.filter(kind__in=["held", "hold_lifted"]).values_list("kind", "cause", "actor_name")
    assert list(kinds) == [("held", "Case 1", "mona"), ("hold_lifted", "Case 1", "mona")]
    trail = StaffAction.objects.filter(object_type="conversation").order_by("id").values_list("verb", "changes")
    assert list(trail) == [
        ("held", {"hold_reason": ["", "Case 1"]}),
        ("lifted the hold of", {"hold_reason": ["Case 1", ""]}),
    ]
