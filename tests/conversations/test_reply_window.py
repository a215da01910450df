"""The 24 hours in which free text may be sent: what goes later, what does not, and what staff and programs are told."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from channels_out.simulators import messenger as composed
from channels_out.simulators import whatsapp
from conversations.models import Assistant, ChannelAccount, Chunk, Conversation, Message
from conversations.services.core.ledger import SYSTEM
from conversations.services.staff_actions import send
from tests.conftest import reply_to_all, send_all
from tests.conversations.meta_doors import account_at, post
from tests.fakes.messenger import PERSON, FakeMessenger

pytestmark = pytest.mark.django_db
LONG_AGO = timedelta(hours=25)


def writes(meta, text="Hello", ago=timedelta(0), sender="51999999999"):
    """The person wrote, so long ago; nothing is owed."""
    post(meta.text_webhook(text, sender=sender), "whatsapp")
    then = timezone.now() - ago
    Chunk.objects.filter(content=text).update(created_at=then)
    Conversation.objects.update(reply_owed=False)


def say(text, conversation=None):
    conversation = conversation or Conversation.objects.get()
    return send.send(conversation.pk, text, actor=SYSTEM, now=timezone.now())[1]


def template(name="we_are_back", language="es_PE"):
    Assistant.objects.update(template_name=name, template_language=language)


def messages():
    return list(Message.objects.order_by("chunk_id", "part").values_list("status", "code"))


def test_within_a_day_text_goes(meta, account):
    writes(meta, ago=timedelta(hours=23, minutes=59))
    say("Good morning")
    send_all()
    assert [sent.text for sent in meta.sent] == ["Good morning"]


def test_after_a_day_text_fails_and_says_why(meta, account):
    writes(meta, ago=LONG_AGO)
    say("Good morning")
    assert send_all_or_none() == 0
    message = Message.objects.get()
    assert (message.status, message.code, meta.requests) == ("failed", "outside_window", [])
    assert message.reason.startswith("More than 24 hours have passed since the person last wrote")
    assert "no template" in message.reason
    assert Conversation.objects.get().events.filter(kind="message_failed", cause="outside_window").exists()


def send_all_or_none():
    """Send what is due, where begin may refuse. Returns how many sends were tried."""
    return send_all(may_refuse=True)


def test_after_a_day_the_assistants_template_goes_instead_of_the_whole_text(meta, account):
    template()
    writes(meta, ago=LONG_AGO)
    say("x" * 5000)
    assert send_all_or_none() == 1
    [sent] = meta.sent
    assert (sent.template, sent.text) == ("we_are_back es_PE", "")
    assert messages() == [("sent", ""), ("cancelled", "template_instead")]
    assert sent.our_message_id == str(Message.objects.get(part=1).pk)
    post(meta.status_webhook(sent, "read"), "whatsapp")
    assert Message.objects.get(part=1).status == "read"


def test_one_template_is_enough_until_they_answer(meta, account):
    template()
    writes(meta, ago=LONG_AGO)
    for text in ("One", "Two"):
        say(text)
    send_all_or_none()
    assert messages() == [("sent", ""), ("failed", "outside_window")]
    assert "have not answered the assistant's template" in Message.objects.order_by("chunk_id").last().reason

    writes(meta, "I am back")
    say("Three")
    send_all_or_none()
    assert [sent.text for sent in meta.sent] == ["", "Three"]
    writes(meta, "I am back", ago=LONG_AGO)
    Chunk.objects.filter(role="user").update(created_at=timezone.now() - LONG_AGO)
    say("Four")
    send_all_or_none()
    assert [sent.template for sent in meta.sent] == ["we_are_back es_PE", "", "we_are_back es_PE"]


def test_a_session_that_we_open_begins_with_the_template(meta, account, door):
    template()
    from conversations.services.staff_actions.seed_helpers import create_conversation

    ChannelAccount.objects.filter(provider="sandbox").delete()
    conversation = create_conversation(door.shop.pk, "51988888888", "whatsapp", "Tell them")
    say("Your order is here", conversation)
    send_all_or_none()
    assert [sent.template for sent in meta.sent] == ["we_are_back es_PE"]


def test_what_they_wrote_in_an_earlier_session_counts(meta, account, door):
    writes(meta, ago=timedelta(hours=2))
    first = Conversation.objects.get()
    door.call("POST", f"/conversations/{first.pk}/close", {"reason": "done"})
    writes(meta, "A new thing", ago=LONG_AGO)
    second = Conversation.objects.exclude(pk=first.pk).get()
    say("Good morning", second)
    send_all_or_none()
    assert [sent.text for sent in meta.sent] == ["Good morning"]


def test_what_they_wrote_long_ago_and_came_late_does_not_open_it(meta, account):
    """Meta delivers for 7 days: when it was written counts, not when it came."""
    late = whatsapp.text("Hello", timestamp=(timezone.now() - LONG_AGO).timestamp())
    post(meta.webhook(messages=[late]), "whatsapp")
    reply_to_all()
    send_all_or_none()
    assert messages() == [("failed", "outside_window")]
    assert meta.sent == []


def test_a_template_that_meta_does_not_know_fails_and_says_so(meta, account):
    template("nobody_approved")
    writes(meta, ago=LONG_AGO)
    say("Good morning")
    meta.error_next(132001)
    send_all_or_none()
    message = Message.objects.get()
    assert (message.status, message.code) == ("failed", "132001")
    assert "no approved template" in message.reason


@pytest.mark.parametrize("with_template", [True, False])
def test_where_meta_closed_the_window_first_the_same_happens(meta, account, with_template):
    """Tricky case 16: by our clock it was open still."""
    if with_template:
        template()
    writes(meta)
    say("Good morning")
    meta.error_next(131047)
    send_all_or_none()
    if with_template:
        assert [sent.template for sent in meta.sent] == ["we_are_back es_PE"]
        assert messages() == [("sent", "")]
    else:
        message = Message.objects.get()
        assert (message.status, message.attempts, len(meta.requests)) == ("failed", 1, 1)
        assert "More than 24 hours" in message.reason


def test_messenger_has_no_templates_and_says_that_they_must_write_first(shop):
    template()
    with FakeMessenger() as page:
        account_at(page, shop)
        post(page.webhook(composed.text(page.page, PERSON, "Hello")), "messenger")
        reply_to_all()
        Chunk.objects.filter(role="user").update(created_at=timezone.now() - LONG_AGO)
        send_all_or_none()
        assert page.requests == []
    message = Message.objects.get()
    assert (message.status, message.code) == ("failed", "outside_window")
    assert message.reason.endswith("until they write again.")


@pytest.mark.parametrize("status", [200, 400])
def test_messengers_own_word_that_it_is_too_late_fails_and_says_so(shop, status):
    with FakeMessenger() as page:
        account_at(page, shop)
        post(page.text_webhook("Hello"), "messenger")
        reply_to_all()
        page.error_next(10, status=status, subcode=2018278)
        send_all_or_none()
    message = Message.objects.get()
    assert (message.status, len(page.requests)) == ("failed", 1)
    assert "More than 24 hours" in message.reason


def test_staff_may_send_it_again_once_they_wrote(meta, account, door):
    from conversations.services.staff_actions import resend

    writes(meta, ago=LONG_AGO)
    say("Good morning")
    send_all_or_none()
    writes(meta, "I am here")
    message = Message.objects.get()
    resend.resend(
        message.pk, actor=SYSTEM, now=timezone.now(), conversation_id=message.conversation_id, client=door.shop
    )
    send_all_or_none()
    assert [sent.text for sent in meta.sent] == ["Good morning"]


def test_other_channels_have_no_window(door):
    conversation_id = door.says("Hello")["conversation_id"]
    Chunk.objects.update(created_at=timezone.now() - LONG_AGO)
    door.call("POST", f"/conversations/{conversation_id}/send", {"content": "Hi"})
    assert send_all() == 1
