"""Steps, details and sending again: what agents do on a session's page."""

from __future__ import annotations

import uuid
from datetime import timedelta

import pytest
from django.utils import timezone

from conversations.models import ChannelAccount, ConversationEvent, Message, Step
from conversations.services.staff_actions import seed_helpers
from tests.conftest import send_all
from tests.conversations.back_office import do, news, page_of

pytestmark = pytest.mark.django_db


def descriptions(session):
    return [step.description for step in session.steps.all()]


def test_steps_are_added_edited_completed_and_cancelled_under_the_agents_name(agent, session):
    assert do(agent, session, "add-step", text=" Ask the number ")[0] == 200
    step = session.steps.get()
    assert (step.description, step.status) == ("Ask the number", "pending")
    assert do(agent, session, "edit-step", step=step.pk, text="Ask for the number")[0] == 200
    assert do(agent, session, "complete-step", step=step.pk)[0] == 200
    assert do(agent, session, "add-step", text="Call back")[0] == 200
    assert do(agent, session, "cancel-step", step=session.steps.last().pk)[0] == 200
    assert list(session.steps.values_list("description", "status")) == [
        ("Ask for the number", "complete"),
        ("Call back", "cancelled"),
    ]
    lines = ConversationEvent.objects.filter(actor="staff").values_list("kind", "actor_name")
    assert list(lines) == [
        (kind, "agnes") for kind in ("step_added", "step_edited", "step_complete", "step_added", "step_cancelled")
    ]


def test_a_step_that_is_done_keeps_its_words(agent, session):
    step = seed_helpers.add_step(session.pk, "Ask")
    do(agent, session, "complete-step", step=step.pk)
    status, said = do(agent, session, "edit-step", step=step.pk, text="Something else")
    assert (status, said["said"]) == (409, "This step is complete. Only a pending step can be edited.")
    assert descriptions(session) == ["Ask"]


def test_steps_are_reordered_and_new_ones_come_last(agent, session, door):
    for name in "abc":
        seed_helpers.add_step(session.pk, name)
    assert do(agent, session, "raise-step", step=session.steps.get(description="c").pk)[0] == 200
    assert descriptions(session) == ["a", "c", "b"]
    do(agent, session, "lower-step", step=session.steps.get(description="a").pk)
    do(agent, session, "raise-step", step=session.steps.get(description="c").pk)  # is the first already
    do(agent, session, "add-step", text="d")
    assert descriptions(session) == ["c", "a", "b", "d"]
    steps = door.get(f"/conversations/{session.pk}")["steps"]
    assert [step["description"] for step in steps] == ["c", "a", "b", "d"]


def test_a_step_of_another_session_is_not_there(agent, session, door):
    door.says("Hi", user_id="bob")
    other = seed_helpers.add_step(door.get("/conversations?user_id=bob")["items"][0]["id"], "Theirs")
    for action in ("edit-step", "complete-step", "raise-step"):
        assert do(agent, session, action, step=other.pk, text="Mine")[0] == 404
    assert do(agent, session, "complete-step", step="x")[0] == 404
    other.refresh_from_db()
    assert (other.description, other.status) == ("Theirs", "pending")


def test_viewers_steer_nothing(viewer, session):
    step = seed_helpers.add_step(session.pk, "Ask")
    message = Message.objects.get()
    actions = ("add-step", "edit-step", "complete-step", "cancel-step", "raise-step", "lower-step", "details", "resend")
    for action in actions:
        assert do(viewer, session, action, step=step.pk, text="x", message=message.pk, goal="x")[0] == 403
    assert list(Step.objects.values_list("description", "status")) == [("Ask", "pending")]
    assert b"data-action" not in viewer.get(page_of(session)).content


def test_goal_topic_and_summary_are_edited_and_the_ledger_says_which(agent, session):
    fields = {"goal": session.goal, "topic": "Parcel", "summary": "Ann misses a parcel."}
    assert do(agent, session, "details", **fields)[0] == 200
    session.refresh_from_db()
    assert (session.topic, session.summary) == ("Parcel", "Ann misses a parcel.")
    line = ConversationEvent.objects.get(kind="details_edited")
    assert (line.cause, line.actor_name) == ("topic, summary", "agnes")
    do(agent, session, "details", **fields)
    assert ConversationEvent.objects.filter(kind="details_edited").count() == 1


