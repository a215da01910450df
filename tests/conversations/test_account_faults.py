"""Faults of an account by code and subcode: what waits, what fails, and the sentence that says what to do."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from conversations.models import Assistant, ChannelAccount, Conversation, Message, Turn
from conversations.services.tenants import channel_accounts
from memory import marks
from tests.conftest import reply_to_all, send_all
from tests.conversations.meta_doors import post
from tests.conversations.test_reply_window import messages, say, send_all_or_none, template, writes
from tests.fakes.meta import error_content
from tests.fakes.server import Fault

pytestmark = pytest.mark.django_db

NO_SUCH_OBJECT = {
    "error": {
        "message": "Unsupported post request. Object with ID '111000111' does not exist, cannot be loaded due to"
        " missing permissions, or does not support this operation.",
        "type": "GraphMethodException",
        "code": 100,
        "error_subcode": 33,
    }
}


def refused(code, message):
    return Fault(400, error_content(code, message))


@pytest.mark.parametrize(
    ("fault", "code", "advice"),
    [
        (Fault(400, NO_SUCH_OBJECT), "100", "does not know this phone number id, or the access token has no access"),
        (refused(133010, "Account not registered"), "133010", "register it in WhatsApp Manager"),
        (refused(131037, "needs display name approval"), "131037", "have it approved in WhatsApp Manager"),
    ],
)
def test_what_breaks_the_account_makes_its_messages_wait_and_says_what_to_do(meta, account, fault, code, advice):
    writes(meta)
    for text in ("One", "Two"):
        say(text)
    meta.fail_next(fault)
    send_all()
    account.refresh_from_db()
    assert (account.health, account.health_reason.split(":")[0]) == ("broken", code)
    assert advice in account.health_reason
    assert "111000111" not in account.health_reason
    assert {status for status, _ in messages()} == {"queued"}

    channel_accounts.resume(account)
    send_all()
    assert [sent.text for sent in meta.sent] == ["One", "Two"]


def test_a_parameter_alone_breaks_nothing(meta, account):
    writes(meta)
    say("One")
    meta.error_next(100)
    send_all()
    account.refresh_from_db()
    assert (account.health, messages()) == ("ok", [("failed", "100")])


def test_somebody_who_is_no_test_recipient_fails_alone_and_staff_read_of_metas_list(meta, account):
    writes(meta)
    say("One")
    meta.fail_next(refused(131030, "Recipient phone number not in allowed list"))
    send_all()
    account.refresh_from_db()
    assert (account.health, messages()) == ("ok", [("failed", "131030")])
    assert "Meta's list of test recipients" in Message.objects.get().reason


@pytest.mark.parametrize("code", [133010, 131037])
def test_a_failed_receipt_breaks_the_account_as_well(meta, account, code):
    writes(meta)
    say("One")
    send_all()
    post(meta.status_webhook(meta.sent[0], "failed", error=code), "whatsapp")
    account.refresh_from_db()
    assert (account.health, messages()) == ("broken", [("queued", str(code))])


# --- 131047 as a failed receipt -----------------------------------------------------------------------------------
def fails_outside_the_window(meta, sent):
    return post(meta.status_webhook(sent, "failed", error=131047), "whatsapp")


def test_the_template_goes_when_meta_reports_later_that_the_window_is_closed(meta, account):
    template()
    writes(meta)
    say("Good morning")
    send_all()
    [first] = meta.sent
    fails_outside_the_window(meta, first)
    fails_outside_the_window(meta, first)
    assert messages() == [("queued", "")]
    send_all()
    assert [(sent.template, sent.text) for sent in meta.sent[1:]] == [("we_are_back es_PE", "")]
    conversation = Conversation.objects.get()
    assert conversation.events.filter(kind="template_instead", cause="131047").count() == 1

    post(meta.status_webhook(first, "sent"), "whatsapp")  # late, of the text
    fails_outside_the_window(meta, first)
    post(meta.status_webhook(meta.sent[1], "delivered"), "whatsapp")
    assert messages() == [("delivered", "")]
    assert Message.objects.get().template == "we_are_back es_PE"


def test_of_a_text_in_parts_one_template_goes(meta, account):
    template()
    writes(meta)
    say("x" * 5000)
    send_all()
    for sent in list(meta.sent):
        fails_outside_the_window(meta, sent)
    send_all_or_none()
    assert [sent.template for sent in meta.sent if sent.template] == ["we_are_back es_PE"]
    assert messages() == [("sent", ""), ("failed", "131047")]


def test_a_receipt_that_is_faster_than_our_commit_sends_the_template_too(meta, account):
    from conversations.services.delivery import claiming, sending

    template()
    writes(meta)
    say("Good morning")
    now = timezone.now()
    token, [claimed] = claiming.claim(now, 1)
    leaving = sending.begin(claimed, token, now)
    result = sending.deliver(leaving)
    first = meta.sent[0]
    stranger = type(first)(first.wamid, first.to, first.text, "", "")  # the receipt has no id of ours
    fails_outside_the_window(meta, stranger)
    sending.record_sent(leaving, result, now)
    assert messages() == [("queued", "")]
    send_all()
    assert meta.sent[-1].template == "we_are_back es_PE"


@pytest.mark.parametrize("why", ["no template", "closed"])
def test_without_a_template_or_after_the_end_it_fails(meta, account, door, why):
    template(*([""] if why == "no template" else []))
    writes(meta)
    say("Good morning")
    send_all()
    if why == "closed":
        door.call("POST", f"/conversations/{Conversation.objects.get().pk}/close", {})
    fails_outside_the_window(meta, meta.sent[0])
    assert messages() == [("failed", "131047")]
    assert ("no template" in Message.objects.get().reason) == (why == "no template")
    assert send_all() == 0


def test_a_template_that_is_refused_so_is_not_sent_again(meta, account):
    template()
    writes(meta, ago=timedelta(hours=25))
    say("Good morning")
    send_all_or_none()
    fails_outside_the_window(meta, meta.sent[0])
    assert messages() == [("failed", "131047")]
    assert ChannelAccount.objects.get(pk=account.pk).health == "ok"
    assert Assistant.objects.get().template_name


@pytest.mark.parametrize("code", [131026, 131047])
def test_the_next_prompt_says_what_was_not_delivered_and_what_went_instead(meta, account, code):
    template()
    writes(meta)
    say("Your parcel comes on Monday.")
    send_all()
    post(meta.status_webhook(meta.sent[0], "failed", error=code), "whatsapp")
    send_all()
    post(meta.text_webhook("And now?"), "whatsapp")
    reply_to_all()
    given = str(Turn.objects.get().prompt)
    expected = marks.SENDING_FAILED if code == 131026 else marks.template_instead("we_are_back")
    assert expected in given
