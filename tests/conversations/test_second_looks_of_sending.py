"""A send is claimed first and begun later: what happened in between is seen before the message leaves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.utils import timezone

from channels_out.contract import SendResult
from channels_out.errors import SendError
from conversations.models import ChannelAccount, Contact, Conversation, Message, SendPause
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.delivery import claiming, outbox, recovery, sending
from conversations.services.staff_actions import send
from conversations.services.transitions import closing
from tests.claims import message_ids
from tests.conftest import reply_to_all

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
GRACE = Actor("staff", "grace")
REFUSED = SendError("It could not be reached.", code="connect", retryable=True)
UNCLEAR = SendError("The connection broke off.", code="connection_lost", ambiguous=True)
ENDED = {"status": "closed", "ended_by": "staff", "reply_owed": False}
TAKEN = {"taken_over_name": "grace"}


@pytest.fixture
def conversation(door: Any) -> Conversation:
    """An open conversation on SMS, over an account that takes our id as an idempotency key."""
    door.says("Hello")
    return Conversation.objects.get()


@pytest.fixture
def message(conversation: Conversation) -> Message:
    """The assistant's reply, which waits to be sent."""
    reply_to_all()
    return Message.objects.get()


def claim(message: Message, later: timedelta = timedelta()) -> UUID:
    token, claimed = claiming.claim(timezone.now() + later, 10)
    assert [each.message_id for each in claimed] == [message.pk]
    return token


def state(message: Message) -> tuple[str, str, int]:
    message.refresh_from_db()
    return message.status, message.code, message.attempts


def pause(account: ChannelAccount, to: str, **ends: float) -> None:
    SendPause.objects.create(channel_account=account, to_address=to, until=timezone.now() + timedelta(**ends))


# --- a pause ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("whom", ["the account", "the address"])
def test_a_pause_that_begins_after_the_claim_has_the_message_wait_and_costs_no_try(message, whom):
    token = claim(message)
    pause(message.channel_account, "" if whom == "the account" else message.to_address, minutes=5)
    assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now()) is None
    assert state(message) == ("queued", "", 0)
    assert message.lease_token is None
    assert message_ids(timezone.now(), 10) == []
    token = claim(message, timedelta(minutes=6))
    assert sending.begin(
        claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now() + timedelta(minutes=6)
    )


@pytest.mark.parametrize("when", ["before the claim", "after it"])
@pytest.mark.parametrize("what", ["another address", "another account", "that is over"])
def test_a_pause_of_something_else_holds_nothing_up(shop, message, what, when):
    def begins() -> None:
        if what == "another account":
            other = ChannelAccount.objects.exclude(pk=message.channel_account_id).filter(client=shop).first()
            assert other is not None
            pause(other, "", minutes=5)
            pause(other, message.to_address, minutes=5)
        elif what == "another address":
            pause(message.channel_account, "somebody", minutes=5)
        else:
            pause(message.channel_account, "", minutes=-1)

    if when == "before the claim":
        begins()
    token = claim(message)
    if when == "after it":
        begins()
    assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now())


@pytest.mark.parametrize("change", [{"is_active": False}, {"health": "broken"}])
def test_an_account_that_is_switched_off_or_refused_after_the_claim_sends_nothing(message, change):
    token = claim(message)
    ChannelAccount.objects.filter(pk=message.channel_account_id).update(**change)
    assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now()) is None
    assert state(message) == ("queued", "", 0)
    assert message_ids(timezone.now(), 10) == []


# --- an end, a takeover, an opt-out -----------------------------------------------------------------------------------
def happens(what: str) -> None:
    """Change the conversation's row alone, as if the cancelling had missed the message."""
    now = timezone.now()
    if what == "opted_out":
        Contact.objects.update(opted_out={"sms": {"since": now.isoformat(), "word": "stop", "by": "contact"}})
    elif what == "taken_over":
        until = now + HOUR
        Conversation.objects.update(taken_over_at=now, taken_over_until=until, reply_owed=False, **TAKEN)
    elif what:
        Conversation.objects.update(**ENDED, ended_at=now)


@pytest.mark.parametrize("what", ["closed", "taken_over", "opted_out"])
@pytest.mark.parametrize("when", ["before it begins", "before it is tried again", "before its process dies"])
def test_what_may_not_be_said_any_more_does_not_leave(message, what, when):
    token = claim(message)
    if when == "before it begins":
        happens(what)
        assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now()) is None
        assert state(message) == ("cancelled", what, 1)
        return
    begun = sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now())
    assert begun
    happens(what)
    if when == "before it is tried again":
        sending.record_failed(begun, REFUSED, timezone.now())
    else:
        recovery.recover(timezone.now() + HOUR)
    assert state(message) == ("cancelled", what, 1)
    assert message.lease_token is None


@pytest.mark.parametrize(("what", "leaves"), [("closed", True), ("taken_over", True), ("opted_out", False), ("", True)])
def test_last_words_leave_after_an_end_but_not_after_an_opt_out(message, what, leaves):
    outbox.allow_sending(message.conversation)
    token = claim(message)
    happens(what)
    assert (
        sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now()) is not None
    ) is leaves


def test_what_a_colleague_wrote_leaves_during_a_takeover_and_a_stop_is_confirmed(conversation, door):
    send.send(conversation.pk, "I am human.", actor=GRACE, now=timezone.now())
    message = Message.objects.get()
    token = claim(message)
    happens("taken_over")
    assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now())
    Message.objects.update(status="sent", lease_until=None, lease_token=None)
    door.says("STOP")
    confirmation = Message.objects.get(status="queued")
    assert sending.begin(
        claiming.ClaimedMessage(confirmation.client_id, confirmation.pk), claim(confirmation), timezone.now()
    )