def test_what_was_remembered_is_remembered_anew_after_an_edit(agent, session):
    long_ago = timezone.now() - timedelta(days=1)
    do(agent, session, "close")
    type(session).objects.update(remembered_at=long_ago, remember_due_at=None)
    do(agent, session, "details", goal="g", topic="t", summary="s")
    session.refresh_from_db()
    assert session.remember_due_at > long_ago


# --- sending again ---------------------------------------------------------------------------------------------------
def test_what_failed_is_sent_again(agent, session):
    message = Message.objects.get()
    Message.objects.update(status="failed", code="100", reason="Bad number", failed_at=timezone.now())
    assert "Send again" in str(news(agent, session).json())
    status, said = do(agent, session, "resend", message=message.pk, position=4)
    assert status == 200
    assert "waiting to be sent" in said["bubbles"][0][1]
    send_all()
    message.refresh_from_db()
    assert (message.status, message.code) == ("delivered", "")
    assert ConversationEvent.objects.get(kind="message_resent").actor_name == "agnes"


def test_what_may_have_arrived_is_sent_again_only_where_staff_confirm_it(agent, session):
    message = Message.objects.get()
    Message.objects.update(status="unknown", code="interrupted", delivered_at=None)
    assert do(agent, session, "resend", message=message.pk)[0] == 409
    assert do(agent, session, "resend", message=message.pk, although_unclear="yes")[0] == 200
    send_all()
    message.refresh_from_db()
    assert message.status == "delivered"


@pytest.mark.parametrize("status", ["queued", "claimed", "sending", "sent", "delivered", "read", "cancelled"])
def test_what_arrived_or_is_on_its_way_is_not_sent_again(agent, session, status):
    message = Message.objects.get()
    Message.objects.update(status=status)
    assert "Send again" not in str(news(agent, session).json())
    assert do(agent, session, "resend", message=message.pk, although_unclear="yes")[0] == 409
    message.refresh_from_db()
    assert message.status == status


def test_the_parts_that_waited_for_a_failed_one_go_with_it(agent, session):
    first = Message.objects.get()
    Message.objects.update(status="failed", code="x", parts=2)
    second = Message.objects.create(
        conversation=session,
        chunk=first.chunk,
        part=2,
        parts=2,
        channel_account=first.channel_account,
        to_address=first.to_address,
        to_kind=first.to_kind,
        text="and more",
        status="cancelled",
        code="earlier_part_failed",
    )
    do(agent, session, "resend", message=first.pk)
    send_all()
    assert {message.status for message in (Message.objects.get(pk=pk) for pk in (first.pk, second.pk))} == {"delivered"}


def test_what_had_no_account_is_sent_once_there_is_one(agent, shop, session):
    account = session.channel_account
    ChannelAccount.objects.filter(channel="sms").update(is_active=False)
    type(session).objects.update(channel_account=None)
    do(agent, session, "reply", text="Hello")
    failed = Message.objects.get(code="no_account")
    assert do(agent, session, "resend", message=failed.pk)[0] == 409
    assert Message.objects.filter(pk=failed.pk).exists()
    ChannelAccount.objects.filter(pk=account.pk).update(is_active=True)
    assert do(agent, session, "resend", message=failed.pk)[0] == 200
    send_all()
    assert Message.objects.get(chunk__content="Hello").status == "delivered"


def test_nothing_is_sent_again_in_an_ended_session_or_from_another(agent, session, door):
    message = Message.objects.get()
    Message.objects.update(status="failed")
    door.says("Hi", user_id="bob")
    other = type(session).objects.get(contact__user_id="bob")
    assert do(agent, other, "resend", message=message.pk)[0] == 404
    assert do(agent, session, "resend", message=uuid.uuid4())[0] == 404
    assert do(agent, session, "resend", message="x")[0] == 404
    do(agent, session, "close")
    assert do(agent, session, "resend", message=message.pk)[0] == 409
