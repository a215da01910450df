"""SMS end to end: Plivo's signed forms in, its send route out, over real HTTP."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.test import Client as HttpClient
from django.utils import timezone

from conversations.models import Chunk, Contact, Conversation, InboundEvent, Message
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import claiming
from conversations.services.delivery import sending as delivery
from conversations.services.staff_actions import resend
from conversations.services.tenants import channel_accounts, setup
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.fakes.plivo import FakePlivo
from tests.fakes.server import Fault

pytestmark = pytest.mark.django_db
PUBLIC = "https://convo.example"


@pytest.fixture(autouse=True)
def _public(settings: Any) -> None:
    settings.PUBLIC_BASE_URL = PUBLIC


@pytest.fixture
def plivo():
    with FakePlivo() as fake:
        yield fake


def account_at(plivo, client, **changes):
    return setup.create_channel_account(
        client,
        channel="sms",
        provider="plivo",
        address=changes.pop("address", "+1 (415) 555-0000"),
        credentials=plivo.credentials | changes,
        base_url=plivo.base_url,
    )


@pytest.fixture
def account(plivo, shop):
    return account_at(plivo, shop)


def post(webhook):
    """As a proxy passes it on: by its own address for us."""
    http = HttpClient(raise_request_exception=False, headers={"Host": "10.0.0.7:8000"})
    content_type = webhook.headers.get("Content-Type", "")
    others = {name: value for name, value in webhook.headers.items() if name != "Content-Type"}
    if webhook.method == "GET":
        return http.get(webhook.path, headers=others)
    return http.generic("POST", webhook.path, webhook.body, content_type=content_type, headers=others)


def answered(plivo, text="Hello"):
    """A person wrote and got an answer, which Plivo has."""
    assert post(plivo.sms(text)).status_code == 200
    assert (reply_to_all(), send_all()) == (1, 1)
    return plivo.sent[-1]


def test_a_person_writes_and_is_answered_and_sees_no_second_answer(plivo, account):
    response = post(plivo.sms("Is my order on its way? Größe 👍"))

    # An element in it would be a message to the person.
    assert (response.status_code, response["Content-Type"], response.content) == (
        *(200, "application/xml"),
        b"<Response/>",
    )
    conversation = Conversation.objects.get()
    assert (conversation.channel, conversation.channel_account, conversation.is_guest) == ("sms", account, False)
    assert Contact.objects.get().phone == "+51999999999"
    assert Chunk.objects.get(role="user").content == "Is my order on its way? Größe 👍"
    assert (reply_to_all(), send_all()) == (1, 1)
    [sent] = plivo.sent
    assert (sent.source, sent.to) == ("14155550000", "51999999999")
    message = Message.objects.get()
    assert (message.status, message.provider_message_id) == ("sent", sent.message_uuid)
    assert sent.url == f"{PUBLIC}/webhooks/sms/status?message={message.pk}"


def test_an_application_that_is_set_to_get_works_as_well(plivo, account):
    form = dict(pair.split("=") for pair in plivo.sms("Hello", message_uuid="u1").body.decode().split("&"))
    response = post(plivo.get("/webhooks/sms/inbound", form))
    assert (response.status_code, response.content) == (200, b"<Response/>")
    assert Chunk.objects.get(role="user").content == "Hello"


def test_case_1_the_same_message_again_changes_nothing(plivo, account):
    for _ in range(3):
        assert post(plivo.sms("Hello", message_uuid="uuid-1")).status_code == 200
    assert Chunk.objects.filter(role="user").count() == 1


@pytest.mark.parametrize("order", [["read", "delivered", "sent"], ["delivered", "sent", "read"]])
def test_case_4_a_status_never_goes_back(plivo, account, order):
    sent = answered(plivo)
    for status in order:
        assert post(plivo.status(sent, status, sequence=["sent", "delivered", "read"].index(status) + 1)).content
    message = Message.objects.get()
    assert message.status == "read"


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2), (2, 1, 3, 0), (0, 2, 1, 3)])
def test_case_4_the_sequence_decides_and_not_the_order_of_arrival(plivo, account, order):
    """A carrier refused it, another one delivered it."""
    sent = answered(plivo)
    statuses = [("queued", ""), ("undelivered", "20"), ("sent", ""), ("delivered", "")]
    for place in order:
        status, code = statuses[place]
        post(plivo.status(sent, status, sequence=place + 1, error_code=code))
    message = Message.objects.get()
    assert (message.status, message.code, message.receipt_sequence) == ("delivered", "", 4)


def test_case_4_a_late_status_does_not_revive_what_failed(plivo, account):
    sent = answered(plivo)
    post(plivo.status(sent, "undelivered", sequence=3, error_code="50"))
    post(plivo.status(sent, "sent", sequence=2))
    message = Message.objects.get()
    assert (message.status, message.code) == ("failed", "50")
    assert "recipient's number is invalid" in message.reason
    assert Conversation.objects.get().events.filter(kind="message_failed", cause="50").exists()


def test_case_4_a_status_that_is_faster_than_our_own_commit_counts(plivo, account):
    post(plivo.sms("Hello"))
    reply_to_all()
    token, [claimed] = claiming.claim(timezone.now(), 1)
    sending = delivery.begin(claimed, token, timezone.now())
    result = sending.send()
    unnamed = replace(plivo.sent[0], url=plivo.sent[0].url.partition("?")[0])  # by Plivo's id alone
    assert post(plivo.status(unnamed, "delivered", sequence=2)).status_code == 200
    assert InboundEvent.objects.get().reason == "receipt_unmatched"

    delivery.record_sent(sending, result, timezone.now())

    message = Message.objects.get()
    assert (message.status, message.receipt_sequence) == ("delivered", 2)
    assert not InboundEvent.objects.exists()


def test_receipts_of_the_second_try_count_from_one_again(plivo, account):
    first = answered(plivo)
    post(plivo.status(first, "undelivered", sequence=5, error_code="80"))
    message = Message.objects.get()
    resend.resend(message.pk, actor=SYSTEM, now=timezone.now(), conversation_id=message.conversation_id)
    send_all()
    second = plivo.sent[-1]
    post(plivo.status(first, "delivered", sequence=6))  # of the first, after all
    post(plivo.status(second, "sent", sequence=1))
    post(plivo.status(second, "read", sequence=2))
    message.refresh_from_db()
    assert (message.status, message.receipt_sequence) == ("read", 2)
    assert message.provider_message_id == second.message_uuid


def test_case_15_a_send_without_an_answer_is_settled_by_its_status(plivo, account):
    post(plivo.sms("Hello"))
    reply_to_all()
    plivo.fail_next(Fault(cut="after"))
    send_all()
    assert Message.objects.get().status == "unknown"

    post(plivo.status(plivo.sent[0], "delivered", sequence=2))

    message = Message.objects.get()
    assert (message.status, message.provider_message_id) == ("delivered", plivo.sent[0].message_uuid)
    assert len(plivo.sent) == 1, "and it went once"


def test_case_17_a_refused_token_stops_the_account_and_no_message_is_lost(plivo, account):
    post(plivo.sms("Hello"))
    reply_to_all()
    plivo.error_next(401)
    send_all()
    account.refresh_from_db()
    assert account.health == "broken"
    message = Message.objects.get()
    assert (message.status, message.attempts) == ("queued", 0)

    account_at(plivo, account.client)  # new credentials
    assert send_all() == 1
    assert Message.objects.get().status == "sent"


def test_case_20_a_stop_is_not_answered_by_the_assistant(plivo, account):
    assert post(plivo.sms("Leave me alone", intent="optout")).status_code == 200
    assert set(Contact.objects.get().opted_out) == {"sms"}
    assert send_all() == 0, "Plivo has confirmed it"
    assert reply_to_all() == 0
    assert plivo.sent == []


def test_a_status_that_says_opted_out_is_a_stop(plivo, account, door):
    """Plivo took the person's STOP itself, before we had the account."""
    sent = answered(plivo)
    conversation = Conversation.objects.get()
    post(plivo.sms("And another thing", message_uuid="u2"))
    reply_to_all()
    post(plivo.sms("And one more", message_uuid="u3"))

    post(plivo.status(sent, "failed", sequence=2, error_code="200"))
    contact = Contact.objects.get()
    assert contact.opted_out["sms"]["word"] == "200"
    first, second = Message.objects.order_by("chunk_id")
    assert (first.status, first.code) == ("failed", "200")
    assert (second.status, second.code) == ("cancelled", "opted_out")
    assert (reply_to_all(), send_all()) == (0, 0)
    event = conversation.events.get(kind="opted_out")
    assert (event.actor, event.cause, event.data["cancelled"]) == ("system", "200", 1)
    status, envelope = door.call("POST", f"/conversations/{conversation.pk}/send", {"content": "Hello?"})
    assert (status, envelope["code"]) == (409, "opted_out")

    post(plivo.sms("START", message_uuid="u4"))
    post(plivo.status(sent, "failed", sequence=2, error_code="200"))
    assert Contact.objects.get().opted_out == {}, "what is delivered again says nothing new"


