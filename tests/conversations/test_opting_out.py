"""STOP: nothing is queued, owed or sent after it, until START; staff and the ledger know."""

from __future__ import annotations

import threading

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from conversations.models import Chunk, Client, Contact, Conversation, Message, StaffAction
from conversations.services.delivery import claiming
from conversations.services.delivery import sending as delivery
from conversations.services.replies import leases, pipeline
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations.back_office import do, page_of, sign_in
from tests.conversations.meta_doors import post_whatsapp

pytestmark = pytest.mark.django_db


def states():
    return list(Message.objects.order_by("chunk_id").values_list("status", "code"))


def ledger():
    return list(Conversation.objects.get().events.order_by("id").values_list("kind", "cause"))


@pytest.fixture
def session(door):
    door.says("Hello", phone="+51999999999", name="Ann")
    return Conversation.objects.get()


def test_stop_cancels_what_is_queued_settles_what_is_owed_and_is_confirmed_once(door, session):
    reply_to_all()
    door.says("And another thing", message_id="m2")
    first = door.says("Stop.", message_id="m3")
    again = door.says("Stop.", message_id="m3")
    door.says("STOP")
    assert (first["duplicate"], again["duplicate"], again["chunk_id"]) == (False, True, first["chunk_id"])

    session.refresh_from_db()
    assert session.reply_owed is False
    assert reply_to_all() == 0
    contact = Contact.objects.get()
    assert set(contact.opted_out) == {"sms"}
    assert contact.opted_out["sms"]["word"] == "stop"
    send_all()
    notice = Chunk.objects.get(metadata__has_key="notice")
    assert notice.content == "You will get no more messages from Shop. Reply START to get them again."
    sent = Message.objects.filter(status="delivered")
    assert [message.chunk for message in sent] == [notice]
    assert set(Message.objects.exclude(chunk=notice).values_list("status", "code")) == {("cancelled", "opted_out")}
    assert [each for each in ledger() if each[0].startswith("opted")] == [("opted_out", "stop")]


def test_nothing_is_sent_until_start_whoever_says_it(door, session):
    reply_to_all()
    send_all()
    door.says("STOP")
    send_all()
    path = f"/conversations/{session.pk}/send"
    status, envelope = door.call("POST", path, {"content": "One more thing"})
    assert (status, envelope["code"]) == (409, "opted_out")
    agnes = sign_in("agnes", door.shop, "agent")
    status, said = do(agnes, session, "reply", text="One more thing")
    assert status == 409
    assert "opted out" in said["said"]
    assert door.says("Hello?")["created"] is False
    assert reply_to_all() == 0, "the assistant does not answer either"

    door.says("start")
    assert Contact.objects.get().opted_out == {}
    send_all()
    assert Message.objects.order_by("chunk_id").last().text.startswith("You will get messages from Shop again.")
    door.says("Hello again")
    assert reply_to_all() == 1
    send_all()
    assert states()[-1] == ("delivered", "")
    assert door.call("POST", path, {"content": "One more thing"})[0] == 201


def test_a_new_session_of_who_opted_out_owes_nothing(door, session):
    door.says("STOP")
    door.call("POST", f"/conversations/{session.pk}/close", {"reason": "done"})
    assert door.says("Hello")["created"] is True
    assert reply_to_all() == 0


def test_stop_as_the_first_word_opens_a_session_that_owes_nothing(door):
    door.says("STOP", user_id="bea")
    assert reply_to_all() == 0
    assert Contact.objects.get().opted_out


def test_it_holds_for_the_channel_it_was_said_on(door, session):
    door.says("STOP")
    door.says("Hello", channel="messenger")
    reply_to_all()
    send_all()
    assert Message.objects.filter(conversation__channel="messenger").get().status == "delivered"


def test_start_is_a_message_like_any_other_for_who_never_stopped(door, session):
    reply_to_all()
    door.says("Start")
    assert reply_to_all() == 1
    assert not [each for each in ledger() if each[0].startswith("opted")]


