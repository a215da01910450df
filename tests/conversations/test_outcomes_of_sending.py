"""The row and the ledger after an attempt to send, and the rows that it leaves alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from channels_out.contract import SendResult
from channels_out.errors import SendError
from channels_out.kinds import ReceiptStatus
from conversations.models import Assistant, ChannelAccount, Chunk, Conversation, Message, SendPause
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import claiming, outbox, recovery, sending
from conversations.services.delivery.sending import Sending
from conversations.services.staff_actions import send
from tests.claims import message_ids
from tests.conversations.test_reply_window import LONG_AGO, template, writes
from tests.conversations.test_second_looks_of_sending import (
    HOUR,
    REFUSED,
    UNCLEAR,
    claim,
    conversation,
    message,
    pause,
    state,
)

pytestmark = pytest.mark.django_db
__all__ = ["conversation", "message"]  # fixtures

MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)
NO = SendError("The number is not on WhatsApp.", code="131026")


def begin(message: Message) -> Sending:
    begun = sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), claim(message), timezone.now())
    assert begun
    return begun


@pytest.fixture
def on_whatsapp(meta: Any, account: ChannelAccount) -> Message:
    """A message that waits to be sent over an account that does not know our ids."""
    writes(meta)
    send.send(Conversation.objects.get().pk, "Good morning", actor=SYSTEM, now=timezone.now())
    return Message.objects.get()


# --- the row ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", [ReceiptStatus.SENT, ReceiptStatus.DELIVERED])
def test_what_the_provider_took_has_its_id_and_the_time(message, status):
    begun, now = begin(message), timezone.now()
    sending.record_sent(begun, SendResult("SM1", status), now)
    message.refresh_from_db()
    assert (message.status, message.provider_message_id, message.sent_at) == (status.value, "SM1", now)
    assert message.delivered_at == (now if status == ReceiptStatus.DELIVERED else None)
    assert (message.lease_until, message.lease_token) == (None, None)


def test_a_second_answer_changes_neither_the_id_nor_the_time(message):
    begun, now = begin(message), timezone.now()
    sending.record_sent(begun, SendResult("SM1"), now)
    sending.record_sent(begun, SendResult("SM2"), now + HOUR)
    message.refresh_from_db()
    assert (message.provider_message_id, message.sent_at) == ("SM1", now)


def test_a_long_code_and_reason_are_cut_to_what_the_row_holds(message):
    sending.record_failed(begin(message), SendError("y" * 900, code="x" * 60), timezone.now())
    message.refresh_from_db()
    assert (message.status, message.code, message.reason) == ("failed", "x" * 40, "y" * 500)


def test_a_message_that_is_tried_again_waits_first_and_as_long_as_asked(message):
    now = timezone.now()
    sending.record_failed(begin(message), REFUSED, now)
    message.refresh_from_db()
    assert message.due_at > now
    slow = SendError("Busy.", code="http_503", retryable=True, retry_after=600)
    now = message.due_at
    begun = sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), claim(message, HOUR), now)
    assert begun
    sending.record_failed(begun, slow, now)
    message.refresh_from_db()
    assert message.due_at >= now + timedelta(seconds=600)


def test_a_claim_counts_one_attempt_and_lasts_as_long_as_a_lease(message, settings):
    settings.LEASE_SECONDS = 60
    now = timezone.now()
    token, _ = claiming.claim(now, 10)
    message.refresh_from_db()
    assert (message.status, message.attempts, message.lease_token) == ("claimed", 1, token)
    assert message.lease_until == now + MINUTE
    later = now + timedelta(seconds=10)
    assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, later)
    message.refresh_from_db()
    assert (message.status, message.sending_at, message.lease_until) == ("sending", later, later + MINUTE)
    recovery.renew({message.pk: message.client_id}, later + MINUTE)
    message.refresh_from_db()
    assert message.lease_until == later + 2 * MINUTE


def test_a_message_is_due_at_its_time_and_not_before(message):
    due = timezone.now() + HOUR
    Message.objects.update(due_at=due)
    assert message_ids(due - TICK, 10) == []
    assert message_ids(due, 10) == [message.pk]


def test_a_lease_is_over_after_its_end_and_not_before(message):
    for _ in range(2):
        token = claim(message)
        message.refresh_from_db()
        if message.attempts == 2:
            assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now())
            message.refresh_from_db()
        assert recovery.recover(message.lease_until) == 0
        assert recovery.recover(message.lease_until + TICK) == 1
    assert state(message)[0] == "queued"


# --- the ledger -------------------------------------------------------------------------------------------------------
def events(message: Message, kind: str) -> list[tuple[str, str]]:
    found = message.conversation.events.filter(kind=kind).order_by("id")
    return [(event.cause, event.data["message_id"]) for event in found]


def test_an_unclear_send_stands_in_the_ledger(on_whatsapp):
    sending.record_failed(begin(on_whatsapp), UNCLEAR, timezone.now())
    assert state(on_whatsapp) == ("unknown", "connection_lost", 1)
    assert events(on_whatsapp, "message_unknown") == [("connection_lost", str(on_whatsapp.pk))]


def test_a_send_whose_adapter_crashes_is_unclear(on_whatsapp, monkeypatch):
    begun = begin(on_whatsapp)

    def crashes(*_: Any) -> None:
        raise ValueError("quotes the text")

    monkeypatch.setattr(type(begun.adapter), "send", crashes)
    error = sending.deliver(begun)
    assert isinstance(error, SendError)
    sending.record_failed(begun, error, timezone.now())
    assert state(on_whatsapp) == ("unknown", "adapter_crashed", 1)
    on_whatsapp.refresh_from_db()
    assert on_whatsapp.reason == "The adapter crashed: ValueError."


def test_a_failed_send_stands_in_the_ledger_with_its_time(message):
    now = timezone.now()
    sending.record_failed(begin(message), NO, now)
    message.refresh_from_db()
    assert (message.status, message.failed_at) == ("failed", now)
    assert events(message, "message_failed") == [("131026", str(message.pk))]


def test_an_account_that_is_refused_twice_is_broken_once(conversation):
    for text in ("first", "second"):
        send.send(conversation.pk, text, actor=SYSTEM, now=timezone.now())
    first, second = Message.objects.order_by("chunk_id")
    begun = [begin(first)]
    Message.objects.filter(pk=first.pk).update(status="sent")
    begun.append(begin(second))
    Message.objects.filter(pk=first.pk).update(status="sending")
    refused = SendError("No.", code="401", account_broken=True)
    for each in begun:
        sending.record_failed(each, refused, timezone.now())
    assert conversation.events.filter(kind="account_broken").count() == 1
    assert set(Message.objects.values_list("status", "attempts")) == {("queued", 0)}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_each_send_whose_process_died_stands_in_its_own_ledger(meta, account, order):
    for sender in ("51999999991", "51999999992"):
        writes(meta, f"Hello from {sender}", sender=sender)
    for each in Conversation.objects.order_by("pk"):
        send.send(each.pk, "Good morning", actor=SYSTEM, now=timezone.now())
    token, ids = claiming.claim(timezone.now(), 10)
    for place in order:
        assert sending.begin(ids[place], token, timezone.now())
    assert recovery.recover(timezone.now() + HOUR) == 2
    for each in Message.objects.all():
        assert each.status == "unknown"
        assert events(each, "message_unknown") == [("interrupted", str(each.pk))]


def test_a_send_whose_process_died_and_whose_account_is_gone_is_unclear(message):
    begin(message)
    ChannelAccount.objects.filter(pk=message.channel_account_id).delete()
    assert recovery.recover(timezone.now() + HOUR) == 1
    assert state(message) == ("unknown", "interrupted", 1)


# --- late news --------------------------------------------------------------------------------------------------------
def interrupted(message: Message) -> Sending:
    """Begin to send, and lose the lease while the provider is asked."""
    begun = begin(message)
    assert recovery.recover(timezone.now() + HOUR) == 1
    assert state(message)[:2] == ("unknown", "interrupted")
    return begun


@pytest.mark.parametrize(
    ("error", "becomes"), [(REFUSED, ("queued", "connect")), (NO, ("failed", "131026")), (UNCLEAR, None)]
)
def test_a_late_word_that_it_was_not_sent_counts_and_an_unclear_one_does_not(on_whatsapp, error, becomes):
    begun = interrupted(on_whatsapp)
    sending.record_failed(begun, error, timezone.now())
    assert state(on_whatsapp)[:2] == (becomes or ("unknown", "interrupted"))
    assert len(events(on_whatsapp, "message_unknown")) == 1


def test_a_late_word_does_not_count_where_the_provider_s_own_answer_was_unclear(on_whatsapp):
    begun = begin(on_whatsapp)
    sending.record_failed(begun, UNCLEAR, timezone.now())
    sending.record_failed(begun, REFUSED, timezone.now())
    assert state(on_whatsapp)[:2] == ("unknown", "connection_lost")


def test_a_late_word_does_not_count_where_others_may_have_sent_it(message, settings):
    """The account knows our ids, so that several attempts may have been under way."""
    settings.SEND_ATTEMPTS = 1
    begun = interrupted(message)
    sending.record_failed(begun, REFUSED, timezone.now())
    assert state(message)[:2] == ("unknown", "interrupted")


@pytest.mark.parametrize("status", ["sent", "delivered", "read", "failed", "cancelled"])
def test_a_late_failure_does_not_undo_what_is_settled(message, status):
    begun = begin(message)
    Message.objects.update(status=status, code="", lease_until=None)
    sending.record_failed(begun, NO, timezone.now())
    assert state(message)[:2] == (status, "")


# --- templates --------------------------------------------------------------------------------------------------------
def closed_window(message: Message) -> Message:
    template()
    Chunk.objects.filter(role="user").update(created_at=timezone.now() - LONG_AGO)
    return message


TOO_LATE = SendError("Too late.", code="131047", outside_window=True)


def test_a_template_that_is_refused_as_too_late_has_failed(on_whatsapp):
    sending.record_failed(begin(closed_window(on_whatsapp)), TOO_LATE, timezone.now())
    assert state(on_whatsapp)[:2] == ("failed", "131047")


def test_a_template_that_is_tried_again_stays_the_one_that_was_chosen(on_whatsapp):
    begun = begin(closed_window(on_whatsapp))
    sending.record_failed(begun, REFUSED, timezone.now())
    template("another")
    again = sending.begin(
        claiming.ClaimedMessage(on_whatsapp.client_id, on_whatsapp.pk), claim(on_whatsapp, HOUR), timezone.now() + HOUR
    )
    assert again
    assert again.outbound.template == begun.outbound.template
    Assistant.objects.update(template_name="")
    assert outbox.template_of(Message.objects.get()) == begun.outbound.template


@pytest.mark.parametrize("lost", ["the lease", "the account", "the conversation"])
def test_what_is_lost_as_its_template_is_looked_up_does_not_leave_and_has_not_failed(on_whatsapp, monkeypatch, lost):
    token = claim(closed_window(on_whatsapp))
    look = sending.lock_conversation

    def meanwhile(client_id: UUID, conversation_id: UUID) -> Conversation | None:
        if lost == "the lease":
            Message.objects.update(status="queued", lease_until=None, lease_token=None)
        elif lost == "the account":
            ChannelAccount.objects.filter(pk=on_whatsapp.channel_account_id).delete()
        else:
            Conversation.objects.all().delete()
        return look(client_id, conversation_id)

    monkeypatch.setattr(sending, "lock_conversation", meanwhile)
    assert sending.begin(claiming.ClaimedMessage(on_whatsapp.client_id, on_whatsapp.pk), token, timezone.now()) is None
    assert not Message.objects.filter(status__in=["sending", "failed"]).exists()


# --- what is cancelled ------------------------------------------------------------------------------------------------
def test_a_pause_and_a_claim_that_are_over_leave_nothing_behind(message):
    token = claim(message)
    pause(message.channel_account, "", minutes=5)
    assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now()) is None
    message.refresh_from_db()
    assert (message.lease_until, message.lease_token) == (None, None)
    SendPause.objects.all().delete()
    token = claim(message)
    outbox.cancel_unsent(message.conversation, "closed")
    message.refresh_from_db()
    assert (message.status, message.code, message.lease_until, message.lease_token) == (
        "cancelled",
        "closed",
        None,
        None,
    )
    assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now()) is None