def test_a_stop_that_plivo_knows_of_before_our_own_commit_is_heeded(plivo, account):
    post(plivo.sms("Hello"))
    reply_to_all()
    token, [claimed] = claiming.claim(timezone.now(), 1)
    sending = delivery.begin(claimed, token, timezone.now())
    result = sending.send()
    unnamed = replace(plivo.sent[0], url=plivo.sent[0].url.partition("?")[0])  # by Plivo's id alone
    post(plivo.status(unnamed, "failed", sequence=1, error_code="200"))
    delivery.record_sent(sending, result, timezone.now())
    message = Message.objects.get()
    assert (message.status, message.code) == ("failed", "200")
    assert "sms" in Contact.objects.get().opted_out
    assert Conversation.objects.get().events.filter(kind="opted_out", cause="200").count() == 1


def test_an_account_without_credit_waits_with_what_failed_for_it(plivo, account):
    sent = answered(plivo)
    post(plivo.status(sent, "failed", sequence=2, error_code="900"))
    account.refresh_from_db()
    assert (account.health, account.health_reason[:4]) == ("broken", "900:")
    message = Message.objects.get()
    assert (message.status, message.code) == ("queued", "900")
    assert send_all() == 0
    channel_accounts.resume(account)
    assert send_all() == 1
    assert post(plivo.status(plivo.sent[1], "delivered", sequence=1)).status_code == 200
    assert Message.objects.get().status == "delivered"