def test_a_close_ends_the_tries_of_last_words_that_are_just_being_sent(message):
    outbox.allow_sending(message.conversation)
    begun = sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), claim(message), timezone.now())
    assert begun
    closing.close(message.conversation_id, ended_by="staff", actor=SYSTEM, now=timezone.now())
    sending.record_failed(begun, REFUSED, timezone.now())
    assert state(message)[:2] == ("cancelled", "closed")


# --- a lease that was lost --------------------------------------------------------------------------------------------
def test_who_lost_the_claim_begins_nothing(message):
    lost = claim(message)
    recovery.recover(timezone.now() + HOUR)
    token = claim(message)
    assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), lost, timezone.now()) is None
    assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), uuid4(), timezone.now()) is None
    assert state(message)[0] == "claimed"
    assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now())


@pytest.mark.parametrize("outcome", ["sent", "failed"])
@pytest.mark.parametrize("now_it_is", ["queued", "claimed", "sending"])
def test_news_of_an_attempt_that_was_given_up_do_not_touch_the_next_one(message, outcome, now_it_is):
    first = sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), claim(message), timezone.now())
    assert first
    recovery.recover(timezone.now() + HOUR)
    if now_it_is != "queued":
        token = claim(message, HOUR)
        if now_it_is == "sending":
            assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now())
    message.refresh_from_db()
    before = (message.status, message.lease_token, message.attempts)
    if outcome == "failed":
        sending.record_failed(first, SendError("No.", code="400"), timezone.now())
    elif now_it_is != "sending":  # an answer while it is being sent again is an answer: the provider knows its key
        sending.record_sent(first, SendResult("wamid.1"), timezone.now())
    message.refresh_from_db()
    assert (message.status, message.lease_token, message.attempts) == before


@pytest.mark.parametrize("now_it_is", ["queued", "sent", "cancelled"])
def test_a_lease_is_renewed_only_while_the_message_is_on_its_way(message, now_it_is):
    claim(message)
    Message.objects.update(status=now_it_is, lease_until=None)
    recovery.renew({message.pk: message.client_id}, timezone.now())
    assert Message.objects.get().lease_until is None


# --- recovery ---------------------------------------------------------------------------------------------------------
def test_nothing_is_recovered_before_its_lease_is_over(message):
    token = claim(message)
    assert recovery.recover(timezone.now()) == 0
    assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now())
    assert recovery.recover(timezone.now()) == 0
    assert state(message)[0] == "sending"


@pytest.mark.parametrize("what", ["sent", "renewed"])
def test_a_message_that_got_further_between_the_look_and_the_recovery_is_left_alone(message, monkeypatch, what):
    begun = sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), claim(message), timezone.now())
    assert begun
    look = recovery.lock_conversation

    def meanwhile(client_id: UUID, conversation_id: UUID) -> Conversation | None:
        if what == "sent":
            Message.objects.update(status="sent", lease_until=timezone.now())
        else:
            recovery.renew({message.pk: message.client_id}, timezone.now() + 2 * HOUR)
        return look(client_id, conversation_id)

    monkeypatch.setattr(recovery, "lock_conversation", meanwhile)
    assert recovery.recover(timezone.now() + HOUR) == 0
    assert state(message)[0] == ("sent" if what == "sent" else "sending")


def test_a_send_whose_process_died_at_its_last_try_is_unclear_and_not_tried_again(message, settings):
    settings.SEND_ATTEMPTS = 2
    for attempt, then in ((1, "queued"), (2, "unknown")):
        assert sending.begin(
            claiming.ClaimedMessage(message.client_id, message.pk), claim(message, attempt * HOUR), timezone.now()
        )
        assert recovery.recover(timezone.now() + (attempt + 1) * HOUR) == 1
        assert state(message)[::2] == (then, attempt)
    assert message.code == "interrupted"
    assert message.conversation.events.filter(kind="message_unknown", cause="interrupted").count() == 1
    assert message_ids(timezone.now() + 9 * HOUR, 10) == []


@pytest.mark.parametrize("error", [REFUSED, UNCLEAR])
def test_a_send_that_fails_at_its_last_try_has_failed(message, settings, error):
    settings.SEND_ATTEMPTS = 1
    begun = sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), claim(message), timezone.now())
    assert begun
    sending.record_failed(begun, error, timezone.now())
    assert state(message)[0] == "failed"


def test_an_unclear_send_over_an_account_that_knows_our_key_is_tried_again(message):
    begun = sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), claim(message), timezone.now())
    assert begun
    sending.record_failed(begun, UNCLEAR, timezone.now())
    assert state(message) == ("queued", "connection_lost", 1)


def test_an_answer_after_an_earlier_receipt_changes_no_status(message):
    begun = sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), claim(message), timezone.now())
    assert begun
    Message.objects.update(status="read", lease_token=None, lease_until=None)
    sending.record_sent(begun, SendResult("wamid.1"), timezone.now())
    assert state(message)[0] == "read"
    assert message.provider_message_id == "wamid.1"


# --- order ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("earlier", ["queued", "claimed", "sending", "unknown"])
def test_a_message_waits_for_the_one_before_it(conversation, earlier):
    for text in ("first", "second"):
        send.send(conversation.pk, text, actor=SYSTEM, now=timezone.now())
    first, second = Message.objects.order_by("chunk_id")
    now = timezone.now()
    Message.objects.filter(pk=first.pk).update(
        status=earlier, due_at=now + HOUR, sending_at=now, lease_until=now + HOUR
    )
    assert message_ids(now, 10) == []
    Message.objects.filter(pk=first.pk).update(status="failed")
    assert message_ids(now, 10) == [second.pk]
