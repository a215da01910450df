"""A failed status may say that the account is refused, and not the message: then it waits as if the send had been."""

from __future__ import annotations

from dataclasses import replace

import pytest
from django.urls import reverse
from django.utils import timezone

from conversations.models import ChannelAccount, Conversation, InboundEvent, Message
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import claiming
from conversations.services.delivery import sending as delivery
from conversations.services.tenants import channel_accounts
from conversations.services.transitions import closing
from tests.conftest import reply_to_all, send_all
from tests.conversations.back_office import do, page_of, sign_in
from tests.conversations.meta_doors import post_whatsapp

pytestmark = pytest.mark.django_db

LOCKED = 131031


def answer(meta, *senders):
    """Each of them wrote and got an answer, which Meta took."""
    for sender in senders:
        post_whatsapp(meta.text_webhook("Hello", sender=sender))
    reply_to_all()
    send_all()


def states():
    return list(Message.objects.order_by("chunk_id").values_list("status", "code"))


def health(of):
    return ChannelAccount.objects.get(pk=of.pk).health


@pytest.mark.parametrize("code", [LOCKED, 190, 131042, 131045, 368])
def test_the_account_is_broken_and_what_failed_for_it_waits_for_one_click(meta, account, shop, code):
    answer(meta, "51999999991")
    post_whatsapp(meta.text_webhook("Hello", sender="51999999992"))
    reply_to_all()
    post_whatsapp(meta.status_webhook(meta.sent[0], "failed", error=code))

    assert health(account) == "broken"
    assert states() == [("queued", str(code)), ("queued", "")]
    assert send_all() == 0
    session = Conversation.objects.get(device__address="51999999991")
    assert session.events.filter(kind="account_broken", cause=str(code)).count() == 1
    assert not session.events.filter(kind="message_failed").exists()

    mona = sign_in("mona", shop, "manager")
    assert b"waits: the account is refused" in mona.get(page_of(session)).content
    page = mona.get(reverse("admin:conversations_channelaccount_changelist")).content.decode()
    assert f"{code}: " in page
    assert "It failed." not in page, "Meta's own sentence may quote a token"
    status, said = do(mona, session, "resume-account")
    assert (status, said["said"]) == (200, "The account is tried again. Messages that wait to be sent: 2.")
    assert send_all() == 2
    assert sorted(sent.to for sent in meta.sent) == ["51999999991", "51999999991", "51999999992"]
    again = next(sent for sent in meta.sent[1:] if sent.to == "51999999991")
    post_whatsapp(meta.status_webhook(again, "read"))
    assert states()[0][0] == "read"


def test_a_failure_that_is_the_message_s_own_leaves_the_account_alone(meta, account):
    answer(meta, "51999999991")
    post_whatsapp(meta.status_webhook(meta.sent[0], "failed", error=131026))
    assert (health(account), states()) == ("ok", [("failed", "131026")])


def test_statuses_of_before_do_not_break_what_was_mended_nor_send_twice(meta, account):
    answer(meta, "51999999991", "51999999992")
    post_whatsapp(meta.status_webhook(meta.sent[0], "failed", error=LOCKED))
    channel_accounts.resume(account)
    post_whatsapp(meta.status_webhook(meta.sent[1], "failed", error=LOCKED))  # of a send from before
    post_whatsapp(meta.status_webhook(meta.sent[0], "failed", error=LOCKED))  # delivered again, while it waits
    assert (health(account), {status for status, _ in states()}) == ("ok", {"queued"})
    assert send_all() == 2
    post_whatsapp(meta.status_webhook(meta.sent[0], "failed", error=LOCKED))  # delivered again, after it went
    assert (health(account), {status for status, _ in states()}) == ("ok", {"sent"})
    assert len(meta.sent) == 4
    post_whatsapp(meta.status_webhook(meta.sent[2], "failed", error=LOCKED))
    assert health(account) == "broken", "what went after it was mended counts"


def test_a_message_of_a_session_that_ended_meanwhile_fails(meta, account):
    answer(meta, "51999999991")
    closing.close(Conversation.objects.get().pk, ended_by="user", actor=SYSTEM, now=timezone.now())
    post_whatsapp(meta.status_webhook(meta.sent[0], "failed", error=LOCKED))
    assert health(account) == "broken"
    assert states() == [("failed", str(LOCKED))]


def test_a_status_that_is_faster_than_our_own_commit_counts_too(meta, account):
    post_whatsapp(meta.text_webhook("Hello"))
    reply_to_all()
    token, [claimed] = claiming.claim(timezone.now(), 1)
    sending = delivery.begin(claimed, token, timezone.now())
    result = sending.send()
    unnamed = replace(meta.sent[0], our_message_id="")
    post_whatsapp(meta.status_webhook(unnamed, "failed", error=LOCKED))
    delivery.record_sent(sending, result, timezone.now())
    assert not InboundEvent.objects.exists()
    assert (health(account), states()) == ("broken", [("queued", str(LOCKED))])
    channel_accounts.resume(account)
    assert send_all() == 1
    assert states()[0][0] == "sent"


@pytest.mark.parametrize("code", ["1" * 5000, "0000000190" + "1" * 5000, None, [], {}, 1e308, -190, "190 "])
def test_a_code_that_is_none_breaks_nothing(meta, account, code):
    answer(meta, "51999999991")
    status = {"id": meta.sent[0].wamid, "status": "failed", "timestamp": "1", "errors": [{"code": code}]}
    assert post_whatsapp(meta.webhook(statuses=[status]))[0] == 200
    assert not InboundEvent.objects.filter(reason="processing_failed").exists()
