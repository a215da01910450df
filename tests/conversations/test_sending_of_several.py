"""Several messages and several dispatchers: whom an attempt leaves alone, who waits for whom, and who comes first."""

from __future__ import annotations

from functools import partial

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from channels_out.contract import SendResult
from channels_out.events import Receipt
from channels_out.kinds import ReceiptStatus
from conversations.models import ChannelAccount, InboundEvent, Message
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import claiming, receipts, recovery, sending
from conversations.services.staff_actions import send
from conversations.services.transitions import closing
from tests.claims import message_ids
from tests.conftest import Door, reply_to_all
from tests.conversations.test_outcomes_of_sending import MINUTE, TICK, begin, on_whatsapp
from tests.conversations.test_second_looks_of_sending import HOUR, claim, conversation, message, state
from tests.races.threads import not_committed

pytestmark = pytest.mark.django_db
__all__ = ["conversation", "message", "on_whatsapp"]  # fixtures


# --- whom it leaves alone ---------------------------------------------------------------------------------------------
@pytest.fixture
def two(door: Door) -> tuple[Message, Message]:
    """The first messages of two conversations, both claimed by one dispatcher; the first is being sent."""
    for user in ("ann", "bea"):
        door.says("Hello", user_id=user)
    reply_to_all()
    first, second = Message.objects.order_by("chunk_id")
    token, ids = claiming.claim(timezone.now(), 10)
    assert {each.message_id for each in ids} == {first.pk, second.pk}
    assert sending.begin(claiming.ClaimedMessage(first.client_id, first.pk), token, timezone.now())
    return first, second


def test_one_message_is_begun_of_those_that_a_dispatcher_claimed(two):
    assert [each.status for each in Message.objects.order_by("chunk_id")] == ["sending", "claimed"]


def test_a_renewal_is_of_the_messages_it_names(two):
    first, second = two
    before = Message.objects.get(pk=second.pk).lease_until
    recovery.renew({first.pk: first.client_id}, timezone.now() + HOUR)
    assert Message.objects.get(pk=second.pk).lease_until == before
    assert Message.objects.get(pk=first.pk).lease_until > before


def test_a_recovery_is_of_the_leases_that_are_over(two):
    first, second = two
    Message.objects.filter(pk=second.pk).update(status="sending")
    recovery.renew({second.pk: second.client_id}, timezone.now() + 2 * HOUR)
    assert recovery.recover(timezone.now() + HOUR) == 1
    assert [state(each)[0] for each in (first, second)] == ["queued", "sending"]


def test_a_recovery_finds_each_message_by_its_key_and_does_not_read_all(two):
    """The key begins with the client."""
    Message.objects.update(status="sending")
    with CaptureQueriesContext(connection) as captured:
        assert recovery.recover(timezone.now() + HOUR) == 2
    reads = [each["sql"] for each in captured if 'FOR UPDATE OF "conversation_messages"' in each["sql"]]
    client = f"""."client_id" = '{two[0].client_id.hex}'"""
    assert [client in each for each in reads] == [True, True]


@pytest.mark.parametrize("status", ["claimed", "sending", "unknown", "sent", "failed", "cancelled"])
def test_a_recovery_of_one_claim_leaves_every_other_message_as_it_is(two, status):
    first, second = two
    Message.objects.filter(pk=first.pk).update(status="claimed")
    now = timezone.now()
    Message.objects.filter(pk=second.pk).update(status=status, lease_until=now + 2 * HOUR)
    assert recovery.recover(now + HOUR) == 1
    assert [state(each)[0] for each in (first, second)] == ["queued", status]


def test_an_answer_is_of_its_own_message(two):
    first, second = two
    begun = sending.begin(
        claiming.ClaimedMessage(second.client_id, second.pk),
        Message.objects.get(pk=second.pk).lease_token,
        timezone.now(),
    )
    assert begun
    sending.record_sent(begun, SendResult("SM2"), timezone.now())
    assert [state(each)[0] for each in (first, second)] == ["sending", "sent"]


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_are_claimed_than_asked_for_and_the_oldest_first(two, most):
    Message.objects.update(status="queued", lease_until=None, lease_token=None)
    assert set(message_ids(timezone.now(), most)) == {each.pk for each in two[:most]}


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
    assert message_ids(now, 10) == ([] if waits else [second.pk])


def test_a_conversation_that_waits_holds_no_other_up(two):
    first, second = two
    Message.objects.filter(pk=second.pk).update(status="queued", lease_until=None, lease_token=None)
    assert Message.objects.get(pk=first.pk).status == "sending"
    assert message_ids(timezone.now(), 10) == [second.pk]


def test_an_account_that_is_broken_or_off_holds_no_other_up(two, shop):
    first, second = two
    Message.objects.update(status="queued", lease_until=None, lease_token=None)
    other = ChannelAccount.objects.get(client=shop, channel="whatsapp")
    Message.objects.filter(pk=second.pk).update(channel_account=other)
    for change in ({"is_active": False}, {"health": "broken"}):
        ChannelAccount.objects.filter(pk=first.channel_account_id).update(**change)
        assert message_ids(timezone.now(), 10) == [second.pk]
        Message.objects.filter(pk=second.pk).update(status="queued", lease_until=None, lease_token=None)
        ChannelAccount.objects.update(is_active=True, health="ok")


# --- two at a time ----------------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_a_message_that_is_just_being_claimed_is_not_claimed_again_and_not_waited_for(message):
    with not_committed(partial(claiming.claim, timezone.now(), 10)):
        assert message_ids(timezone.now(), 10) == []
        assert state(message)[0] == "queued", "the other claim is not committed yet"
    assert state(message) == ("claimed", "", 1)


@pytest.mark.django_db(transaction=True)
def test_a_message_whose_conversation_is_just_being_closed_does_not_leave(message):
    token = claim(message)
    close = partial(closing.close, message.conversation_id, ended_by="staff", actor=SYSTEM, now=timezone.now())
    with not_committed(close):
        assert sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now()) is None
    assert state(message) == ("cancelled", "closed", 1)


@pytest.mark.django_db(transaction=True)
def test_a_message_that_is_just_being_begun_is_not_recovered_and_not_waited_for(message):
    token = claim(message)
    late = timezone.now() + HOUR
    with not_committed(partial(sending.begin, claiming.ClaimedMessage(message.client_id, message.pk), token, late)):
        assert recovery.recover(late) == 0
        assert state(message)[0] == "claimed", "the begin is not committed yet"
    assert state(message) == ("sending", "", 1)


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_is_just_being_written_is_not_overwritten_by_a_recovery(on_whatsapp):
    begun = begin(on_whatsapp)
    answer = partial(sending.record_sent, begun, SendResult("wamid.1"), timezone.now())
    with not_committed(answer):
        assert recovery.recover(timezone.now() + HOUR) == 0
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
