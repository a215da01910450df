"""What a model wrote reaches each channel in its own formatting; what people wrote goes as they wrote it."""

from __future__ import annotations

import pytest
from django.utils import timezone

from conversations.engines import registry
from conversations.models import ChannelAccount, Chunk, Conversation, Message
from conversations.services.core.ledger import SYSTEM
from conversations.services.staff_actions import resend, send
from conversations.services.tenants import setup
from tests.conftest import reply_to_all, send_all
from tests.conversations.meta_doors import post
from tests.conversations.test_plivo_calls import Phone
from tests.conversations.test_replies import Double
from tests.fakes.plivo import FakePlivo

pytestmark = pytest.mark.django_db

ANSWER = "**Total:** 120 USD\n\n- [Pay here](https://pay.example/x)\n### Next steps\n1. Sign"
MARKED = "*Total:* 120 USD\n\n- Pay here: https://pay.example/x\n\n*Next steps*\n\n1. Sign"
PLAIN = "Total: 120 USD\n\n- Pay here: https://pay.example/x\n\nNext steps\n\n1. Sign"


@pytest.fixture
def says(monkeypatch):
    def install(text):
        monkeypatch.setitem(registry.ENGINES, "offline", Double(text))

    return install


def test_whatsapp_shows_its_own_marks_and_the_transcript_keeps_the_models_words(meta, account, says):
    says(ANSWER)
    post(meta.text_webhook("total?", sender="51999600003"), "whatsapp")
    reply_to_all()
    send_all()
    assert [sent.text for sent in meta.sent] == [MARKED]
    assert Chunk.objects.get(role="ai").content == ANSWER


@pytest.mark.parametrize("channel", ["sms", "messenger", "orb"])
def test_channels_without_marks_get_plain_text(door, says, channel):
    says(ANSWER)
    if not ChannelAccount.objects.filter(channel=channel).exists():
        setup.create_channel_account(door.shop, channel=channel, provider="sandbox", address=channel, credentials={})
    door.says("total?", channel=channel)
    reply_to_all()
    assert Message.objects.get().text == PLAIN
    assert Chunk.objects.get(role="ai").content == ANSWER


def test_a_caller_hears_no_marks_and_no_addresses(shop, says, settings):
    settings.PUBLIC_BASE_URL, settings.VOICE_REPLY_SECONDS = "https://convo.example", 0.0
    says(ANSWER)
    with FakePlivo() as plivo:
        setup.create_channel_account(
            shop, channel="voice", provider="plivo", address="+1 415 555 0000", credentials=plivo.credentials
        )
        phone = Phone(plivo)
        phone.dials()
        phone.says("What is the total?")
        reply_to_all()
        phone.waits()
    spoken = "Total: 120 USD\n\nPay here.\n\nNext steps.\n\n1. Sign."
    assert phone.heard == spoken
    assert Message.objects.order_by("chunk_id").last().text == spoken


def test_what_staff_and_programs_write_goes_as_it_is(meta, account, door):
    post(meta.text_webhook("total?"), "whatsapp")
    Conversation.objects.update(reply_owed=False)
    conversation = Conversation.objects.get()
    door.call("POST", f"/conversations/{conversation.pk}/send", {"content": ANSWER})
    send.send(conversation.pk, "**by hand**", actor=SYSTEM, now=timezone.now())
    send_all()
    assert [sent.text for sent in meta.sent] == [ANSWER, "**by hand**"]


@pytest.mark.parametrize("by_assistant", [True, False])
def test_a_message_that_waited_for_an_account_is_formatted_then(door, says, by_assistant):
    says("**Hello**")
    ChannelAccount.objects.all().delete()
    conversation_id = door.says("total?", channel="whatsapp", phone="+51999999999")["conversation_id"]
    if by_assistant:
        reply_to_all()
    else:
        door.call("POST", f"/conversations/{conversation_id}/send", {"content": "**Hello**"})
    setup.create_channel_account(door.shop, channel="whatsapp", provider="sandbox", address="later", credentials={})
    failed = Message.objects.get(code="no_account")
    resend.resend(failed.pk, actor=SYSTEM, now=timezone.now(), conversation_id=conversation_id)
    assert Message.objects.get().text == ("*Hello*" if by_assistant else "**Hello**")
