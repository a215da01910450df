"""What an attempt leaves in the message's row and in the ledger, and which rows it leaves alone."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from channels_out.contract import SendResult
from channels_out.errors import SendError
from channels_out.events import Receipt
from channels_out.kinds import ReceiptStatus
from conversations.models import Assistant, ChannelAccount, Chunk, Conversation, InboundEvent, Message, SendPause
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import outbox, receipts, reply_window, sending
from conversations.services.delivery.sending import Sending
from conversations.services.staff_actions import send
from conversations.services.transitions import closing
from tests.conftest import Door, reply_to_all
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
from tests.races.threads import not_committed

pytestmark = pytest.mark.django_db
__all__ = ["conversation", "message"]  # fixtures

MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)
NO = SendError("The number is not on WhatsApp.", code="131026")


def begin(message: Message) -> Sending:
    begun = sending.begin(message.pk, claim(message), timezone.now())
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
    begun = sending.begin(message.pk, claim(message, HOUR), now)
    assert begun
    sending.record_failed(begun, slow, now)
    message.refresh_from_db()
    assert message.due_at >= now + timedelta(seconds=600)


def test_a_claim_counts_one_attempt_and_lasts_as_long_as_a_lease(message, settings):
    settings.LEASE_SECONDS = 60
    now = timezone.now()
    token, _ = sending.claim(now, 10)
    message.refresh_from_db()
    assert (message.status, message.attempts, message.lease_token) == ("claimed", 1, token)
    assert message.lease_until == now + MINUTE
    later = now + timedelta(seconds=10)
    assert sending.begin(message.pk, token, later)
    message.refresh_from_db()
    assert (message.status, message.sending_at, message.lease_until) == ("sending", later, later + MINUTE)
    sending.renew([message.pk], later + MINUTE)
    message.refresh_from_db()
    assert message.lease_until == later + 2 * MINUTE


def test_a_message_is_due_at_its_time_and_not_before(message):
    due = timezone.now() + HOUR
    Message.objects.update(due_at=due)
    assert sending.claim(due - TICK, 10)[1] == []
    assert sending.claim(due, 10)[1] == [message.pk]


def test_a_lease_is_over_after_its_end_and_not_before(message):
    for _ in range(2):
        token = claim(message)
        message.refresh_from_db()
        if message.attempts == 2:
            assert sending.begin(message.pk, token, timezone.now())
            message.refresh_from_db()
        assert sending.recover(message.lease_until) == 0
        assert sending.recover(message.lease_until + TICK) == 1
    assert state(message)[0] == "queued"


# --- the ledger -------------------------------------------------------------------------------------------------------
def events(message: Message, kind: str) -> list[tuple[str, str]]:
    found = message.conversation.events.filter(kind=kind).order_by("id")
    return [(event.cause, event.data["message_id"]) for event in found]


def test_an_unclear_send_stands_in_the_ledger(on_whatsapp):
    sending.record_failed(begin(on_whatsapp), UNCLEAR, timezone.now())
    assert state(on_whatsapp) == ("unknown", "connection_lost", 1)
    assert events(on_whatsapp, "message_unknown") == [("connection_lost", str(on_whatsapp.pk))]


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


@pytest.mark.parametrize("status", ["claimed", "sending", "unknown", "sent", "failed", "cancelled"])
def test_a_recovery_of_one_claim_leaves_every_other_message_as_it_is(two, status):
    first, second = two
    Message.objects.filter(pk=first.pk).update(status="claimed")
    now = timezone.now()
    Message.objects.filter(pk=second.pk).update(status=status, lease_until=now + 2 * HOUR)
    assert sending.recover(now + HOUR) == 1
    assert [state(each)[0] for each in (first, second)] == ["queued", status]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_each_send_whose_process_died_stands_in_its_own_ledger(meta, account, order):
    for sender in ("51999999991", "51999999992"):
        writes(meta, f"Hello from {sender}", sender=sender)
    for each in Conversation.objects.order_by("pk"):
        send.send(each.pk, "Good morning", actor=SYSTEM, now=timezone.now())
    token, ids = sending.claim(timezone.now(), 10)
    for place in order:
        assert sending.begin(ids[place], token, timezone.now())
    assert sending.recover(timezone.now() + HOUR) == 2
    for each in Message.objects.all():
        assert each.status == "unknown"
        assert events(each, "message_unknown") == [("interrupted", str(each.pk))]


def test_a_send_whose_process_died_and_whose_account_is_gone_is_unclear(message):
    begin(message)
    ChannelAccount.objects.filter(pk=message.channel_account_id).delete()
    assert sending.recover(timezone.now() + HOUR) == 1
    assert state(message) == ("unknown", "interrupted", 1)


# --- late news --------------------------------------------------------------------------------------------------------
def interrupted(message: Message) -> Sending:
    """Begin to send, and lose the lease while the provider is asked."""
    begun = begin(message)
    assert sending.recover(timezone.now() + HOUR) == 1
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
    again = sending.begin(on_whatsapp.pk, claim(on_whatsapp, HOUR), timezone.now() + HOUR)
    assert again
    assert again.outbound.template == begun.outbound.template
    Assistant.objects.update(template_name="")
    assert reply_window.template_from_text(Message.objects.get().template) == begun.outbound.template


@pytest.mark.parametrize("lost", ["the lease", "the account", "the conversation"])
def test_what_is_lost_as_its_template_is_looked_up_does_not_leave_and_has_not_failed(on_whatsapp, monkeypatch, lost):
    token = claim(closed_window(on_whatsapp))
    look = sending._lock_conversation

    def meanwhile(conversation_id: UUID) -> Conversation | None:
        if lost == "the lease":
            Message.objects.update(status="queued", lease_until=None, lease_token=None)
        elif lost == "the account":
            ChannelAccount.objects.filter(pk=on_whatsapp.channel_account_id).delete()
        else:
            Conversation.objects.all().delete()
        return look(conversation_id)

    monkeypatch.setattr(sending, "_lock_conversation", meanwhile)
    assert sending.begin(on_whatsapp.pk, token, timezone.now()) is None
    assert not Message.objects.filter(status__in=["sending", "failed"]).exists()


# --- whom it leaves alone ---------------------------------------------------------------------------------------------
@pytest.fixture
def two(door: Door) -> tuple[Message, Message]:
    """The first messages of two conversations, both claimed by one dispatcher; the first is being sent."""
    for user in ("ann", "bea"):
        door.says("Hello", user_id=user)
    reply_to_all()
    first, second = Message.objects.order_by("chunk_id")
    token, ids = sending.claim(timezone.now(), 10)
    assert set(ids) == {first.pk, second.pk}
    assert sending.begin(first.pk, token, timezone.now())
    return first, second


def test_one_message_is_begun_of_those_that_a_dispatcher_claimed(two):
    assert [each.status for each in Message.objects.order_by("chunk_id")] == ["sending", "claimed"]


def test_a_renewal_is_of_the_messages_it_names(two):
    first, second = two
    before = Message.objects.get(pk=second.pk).lease_until
    sending.renew([first.pk], timezone.now() + HOUR)
    assert Message.objects.get(pk=second.pk).lease_until == before
    assert Message.objects.get(pk=first.pk).lease_until > before


def test_a_recovery_is_of_the_leases_that_are_over(two):
    first, second = two
    Message.objects.filter(pk=second.pk).update(status="sending")
    sending.renew([second.pk], timezone.now() + 2 * HOUR)
    assert sending.recover(timezone.now() + HOUR) == 1
    assert [state(each)[0] for each in (first, second)] == ["queued", "sending"]


def test_an_answer_is_of_its_own_message(two):
    first, second = two
    begun = sending.begin(second.pk, Message.objects.get(pk=second.pk).lease_token, timezone.now())
    assert begun
    sending.record_sent(begun, SendResult("SM2"), timezone.now())
    assert [state(each)[0] for each in (first, second)] == ["sending", "sent"]


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_are_claimed_than_asked_for_and_the_oldest_first(two, most):
    Message.objects.update(status="queued", lease_until=None, lease_token=None)
    assert set(sending.claim(timezone.now(), most)[1]) == {each.pk for each in two[:most]}


# --- order ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("earlier", "ago", "waits"),
    [
        ("queued", HOUR, True),
        ("claimed", HOUR, True),
        ("sending", HOUR, True),
        ("unknown", MINUTE, True),
        ("unknown", MINUTE + TICK, False),
    ],
)
def test_only_an_unclear_message_is_waited_for_no_longer_than_a_minute(conversation, earlier, ago, waits):
    for text in ("first", "second"):
        send.send(conversation.pk, text, actor=SYSTEM, now=timezone.now())
    first, second = Message.objects.order_by("chunk_id")
    now = timezone.now()
    Message.objects.filter(pk=first.pk).update(
        status=earlier, due_at=now + HOUR, sending_at=now - ago, lease_until=now + HOUR
    )
    assert sending.claim(now, 10)[1] == ([] if waits else [second.pk])


def test_a_conversation_that_waits_holds_no_other_up(two):
    first, second = two
    Message.objects.filter(pk=second.pk).update(status="queued", lease_until=None, lease_token=None)
    assert Message.objects.get(pk=first.pk).status == "sending"
    assert sending.claim(timezone.now(), 10)[1] == [second.pk]


def test_an_account_that_is_broken_or_off_holds_no_other_up(two, shop):
    first, second = two
    Message.objects.update(status="queued", lease_until=None, lease_token=None)
    other = ChannelAccount.objects.get(client=shop, channel="whatsapp")
    Message.objects.filter(pk=second.pk).update(channel_account=other)
    for change in ({"is_active": False}, {"health": "broken"}):
        ChannelAccount.objects.filter(pk=first.channel_account_id).update(**change)
        assert sending.claim(timezone.now(), 10)[1] == [second.pk]
        Message.objects.filter(pk=second.pk).update(status="queued", lease_until=None, lease_token=None)
        ChannelAccount.objects.update(is_active=True, health="ok")


# --- two at a time ----------------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_a_message_that_is_just_being_claimed_is_not_claimed_again_and_not_waited_for(message):
    with not_committed(partial(sending.claim, timezone.now(), 10)):
        assert sending.claim(timezone.now(), 10)[1] == []
        assert state(message)[0] == "queued", "the other claim is not committed yet"
    assert state(message) == ("claimed", "", 1)


@pytest.mark.django_db(transaction=True)
def test_a_message_whose_conversation_is_just_being_closed_does_not_leave(message):
    token = claim(message)
    close = partial(closing.close, message.conversation_id, ended_by="staff", actor=SYSTEM, now=timezone.now())
    with not_committed(close):
        assert sending.begin(message.pk, token, timezone.now()) is None
    assert state(message) == ("cancelled", "closed", 1)


@pytest.mark.django_db(transaction=True)
def test_a_message_that_is_just_being_begun_is_not_recovered_and_not_waited_for(message):
    token = claim(message)
    late = timezone.now() + HOUR
    with not_committed(partial(sending.begin, message.pk, token, late)):
        assert sending.recover(late) == 0
        assert state(message)[0] == "claimed", "the begin is not committed yet"
    assert state(message) == ("sending", "", 1)


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_is_just_being_written_is_not_overwritten_by_a_recovery(on_whatsapp):
    begun = begin(on_whatsapp)
    answer = partial(sending.record_sent, begun, SendResult("wamid.1"), timezone.now())
    with not_committed(answer):
        assert sending.recover(timezone.now() + HOUR) == 0
    assert state(on_whatsapp)[:2] == ("sent", "")


@pytest.mark.django_db(transaction=True)
def test_a_receipt_that_is_just_being_applied_is_not_overwritten_by_the_answer(on_whatsapp):
    begun = begin(on_whatsapp)
    read = Receipt(begun.account.address, "", ReceiptStatus.READ, our_message_id=str(on_whatsapp.pk))
    with not_committed(partial(receipts.apply, on_whatsapp.channel_account, read)):
        sending.record_sent(begun, SendResult("wamid.1"), timezone.now())
    assert state(on_whatsapp)[0] == "read"


@pytest.mark.django_db(transaction=True)
def test_a_receipt_that_is_just_being_kept_is_waited_for_and_applied(on_whatsapp):
    begun, account = begin(on_whatsapp), on_whatsapp.channel_account
    read = Receipt(account.address, "wamid.1", ReceiptStatus.READ)

    def kept() -> None:
        raw = {"account": account.address, "provider_message_id": "wamid.1", "status": "read"}
        InboundEvent.objects.create(
            client=account.client,
            channel_account=account,
            channel="whatsapp",
            provider="whatsapp",
            kind="receipt",
            reason=receipts.UNMATCHED,
            message_id="wamid.1",
            raw=raw,
        )

    with not_committed(partial(receipts.apply, account, read, kept)):
        sending.record_sent(begun, SendResult("wamid.1"), timezone.now())
    assert state(on_whatsapp)[0] == "read"
    assert not InboundEvent.objects.exists()


# --- what is cancelled ------------------------------------------------------------------------------------------------
def test_a_pause_and_a_claim_that_are_over_leave_nothing_behind(message):
    token = claim(message)
    pause(message.channel_account, "", minutes=5)
    assert sending.begin(message.pk, token, timezone.now()) is None
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
    assert sending.begin(message.pk, token, timezone.now()) is None
