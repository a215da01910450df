"""Delivery: order, retries, what is unclear, and what happens to the rest, against a provider over real HTTP."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from channels_out.events import Receipt
from channels_out.kinds import ReceiptStatus
from conversations.models import ChannelAccount, Conversation, InboundEvent, Message, SendPause
from conversations.services.delivery import claiming, receipts, recovery
from conversations.services.delivery import sending as delivery
from tests import factories
from tests.claims import message_ids
from tests.conftest import send_all
from tests.conversations.meta_doors import account_at, post_whatsapp
from tests.fakes.server import Fault

pytestmark = pytest.mark.django_db


@pytest.fixture
def session(door, account):
    """An open WhatsApp session at the fake; what was owed is settled."""
    answer = door.says("Hello", channel="whatsapp", user_id="ann", phone="+51999999999")
    Conversation.objects.update(channel_account=account, reply_owed=False)
    return answer["conversation_id"]


def say(door, session, text):
    status, envelope = door.call("POST", f"/conversations/{session}/send", {"role": "ai", "content": text})
    assert status == 201, envelope
    return envelope["data"]


def all_due():
    Message.objects.filter(status="queued").update(due_at=timezone.now())


def states():
    return list(Message.objects.order_by("chunk_id", "part").values_list("status", flat=True))


def test_a_long_text_goes_in_parts_in_order(door, session, meta):
    text = "A sentence of some length. " * 400
    parts = say(door, session, text)["messages"]
    assert len(parts) == 3
    send_all()

    assert [sent.text for sent in meta.sent] == [m.text for m in Message.objects.order_by("part")]
    assert "".join(m.text for m in Message.objects.order_by("part")) == text
    assert max(len(sent.text) for sent in meta.sent) <= 4096
    assert states() == ["sent"] * 3


def test_a_throttled_part_waits_as_long_as_asked_and_the_rest_waits_for_it(door, session, meta):
    say(door, session, "x" * 5000)
    meta.throttle_next(retry_after=90)
    before = timezone.now()
    assert send_all() == 1

    first, second = Message.objects.order_by("part")
    assert (first.status, first.code, second.status) == ("queued", "130429", "queued")
    assert first.due_at >= before + timedelta(seconds=90)
    assert send_all() == 0, "the second part does not overtake the first"
    pause = SendPause.objects.get()
    assert (pause.to_address, pause.until) == ("", first.due_at), "and so does everything else from this account"
    SendPause.objects.update(until=timezone.now())
    all_due()
    assert send_all() == 2
    assert states() == ["sent", "sent"]
    assert first.attempts == 0, "throttling says nothing of the message"


def test_tries_are_bounded_and_the_parts_after_a_failed_one_are_not_sent(door, session, meta, settings):
    settings.SEND_ATTEMPTS = 3
    say(door, session, "x" * 5000)
    say(door, session, "after it")
    meta.fail_next(Fault(500, {"error": {"code": 131000, "message": "Something went wrong"}}), 3)
    for _ in range(3):
        all_due()
        send_all()

    assert states() == ["failed", "cancelled", "sent"]
    failed = Message.objects.get(status="failed")
    assert (failed.code, failed.attempts) == ("131000", 3)
    assert failed.reason


def test_a_permanent_error_is_not_tried_again(door, session, meta):
    say(door, session, "Hello")
    meta.error_next(131026)
    assert send_all() == 1
    assert states() == ["failed"]
    assert Message.objects.get().code == "131026"


def test_a_lost_answer_is_unclear_not_repeated_and_settled_by_its_receipt(door, session, meta):
    say(door, session, "Hello")
    say(door, session, "And more")
    meta.fail_next(Fault(cut="after"))
    assert send_all() == 1, "an unclear message holds back the one after it"
    assert states() == ["unknown", "queued"]
    assert len(meta.sent) == 1

    post_whatsapp(meta.status_webhook(meta.sent[0], "delivered"))
    send_all()
    assert states() == ["delivered", "sent"]
    assert [sent.text for sent in meta.sent] == ["Hello", "And more"], "nothing went twice"


def test_an_unclear_message_holds_the_rest_back_for_a_minute_at_most(door, session, meta):
    say(door, session, "Hello")
    say(door, session, "And more")
    meta.fail_next(Fault(cut="after"))
    send_all()
    Message.objects.filter(status="unknown").update(sending_at=timezone.now() - timedelta(seconds=61))
    send_all()
    assert states() == ["unknown", "sent"]


def test_a_refused_connection_never_left_and_is_tried_again(door, session, meta):
    ChannelAccount.objects.filter(provider="whatsapp").update(base_url="http://127.0.0.1:9")
    say(door, session, "Hello")
    send_all()
    message = Message.objects.get()
    assert (message.status, message.code) == ("queued", "connect")


def test_refused_credentials_stop_the_account_and_new_ones_resume_it(door, session, meta, account):
    say(door, session, "Hello")
    say(door, session, "And more")
    meta.error_next(190, status=401)
    assert send_all() == 1
    account.refresh_from_db()
    assert (account.health, states()) == ("broken", ["queued", "queued"])
    assert Message.objects.order_by("chunk_id").first().attempts == 0, "it is not the message's fault"

    account_at(meta, door.shop)
    send_all()
    assert states() == ["sent", "sent"]


def test_a_claimed_message_of_a_dead_dispatcher_is_claimed_again(door, session, meta):
    say(door, session, "Hello")
    claiming.claim(timezone.now(), 10)
    assert message_ids(timezone.now(), 10) == []
    assert recovery.recover(timezone.now() + timedelta(hours=1)) == 1
    send_all()
    assert states() == ["sent"]


def test_a_message_that_was_being_sent_when_its_dispatcher_died_is_unclear(door, session, meta):
    say(door, session, "Hello")
    token, [claimed] = claiming.claim(timezone.now(), 10)
    sending = delivery.begin(claimed, token, timezone.now())
    recovery.recover(timezone.now() + timedelta(hours=1))
    assert states() == ["unknown"]
    delivery.record_sent(sending, sending.send(), timezone.now())
    assert states() == ["sent"], "late news is news"


def test_a_sandbox_takes_our_id_as_idempotency_key_and_is_tried_again(door):
    conversation_id = door.says("Hello")["conversation_id"]
    door.call("POST", f"/conversations/{conversation_id}/send", {"content": "Hi"})
    token, [claimed] = claiming.claim(timezone.now(), 10)
    delivery.begin(claimed, token, timezone.now())
    recovery.recover(timezone.now() + timedelta(hours=1))
    assert states() == ["queued"]
    all_due()
    send_all()
    assert states() == ["delivered"]


def test_a_receipt_that_is_faster_than_our_commit_counts(door, session, meta, account):
    say(door, session, "Hello")
    token, [claimed] = claiming.claim(timezone.now(), 10)
    sending = delivery.begin(claimed, token, timezone.now())
    result = sending.send()
    webhook = meta.status_webhook(meta.sent[0], "read")
    post_whatsapp(webhook)
    assert states() == ["read"], "found by the id that we gave along"
    delivery.record_sent(sending, result, timezone.now())
    assert states() == ["read"]


def test_an_early_receipt_without_our_id_is_kept_and_applied(door, session, meta, account):
    say(door, session, "Hello")
    token, [claimed] = claiming.claim(timezone.now(), 10)
    sending = delivery.begin(claimed, token, timezone.now())
    result = sending.send()
    meta.sent[0] = type(meta.sent[0])(**{**vars(meta.sent[0]), "our_message_id": ""})
    post_whatsapp(meta.status_webhook(meta.sent[0], "delivered"))
    assert InboundEvent.objects.get().reason == "receipt_unmatched"
    delivery.record_sent(sending, result, timezone.now())
    assert states() == ["delivered"]
    assert not InboundEvent.objects.exists()


def test_a_close_cancels_what_has_not_left(door, session, meta):
    say(door, session, "Hello")
    door.call("POST", f"/conversations/{session}/close", {"reason": "done"})
    assert send_all() == 0
    message = Message.objects.get()
    assert (message.status, message.code) == ("cancelled", "closed")


def test_a_failure_does_not_undo_a_delivery(door, session, meta, account):
    say(door, session, "Hello")
    send_all()
    wamid = meta.sent[0].wamid
    for status in (ReceiptStatus.DELIVERED, ReceiptStatus.FAILED, ReceiptStatus.SENT):
        receipts.apply(account, Receipt(account=account.address, provider_message_id=wamid, status=status))
    assert states() == ["delivered"]


def test_an_account_that_is_switched_off_sends_nothing_until_it_is_on_again(door):
    conversation_id = door.says("Hello")["conversation_id"]
    ChannelAccount.objects.update(is_active=False)
    door.call("POST", f"/conversations/{conversation_id}/send", {"content": "Hi"})
    assert (send_all(), states()) == (0, ["queued"])
    ChannelAccount.objects.update(is_active=True)
    assert (send_all(), states()) == (1, ["delivered"])


def test_a_session_that_was_opened_before_its_account_was_made_uses_it(door):
    ChannelAccount.objects.all().delete()
    conversation_id = door.says("Hello")["conversation_id"]
    path = f"/conversations/{conversation_id}/send"
    assert door.call("POST", path, {"content": "Hi"})[1]["data"]["messages"][0]["code"] == "no_account"
    factories.SandboxFactory(client=door.shop, channel="sms")
    assert door.call("POST", path, {"content": "Hi"})[1]["data"]["messages"][0]["status"] == "queued"
    assert send_all() == 1
