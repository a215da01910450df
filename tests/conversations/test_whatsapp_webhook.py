"""The main job on real input: Meta's signed webhook in, Meta's send route out, over real HTTP."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.db import connection
from django.test import Client as HttpClient
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from conversations.models import Chunk, Contact, ContactIdentity, ContactMatch, Conversation, InboundEvent, Message
from conversations.services.contacts import address_changes
from conversations.services.core.ledger import SYSTEM
from conversations.services.inbound import replay
from conversations.services.jobs import sweep
from conversations.services.retention import erasure
from conversations.services.staff_actions.seed_helpers import get_active_conversation
from conversations.services.tenants import setup
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations.meta_doors import post_whatsapp
from tests.fakes.meta import FakeMeta

pytestmark = pytest.mark.django_db
INBOUND = "/webhooks/whatsapp/inbound"


def test_a_signed_webhook_opens_a_session_is_answered_and_the_answer_goes_out(meta, account):
    status, envelope = post_whatsapp(meta.text_webhook("Is my order on its way?", sender="51999999999", name="Ana"))

    assert (status, envelope["data"]) == (200, {"messages": 1, "receipts": 0, "recorded": 0})
    conversation = Conversation.objects.get()
    assert (conversation.channel, conversation.channel_account) == ("whatsapp", account)
    contact = Contact.objects.get()
    assert (contact.name, contact.phone, contact.is_guest) == ("Ana", "+51999999999", False)
    assert conversation.is_guest is False
    assert conversation.device.address == "51999999999"
    assert reply_to_all() == 1
    assert send_all() == 1

    [sent] = meta.sent
    assert sent.to == "51999999999"
    assert "offline" in sent.text
    message = Message.objects.get()
    assert (message.status, message.provider_message_id) == ("sent", sent.wamid)
    assert sent.our_message_id == str(message.pk)


def test_receipts_move_the_message_forward_and_never_back(meta, account):
    post_whatsapp(meta.text_webhook("Hello"))
    reply_to_all()
    send_all()
    [sent] = meta.sent

    for status in ("read", "delivered", "sent"):
        assert post_whatsapp(meta.status_webhook(sent, status))[1]["data"]["receipts"] == 1

    message = Message.objects.get()
    assert message.status == "read"
    assert message.sent_at
    assert message.delivered_at
    assert message.read_at


def test_a_failure_after_sent_says_why(meta, account):
    post_whatsapp(meta.text_webhook("Hello"))
    reply_to_all()
    send_all()
    post_whatsapp(meta.status_webhook(meta.sent[0], "failed", error=131047))

    message = Message.objects.get()
    assert (message.status, message.code) == ("failed", "131047")
    assert message.reason
    assert Conversation.objects.get().events.filter(kind="message_failed", cause="131047").exists()


def test_a_batch_is_settled_whole_and_each_message_once(meta, account):
    def text(message_id, sender, body):
        return {
            "from": sender,
            "id": message_id,
            "timestamp": str(int(time.time())),
            "text": {"body": body},
            "type": "text",
        }

    batch = meta.webhook(
        messages=[
            text("wamid.1", "51999999991", "one"),
            text("wamid.2", "51999999992", "two"),
            text("wamid.1", "51999999991", "one"),
            {"from": "51999999991", "id": "wamid.3", "timestamp": "1", "type": "reaction", "reaction": {"emoji": "👍"}},
            {"from": "51999999991", "id": "wamid.4", "timestamp": "1", "type": "image", "image": {"id": "9"}},
        ]
    )
    status, envelope = post_whatsapp(batch)
    post_whatsapp(batch)

    assert (status, envelope["data"]["recorded"]) == (200, 1)
    assert Conversation.objects.count() == 2
    said = list(Chunk.objects.filter(role="user").order_by("id").values_list("content", flat=True))
    assert said == ["one", "two", "[image]"]
    assert InboundEvent.objects.filter(kind="reaction", reason="not_a_turn").exists()


def test_a_bad_signature_changes_nothing(meta, account):
    webhook = meta.text_webhook("Hello")
    forged = FakeMeta(app_secret="other")
    try:
        status, envelope = post_whatsapp(forged.text_webhook("Hello"))
    finally:
        forged.close()

    assert (status, envelope["code"]) == (403, "invalid_signature")
    answer = HttpClient().post(INBOUND, data=webhook.body, content_type="application/json")
    assert answer.status_code == 401
    assert not Conversation.objects.exists()
    assert not InboundEvent.objects.exists()


def test_one_tenants_secret_does_not_speak_for_another(meta, account):
    other = factories.ClientFactory()
    theirs = setup.create_channel_account(
        other,
        channel="whatsapp",
        provider="whatsapp",
        address="222",
        credentials={"access_token": "t", "app_secret": "theirs-alone", "verify_token": "v"},
    )

    def change(number, message_id):
        message = {"from": "51999999991", "id": message_id, "timestamp": "1", "type": "text", "text": {"body": "hi"}}
        return {
            "field": "messages",
            "value": {
                "messaging_product": "whatsapp",
                "metadata": {"phone_number_id": number},
                "messages": [message],
            },
        }

    changes = [change(meta.phone_number_id, "wamid.1"), change(theirs.address, "wamid.2")]
    status, _ = post_whatsapp(
        meta.signed({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": changes}]})
    )

    assert status == 200
    assert [c.client for c in Conversation.objects.all()] == [account.client]


def test_two_tenants_of_one_app_in_one_post(meta, account):
    other = factories.ClientFactory()
    setup.create_channel_account(
        other,
        channel="whatsapp",
        provider="whatsapp",
        address="222",
        credentials={"access_token": "t", "app_secret": meta.app_secret, "verify_token": "v"},
    )
    entries = []
    for number, message_id in [(meta.phone_number_id, "wamid.1"), ("222", "wamid.2")]:
        message = {"from": "51999999991", "id": message_id, "timestamp": "1", "type": "text", "text": {"body": "hi"}}
        value = {"metadata": {"phone_number_id": number}, "messages": [message]}
        entries.append({"id": "1", "changes": [{"field": "messages", "value": value}]})
    post_whatsapp(meta.signed({"object": "whatsapp_business_account", "entry": entries}))

    assert {c.client for c in Conversation.objects.all()} == {account.client, other}


def test_a_number_that_is_nobodys_is_kept_and_answered(meta, account):
    stray = FakeMeta(phone_number_id="999")
    try:
        status, envelope = post_whatsapp(stray.text_webhook("Hello"))
    finally:
        stray.close()

    assert (status, envelope["data"]) == (200, {"messages": 0, "receipts": 0, "recorded": 1})
    assert InboundEvent.objects.get().reason == "unknown_account"


def test_a_message_that_cannot_be_settled_is_kept(meta, account, monkeypatch):
    from conversations.services.inbound import messages as inbound

    real = inbound.settle
    monkeypatch.setattr(
        inbound,
        "settle",
        lambda client, arrival, **_: 1 / 0 if arrival.text == "poison" else real(client, arrival),
    )
    messages = [
        {"from": "51999999991", "id": f"w{n}", "timestamp": "1", "type": "text", "text": {"body": body}}
        for n, body in enumerate(["one", "poison", "two"])
    ]
    status, _ = post_whatsapp(meta.webhook(messages=messages))

    assert status == 200
    assert list(Chunk.objects.filter(role="user").values_list("content", flat=True)) == ["one", "two"]
    kept = InboundEvent.objects.get()
    assert (kept.reason, kept.kind, kept.message_id) == ("processing_failed", "text", "w1")
    assert (kept.channel, kept.address, kept.client) == ("whatsapp", meta.phone_number_id, account.client)


def test_the_handshake_proves_that_the_address_is_ours(meta, account):
    query = {"hub.mode": "subscribe", "hub.challenge": "1158201444", "hub.verify_token": meta.verify_token}
    answer = HttpClient().get(INBOUND, query)
    assert (answer.status_code, answer.content, answer["Content-Type"]) == (200, b"1158201444", "text/plain")

    refused = HttpClient().get(INBOUND, query | {"hub.verify_token": "wrong"})
    assert refused.status_code == 403
    assert b"1158201444" not in refused.content


def test_a_get_that_is_no_handshake_opens_no_credentials(meta, account):
    with CaptureQueriesContext(connection) as captured:
        assert HttpClient().get(INBOUND).status_code == 403
    assert not captured.captured_queries


def test_the_phone_that_our_own_json_gave_is_the_same_person(meta, account, door):
    ours = door.says("Hello", channel="whatsapp", user_id="customer-7", phone="+51 999 999 999")
    post_whatsapp(meta.text_webhook("And again", sender="51999999999"))

    assert Contact.objects.count() == 1
    assert ContactIdentity.objects.get().address == "51999999999"
    conversation = get_active_conversation("customer-7", "whatsapp", door.shop.pk)
    assert str(conversation.pk) == ours["conversation_id"]
    assert conversation.channel_account == account, "the answer goes through the account of the newest message"


def test_a_provider_payload_with_nul_and_surrogates_is_kept_with_stand_ins(meta, account):
    body = meta.text_webhook("PLACE").body.replace(b"PLACE", rb"a\u0000b\ud83dc")
    import hashlib
    import hmac

    digest = hmac.new(meta.app_secret.encode(), body, hashlib.sha256).hexdigest()
    answer = HttpClient().post(
        INBOUND, data=body, content_type="application/json", headers={"X-Hub-Signature-256": f"sha256={digest}"}
    )
    assert answer.status_code == 200
    assert Chunk.objects.get(role="user").content == "a\ufffdb\ufffdc"


def test_an_inactive_client_is_nobody(meta, account):
    account.client.is_active = False
    account.client.save()
    assert post_whatsapp(meta.text_webhook("Hello"))[0] == 403
    assert not Conversation.objects.exists()


def changes_number(meta, before, after):
    """Meta says that the person has another number."""
    said = {"body": "User changed number", "wa_id": after, "type": "user_changed_number"}
    item = {
        "from": before,
        "id": f"wamid.{before}-{after}",
        "timestamp": "1754119029",
        "type": "system",
        "system": said,
    }
    return post_whatsapp(meta.webhook(messages=[item]))


def test_who_takes_another_number_is_the_same_person_and_the_old_number_somebody_else(meta, account):
    post_whatsapp(meta.text_webhook("Hello", sender="51999999999", name="Ana"))
    session = Conversation.objects.get()
    for _ in range(2):  # delivered twice
        assert changes_number(meta, "51999999999", "51977777777")[1]["data"]["recorded"] == 1
    reply_to_all()
    send_all()
    assert meta.sent[-1].to == "51977777777", "what was owed goes to the new number"
    post_whatsapp(meta.text_webhook("It is me", sender="51977777777", name="Ana"))
    post_whatsapp(meta.text_webhook("Who is this?", sender="51999999999", name="Bob"))
    ana, bob = Contact.objects.filter(merged_into=None).order_by("created_at")
    assert (ana.pk, ana.phone, bob.phone) == (session.contact_id, "+51977777777", "+51999999999")
    assert list(session.chunks.filter(role="user").values_list("content", flat=True)) == ["Hello", "It is me"]
    assert session.events.filter(kind="address_changed", actor="contact").count() == 1
    erasure.begin(ana.pk, actor=SYSTEM, now=timezone.now())
    assert not InboundEvent.objects.exists(), "what was kept and names either number is gone"


def test_an_old_change_of_number_is_not_taken_for_whoever_has_the_number_now(meta, account):
    post_whatsapp(meta.text_webhook("Hello", sender="51999999999", name="Ana"))
    changes_number(meta, "51999999999", "51977777777")
    changes_number(meta, "51977777777", "51955555555")
    post_whatsapp(meta.text_webhook("Who is this?", sender="51999999999", name="Bob"))
    before = set(ContactIdentity.objects.values_list("contact_id", "address"))
    changes_number(meta, "51999999999", "51977777777")  # delivered again
    for event in InboundEvent.objects.order_by("pk"):
        assert not replay.replay(event.pk, timezone.now()).settled
    assert set(ContactIdentity.objects.values_list("contact_id", "address")) == before
    assert {address for _, address in before} == {"51999999999", "51955555555"}
    assert not ContactMatch.objects.exists()


def test_a_change_of_number_that_we_failed_to_follow_is_followed_by_the_sweep(meta, account, monkeypatch):
    post_whatsapp(meta.text_webhook("Hello", sender="51999999999", name="Ana"))
    with monkeypatch.context() as broken:
        broken.setattr(address_changes, "change_address", lambda *_: 1 / 0)
        assert changes_number(meta, "51999999999", "51977777777")[0] == 200
    assert ContactIdentity.objects.get().address == "51999999999"
    assert sweep.sweep(timezone.now() + timedelta(minutes=10)).replayed == 1
    assert ContactIdentity.objects.get().address == "51977777777"


def test_a_new_number_that_we_know_is_noted_for_staff(meta, account):
    for number in ("51999999999", "51977777777"):
        post_whatsapp(meta.text_webhook("Hello", sender=number, name="Ana"))
    changes_number(meta, "51999999999", "51977777777")
    match = ContactMatch.objects.get()
    assert (match.evidence, match.state, match.channel) == ("moved", "open", "whatsapp")
    assert set(ContactIdentity.objects.values_list("address", flat=True)) == {"51999999999", "51977777777"}


def test_a_number_that_nobody_has_changes_nothing(meta, account):
    changes_number(meta, "51999999999", "51977777777")
    assert not Contact.objects.exists()
