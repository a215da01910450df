"""What failed and is sent again: what the provider says of the first try, late or twice, does not stop the second."""

from __future__ import annotations

import pytest
from django.utils import timezone

from channels_out.simulators import whatsapp
from conversations.models import ChannelAccount, Conversation, ConversationEvent, Message
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import SYSTEM
from conversations.services.retention import holds
from conversations.services.simulator import accounts
from conversations.services.staff_actions import resend, send
from tests.conftest import fetch_all, send_all
from tests.conversations.meta_doors import account_at, post
from tests.fakes.shelf import Shelf

pytestmark = pytest.mark.django_db
UNDELIVERABLE = 131026


@pytest.fixture
def failed(meta, shop):
    """A message that Meta took and could not deliver."""
    ChannelAccount.objects.filter(client=shop, provider="sandbox", channel="whatsapp").delete()
    account_at(meta, shop)
    post(meta.text_webhook("Hello"), "whatsapp")
    send.send(Conversation.objects.get().pk, "Hi", actor=SYSTEM, now=timezone.now())
    send_all()
    told(meta, 0, "failed")
    return Message.objects.get(status="failed", code=str(UNDELIVERABLE))


def told(meta, number, word):
    """Meta reports of the send of that number."""
    status = post(
        meta.status_webhook(meta.sent[number], word, error=UNDELIVERABLE if word == "failed" else None), "whatsapp"
    )
    assert status == (200, {"messages": 0, "receipts": 1, "recorded": 0})


def again(message):
    resend.resend(message.pk, actor=SYSTEM, now=timezone.now(), conversation_id=message.conversation_id)


def state():
    return Message.objects.values_list("status", flat=True).get()


@pytest.mark.parametrize("late", ["failed", "sent"])
def test_a_late_word_of_the_first_try_does_not_stop_the_second(meta, failed, late):
    again(failed)
    told(meta, 0, late)
    assert state() == "queued"
    assert send_all() == 1
    assert len(meta.sent) == 2
    told(meta, 0, late)
    assert state() == "sent"
    told(meta, 1, "read")
    assert state() == "read"


def test_what_arrived_after_all_does_not_go_again(meta, failed):
    again(failed)
    told(meta, 0, "delivered")
    assert state() == "delivered"
    assert send_all() == 0
    assert len(meta.sent) == 1


def test_a_second_try_that_fails_says_so(meta, failed):
    again(failed)
    send_all()
    told(meta, 1, "failed")
    assert state() == "failed"
    assert ConversationEvent.objects.filter(kind="message_failed").count() == 2


def test_a_late_sent_does_not_settle_what_waits_for_its_account(meta, failed):
    again(failed)
    send_all()
    status = whatsapp.status(meta.sent[1].wamid, "failed", error=190, our_message_id=str(failed.pk))
    post(meta.webhook(statuses=[status]), "whatsapp")
    assert state() == "queued"
    told(meta, 1, "sent")
    assert state() == "queued", "it waits for new credentials"


def test_the_row_of_a_held_session_stays_and_the_ledger_tells_of_the_first_try(meta, failed):
    holds.hold(failed.conversation_id, reason="Case 4711", actor=SYSTEM)
    again(failed)
    send_all()
    assert Message.objects.get().pk == failed.pk
    line = ConversationEvent.objects.get(kind="message_resent")
    assert line.cause == str(UNDELIVERABLE)
    assert line.data["provider_message_id"] == meta.sent[0].wamid
    assert line.data["failed_at"]


def test_what_had_no_account_keeps_its_row_and_gets_its_parts(meta, shop, door):
    ChannelAccount.objects.filter(client=shop, channel="whatsapp").delete()
    session = door.says("Hello", channel="whatsapp", phone="+51999999999")["conversation_id"]
    _, [lost] = send.send(session, "x" * 5000, actor=SYSTEM, now=timezone.now())
    assert lost.code == "no_account"
    holds.hold(session, reason="Case 4711", actor=SYSTEM)
    account_at(meta, shop)
    again(lost)
    assert send_all() == 2
    parts = Message.objects.order_by("part")
    assert [(each.part, each.parts, each.status) for each in parts] == [(1, 2, "sent"), (2, 2, "sent")]
    assert parts[0].pk == lost.pk
    assert parts[0].created_at == lost.created_at
    assert [len(sent.text) for sent in meta.sent] == [4096, 904]


@pytest.mark.parametrize("first", ["text", "file"])
def test_what_had_no_account_is_sent_with_its_files(meta, shop, door, settings, first):
    settings.MEDIA_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    ChannelAccount.objects.filter(client=shop, channel="whatsapp").delete()
    session = door.says("Hello", channel="whatsapp", phone="+51999999999")["conversation_id"]
    with Shelf() as shelf:
        files = [{"url": f"{shelf.url}/invoice.pdf"}, {"url": f"{shelf.url}/parts/Part%207.jpg"}]
        words = "x" * 4097
        door.call("POST", f"/conversations/{session}/send", {"content": words, "attachments": files})
        lost = list(Message.objects.order_by("part"))
        assert [each.code for each in lost] == ["no_account"] * 3
        fetch_all()
    account_at(meta, shop)
    again(lost[0] if first == "text" else lost[2])
    send_all()
    assert [each.kind for each in meta.sent] == ["text", "text", "document", "image"]
    assert "".join(each.text for each in meta.sent) == words, "no line names the files"
    assert meta.sent[2].file["filename"] == "invoice.pdf"
    sent = Message.objects.order_by("part")
    assert [each.status for each in sent] == ["sent"] * 4
    assert [each.pk for each in sent][:3] == [each.pk for each in lost]


def test_files_alone_that_had_no_account_are_sent(meta, shop, door, settings):
    settings.MEDIA_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    ChannelAccount.objects.filter(client=shop, channel="whatsapp").delete()
    session = door.says("Hello", channel="whatsapp", phone="+51999999999")["conversation_id"]
    with Shelf() as shelf:
        files = [{"url": f"{shelf.url}/invoice.pdf"}]
        door.call("POST", f"/conversations/{session}/send", {"attachments": files})
        account_at(meta, shop)
        again(Message.objects.get())
        assert send_all() == 0, "the file is not there yet"
        fetch_all()
    send_all()
    assert [each.kind for each in meta.sent] == ["document"]


def test_no_simulated_account_answers_for_what_had_no_account(shop, door):
    ChannelAccount.objects.filter(client=shop, channel="whatsapp").delete()
    session = door.says("Hello", channel="whatsapp", phone="+51999999999")["conversation_id"]
    _, [lost] = send.send(session, "Hi", actor=SYSTEM, now=timezone.now())
    accounts.set_up(shop)
    with pytest.raises(ConflictError, match="still has no account"):
        again(lost)
    assert Message.objects.get().code == "no_account"