def test_a_long_answer_goes_in_parts_of_1600_bytes(plivo, account, door):
    post(plivo.sms("Hello"))
    conversation = Conversation.objects.get()
    text = "Größe und Maß. " * 300
    status, _ = door.call("POST", f"/conversations/{conversation.pk}/send", {"role": "ai", "content": text})
    assert status == 201
    send_all()
    assert len(plivo.sent) > 1
    assert max(len(sent.text.encode()) for sent in plivo.sent) <= 1600
    assert "".join(sent.text for sent in plivo.sent) == text


def test_mms_shows_its_media(plivo, account):
    post(plivo.sms("Look", media=["https://media.plivo.com/1"]))
    chunk = Chunk.objects.get(role="user")
    assert (chunk.content, chunk.metadata) == ("[media] Look", {"media": ["https://media.plivo.com/1"], "kind": "mms"})


@pytest.mark.parametrize("header", ["V3", "V2", "MA-V3", "MA-V2"])
def test_a_bad_signature_changes_nothing(plivo, account, header):
    path = "/webhooks/sms/inbound"
    form = {"From": "51999999999", "To": plivo.number, "Text": "Hello", "MessageUUID": "u"}
    response = post(plivo.post(path, form, token="somebody else's", version=header))
    assert (response.status_code, response.json()["code"]) == (403, "invalid_signature")
    assert post(plivo.post(path, form, version=header)).status_code == 200
    assert Conversation.objects.count() == 1


def test_no_signature_is_no_plivo(plivo, account):
    webhook = plivo.sms("Hello")
    for path in ("/webhooks/sms/inbound", "/webhooks/sms/status"):
        answer = HttpClient().generic("POST", path, webhook.body, content_type="application/x-www-form-urlencoded")
        assert answer.status_code == 401
    assert HttpClient().get("/webhooks/sms/inbound").status_code == 403
    assert not Conversation.objects.exists()


def test_case_13_one_tenant_s_token_does_not_speak_for_another(plivo, account):
    theirs = account_at(plivo, factories.ClientFactory(), address="14155559999", auth_token="theirs-alone")
    response = post(plivo.sms("Hello", to=theirs.address))
    assert response.status_code == 403
    assert not Conversation.objects.exists()


def test_case_13_a_number_that_is_nobody_s_is_kept_and_taken(plivo, account):
    assert post(plivo.sms("Hello", to="14155559999")).status_code == 200
    assert not Conversation.objects.exists()
    assert InboundEvent.objects.get().reason == "unknown_account"


def test_case_20_the_wrong_sort_of_body_is_refused_without_a_crash(plivo, account):
    webhook = plivo.sms("Hello")
    response = HttpClient().generic(
        "POST",
        webhook.path,
        b'{"To": "14155550000"}',
        content_type="application/json",
        headers={name: value for name, value in webhook.headers.items() if name != "Content-Type"},
    )
    assert response.status_code == 403
    assert not InboundEvent.objects.exists()


def test_a_rotated_token_verifies_old_and_new_and_sends_with_the_first(plivo, shop):
    account_at(plivo, shop, auth_token=f"{plivo.auth_token},the-old-one")
    form = {"From": "51999999999", "To": plivo.number, "Text": "Hello", "MessageUUID": "u1"}
    for number, token in enumerate(["the-old-one", plivo.auth_token]):
        form["MessageUUID"] = f"u{number}"
        assert post(plivo.post("/webhooks/sms/inbound", form, token=token)).status_code == 200
    reply_to_all()
    assert send_all() == 1
    assert len(plivo.sent) == 1


def test_the_number_is_one_tenant_s_and_can_have_voice_beside_sms(plivo, account, shop):
    assert account.address == "14155550000"
    again = account_at(plivo, shop, address="14155550000")
    assert again.pk == account.pk
    with pytest.raises(ConflictError):
        account_at(plivo, factories.ClientFactory())
