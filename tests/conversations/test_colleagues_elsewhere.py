"""A colleague answers in the WhatsApp Business app or in the Page inbox: the assistant knows it, and is silent."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.utils import timezone

from channels_out.simulators import messenger as composed
from channels_out.simulators import whatsapp
from conversations.engines.contract import Reply
from conversations.models import ChannelAccount, Chunk, Contact, Conversation, InboundEvent, Message, Turn
from conversations.services.core.ledger import Actor
from conversations.services.jobs import sweep
from conversations.services.replies import leases, pipeline
from conversations.services.transitions import takeover
from tests.conftest import reply_to_all, send_all
from tests.conversations import meta_doors
from tests.conversations.back_office import sign_in
from tests.conversations.meta_doors import post
from tests.fakes.messenger import PERSON
from tests.prompts import heard, spoken
from tests.races.threads import together

pytestmark = pytest.mark.django_db
ANA = "51999999999"
CONFIRMED = "Thanks, I see it. Your order is confirmed"

account, page = meta_doors.account, meta_doors.page


def says(meta, text: str) -> None:
    status, outcome = post(meta.webhook(messages=[whatsapp.text(text)]), "whatsapp")
    assert status == 200, outcome


def colleague_says(meta, text: str = CONFIRMED, to: str = ANA, message_id: str = "wamid.E") -> Any:
    echo = {
        "from": "15550001111",
        "to": to,
        "id": message_id,
        "timestamp": str(int(time.time())),
        "type": "text",
        "text": {"body": text},
    }
    change = whatsapp.change(meta.phone_number_id)
    change["field"], change["value"]["message_echoes"] = "smb_message_echoes", [echo]
    status, outcome = post(meta.signed(whatsapp.around(change)), "whatsapp")
    assert status == 200, outcome
    return outcome


def prompt() -> list[dict[str, str]]:
    """What the model was given last."""
    turn = Turn.objects.exclude(prompt=None).order_by("started_at").last()
    assert turn is not None
    return turn.prompt["messages"]


def silence_is_over() -> None:
    Conversation.objects.update(taken_over_until=timezone.now() - timedelta(seconds=1))
    sweep.sweep(timezone.now())


def test_the_assistant_is_silent_and_later_knows_what_the_colleague_said(meta, account, shop):
    says(meta, "already transferred")
    for _ in range(2):
        colleague_says(meta)
    chunk = Chunk.objects.get(role="ai")
    assert (chunk.content, chunk.by_staff) == (CONFIRMED, True)
    conversation = Conversation.objects.get()
    assert not conversation.reply_owed
    assert conversation.taken_over_name == "a colleague (WhatsApp Business app)"
    assert timedelta(minutes=59) < conversation.taken_over_until - timezone.now() <= timedelta(hours=1)
    assert not InboundEvent.objects.exists()
    assert not Message.objects.exists(), "it was sent already"
    says(meta, "great")
    assert reply_to_all() == 0, "the colleague has it"

    silence_is_over()
    assert reply_to_all() == 1
    assert spoken(prompt()) == [f"[Written by a human colleague] {CONFIRMED}"]
    assert heard(prompt())[-1] == "great"
    html = sign_in("agnes", shop, "agent").get(f"/admin/conversations/conversation/{conversation.pk}/change/")
    assert "A colleague (WhatsApp Business app)" in html.content.decode()


def test_the_reply_that_is_being_written_is_dropped_and_what_is_not_sent_is_cancelled(meta, account):
    says(meta, "already transferred")
    reply_to_all()
    says(meta, "hello?")
    Conversation.objects.update(reply_due_at=timezone.now())
    [claim] = leases.claim(timezone.now(), 1)
    assert pipeline.prepare(claim)
    colleague_says(meta)
    assert pipeline.commit(claim, Reply(text="I see no transfer.", engine="x"), timezone.now()) == "dropped"
    assert [each.status for each in Message.objects.all()] == ["cancelled"]
    assert send_all() == 0


def test_the_account_says_how_long_the_silence_is(meta, account):
    ChannelAccount.objects.filter(pk=account.pk).update(silence=timedelta(minutes=5))
    says(meta, "hello")
    colleague_says(meta)
    until = Conversation.objects.get().taken_over_until
    assert timedelta(minutes=4) < until - timezone.now() <= timedelta(minutes=5)


def test_without_a_silence_the_reply_is_settled_and_the_next_message_is_answered(meta, account):
    ChannelAccount.objects.filter(pk=account.pk).update(silence=timedelta(0))
    says(meta, "hello")
    colleague_says(meta)
    assert reply_to_all() == 0
    says(meta, "and when?")
    assert reply_to_all() == 1
    assert CONFIRMED in spoken(prompt())[-1]


def test_a_colleague_who_has_it_in_convo_keeps_it(meta, account):
    says(meta, "hello")
    pk = Conversation.objects.get().pk
    takeover.take_over(pk, actor=Actor("staff", "grace"), now=timezone.now())
    colleague_says(meta)
    assert Conversation.objects.get().taken_over_name == "grace"


def test_what_is_written_to_somebody_without_a_conversation_is_kept_and_opens_nothing(meta, account):
    colleague_says(meta, to="51999200009")
    assert not Contact.objects.exists()
    assert InboundEvent.objects.get().reason == "echo"


@pytest.mark.django_db(transaction=True)
def test_the_same_echo_on_two_workers_is_one_message(meta, account):
    says(meta, "hello")
    together(*[partial(colleague_says, meta)] * 4)
    assert Chunk.objects.filter(role="ai").count() == 1


def test_the_page_inbox_does_the_same(page, account):
    post(page.webhook(composed.text(page.page, PERSON, "great, book me for 10 then")), "messenger")
    echo = composed.echo(page.page, PERSON, "Booked for 10!", mid="m_2", app_id=263902037430900)
    post(page.webhook(echo), "messenger")
    assert Chunk.objects.get(role="ai").content == "Booked for 10!"
    assert Conversation.objects.get().taken_over_name == "a colleague (Page inbox)"
    assert reply_to_all() == 0


def test_our_own_echo_silences_nobody(page, account):
    post(page.webhook(composed.text(page.page, PERSON, "hello")), "messenger")
    reply_to_all()
    send_all()
    post(page.echo_webhook(page.sent[0]), "messenger")
    assert Conversation.objects.get().taken_over_at is None
    assert Chunk.objects.filter(role="ai").count() == 1


def test_a_manager_sets_the_silence_of_an_account(manager, account):
    address = f"/admin/conversations/channelaccount/{account.pk}/change/"
    assert 'name="silence"' in manager.get(address).content.decode()
    form = {"name": "Line", "address": account.address, "is_active": "on"}
    for typed, kept in [("00:20:00", 20), ("", 20), ("-1:00:00", 20), ("0", 0)]:
        manager.post(address, {**form, "silence": typed})
        account.refresh_from_db()
        assert account.silence == timedelta(minutes=kept), typed