@pytest.mark.parametrize("channel", ["voice", "orb"])
def test_to_a_device_and_in_a_call_stop_means_something_else(door, channel):
    door.says("Stop", channel=channel)
    assert reply_to_all() == 1
    assert Contact.objects.get().opted_out == {}


def test_a_reply_that_was_being_written_is_not_said(door, session):
    [claim] = leases.claim(timezone.now(), 10)
    prepared = pipeline.prepare(claim)
    door.says("STOP")
    from conversations.engines.registry import ask

    assert prepared
    request, engine = prepared
    assert pipeline.commit(claim, ask(engine, request), timezone.now()) == "dropped"


def test_it_is_decided_again_when_a_message_is_claimed_for_sending(door, session):
    """Whatever queued it: a message that was claimed, or queued by somebody who did not look, does not leave."""
    reply_to_all()
    token, [claimed] = claiming.claim(timezone.now(), 10)
    Contact.objects.update(opted_out={"sms": {"since": "2026-01-01", "word": "stop"}})
    assert delivery.begin(claimed, token, timezone.now()) is None
    assert states() == [("cancelled", "opted_out")]


def test_a_send_that_failed_is_not_tried_again_after_a_stop(door, session):
    reply_to_all()
    token, [claimed] = claiming.claim(timezone.now(), 10)
    sending = delivery.begin(claimed, token, timezone.now())
    door.says("STOP")
    from channels_out.errors import SendError

    delivery.record_failed(sending, SendError("Not now.", code="http_503", retryable=True), timezone.now())
    assert Message.objects.get(pk=claimed.message_id).code == "opted_out"


def test_on_whatsapp_nothing_is_confirmed_and_start_is_answered(meta, account):
    post_whatsapp(meta.text_webhook("Hello"))
    post_whatsapp(meta.text_webhook("Baja"))
    assert reply_to_all() == 0
    assert send_all() == 0
    post_whatsapp(meta.text_webhook("ALTA"))
    assert reply_to_all() == 1
    send_all()
    assert len(meta.sent) == 1


def test_staff_see_it_in_the_list_the_transcript_and_the_contact(door, session):
    agnes = sign_in("agnes", door.shop, "agent")
    contacts = reverse("admin:conversations_contact_changelist")
    sessions = reverse("admin:conversations_conversation_changelist")
    for path in (sessions, page_of(session), contacts + "?opted_out=yes"):
        assert b"SMS since" not in agnes.get(path).content
        assert b" opted out</span>" not in agnes.get(path).content
    door.says("STOP")
    assert b" opted out</span>" in agnes.get(sessions).content
    assert b"until the contact writes START" in agnes.get(page_of(session)).content
    assert b"SMS since" in agnes.get(contacts, {"opted_out": "yes"}).content
    assert b"SMS since" in agnes.get(reverse("admin:conversations_contact_change", args=[session.contact_id])).content


def opt_out_page(contact, path="opt-out"):
    return reverse("admin:conversations_contact_change", args=[contact.pk]).replace("/change/", f"/{path}/")


def test_staff_opt_a_person_out_and_a_manager_lifts_it(door, session):
    door.says("And one more")
    reply_to_all()
    door.says("Are you there?")
    contact, agnes = session.contact, sign_in("agnes", door.shop, "agent")
    asked = agnes.get(opt_out_page(contact)).content
    assert b"as if they had written STOP" in asked
    refused = agnes.post(opt_out_page(contact), {"channel": "sms", "reason": " "})
    assert b"This field is required" in refused.content
    assert Contact.objects.get().opted_out == {}

    said = agnes.post(opt_out_page(contact), {"channel": "sms", "reason": "asked on the phone"}, follow=True)
    assert b"The contact gets no more messages on SMS. Cancelled messages: 1." in said.content
    assert b"SMS since" in said.content
    assert (reply_to_all(), send_all()) == (0, 0)
    assert states() == [("cancelled", "opted_out")]
    event = session.events.get(kind="opted_out")
    assert (event.actor, event.actor_name, event.cause) == ("staff", "agnes", "asked on the phone")
    assert b"asked on the phone" in agnes.get(page_of(session)).content
    trail = StaffAction.objects.get()
    assert (trail.verb, trail.user_name, trail.changes) == ("opted out", "agnes", {"sms": ["", "asked on the phone"]})

    lifting = {"channel": "sms", "reason": "wrote to us"}
    assert agnes.post(opt_out_page(contact, "opt-in"), lifting).status_code == 403
    mona = sign_in("mona", door.shop, "manager")
    assert (
        b"The contact gets messages on SMS again."
        in mona.post(opt_out_page(contact, "opt-in"), lifting, follow=True).content
    )
    assert Contact.objects.get().opted_out == {}
    assert session.events.get(kind="opted_in").cause == "wrote to us"
    assert reply_to_all() == 0, "nothing is owed for what they wrote meanwhile"
    door.says("Hello again")
    assert (reply_to_all(), send_all()) == (1, 1)


def test_who_may_not_opt_nobody_out(door, session):
    page, asked = opt_out_page(session.contact), {"channel": "sms", "reason": "asked"}
    assert sign_in("vera", door.shop, "viewer").post(page, asked).status_code == 403
    sign_in("otto", factories.ClientFactory(), "manager").post(page, asked)
    mona = sign_in("mona", door.shop, "manager")
    assert b"Select a valid choice" in mona.post(page, asked | {"channel": "orb"}).content
    assert b"Select a valid choice" in mona.post(opt_out_page(session.contact, "opt-in"), asked).content
    assert Contact.objects.get().opted_out == {}
    mona.post(page, asked)
    assert b"Select a valid choice" in mona.post(page, asked).content, "not twice"
    assert StaffAction.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_stop_and_a_staff_reply_at_the_same_moment_leave_nothing_queued(door, session):
    reply_to_all()

    def say():
        try:
            door.call("POST", f"/conversations/{session.pk}/send", {"content": "Are you there?"})
        finally:
            connection.close()

    threads = [threading.Thread(target=say) for _ in range(3)]
    for thread in threads:
        thread.start()
    door.says("STOP")
    for thread in threads:
        thread.join()
    send_all()
    notice = Chunk.objects.get(metadata__has_key="notice")
    assert set(Message.objects.exclude(chunk=notice).values_list("status", flat=True)) <= {"cancelled"}


# --- sentences, and HELP
@pytest.mark.parametrize("words", ["Stop. Thank you", "please stop", "remove me from your list"])
def test_a_sentence_that_says_stop_ends_all_sending(door, session, words):
    reply_to_all()
    door.says(words, message_id="u1")
    door.says(words, message_id="u1")
    assert set(Contact.objects.get().opted_out) == {"sms"}
    assert reply_to_all() == 0
    send_all()
    notice = "You will get no more messages from Shop. Reply START to get them again."
    assert [message.text for message in Message.objects.filter(status="delivered")] == [notice]


@pytest.mark.parametrize("own", ["", "This is {business}. Call 555 or reply STOP."])
def test_help_gets_the_clients_fixed_answer_once_and_no_reply(door, shop, own):
    Client.objects.update(help_text=own)
    door.says("HELP", message_id="u1")
    door.says("HELP", message_id="u1")
    assert reply_to_all() == 0
    send_all()
    text = own.replace("{business}", "Shop") or (
        "Shop: write your question here and we answer. Reply STOP to get no more messages."
    )
    assert [(message.text, message.status) for message in Message.objects.all()] == [(text, "delivered")]
    assert Contact.objects.get().opted_out == {}


def test_help_after_a_question_leaves_the_question_owed(door, session):
    door.says("HELP", message_id="u1")
    session.refresh_from_db()
    assert session.reply_owed is True
    assert reply_to_all() == 1


def test_help_is_answered_after_a_stop_as_well(door, session):
    door.says("stop", message_id="u0")
    door.says("HELP", message_id="u1")
    assert reply_to_all() == 0
    send_all()
    assert Message.objects.filter(status="delivered", text__startswith="Shop: write your question").count() == 1
    assert set(Contact.objects.get().opted_out) == {"sms"}
