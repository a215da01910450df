"""The tricky cases of providers, by their numbers, as far as they are Meta's and 360dialog's: through the real webhook,
to what a person or staff would notice."""

from __future__ import annotations

import gzip
import json
import time
from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone

from channels_out.simulators import messenger as composed
from channels_out.simulators import whatsapp
from channels_out.simulators.meta import SignedWebhook, meta_json, meta_signature, signed_by_meta
from conversations.models import Chunk, Contact, Conversation, InboundEvent, Message
from conversations.services.core.ledger import SYSTEM
from conversations.services.delivery import claiming, sending
from conversations.services.staff_actions import send
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations import meta_doors
from tests.conversations.meta_doors import account_at, post
from tests.fakes.dialog360 import FakeDialog360
from tests.fakes.messenger import PERSON
from tests.fakes.meta import FakeMeta
from tests.fakes.server import Fault
from tests.races.threads import together

pytestmark = pytest.mark.django_db
ANA = "51999999999"

account, page = meta_doors.account, meta_doors.page


def arrives(meta, *messages, **batches):
    status, outcome = post(meta.webhook(messages=messages, **batches), "whatsapp")
    assert status == 200, outcome
    return outcome


def said():
    return list(Chunk.objects.filter(role="user").order_by("id").values_list("content", flat=True))


def say(text):
    send.send(Conversation.objects.get().pk, text, actor=SYSTEM, now=timezone.now())
    send_all()


def statuses():
    return list(Message.objects.order_by("chunk_id", "part").values_list("status", flat=True))


def all_due():
    Message.objects.filter(status="queued").update(due_at=timezone.now())


@pytest.mark.django_db(transaction=True)
def test_case_01_the_same_message_on_two_workers_and_days_later_is_one(meta, account):
    webhook = meta.text_webhook("Hello", message_id="wamid.1")
    for _ in range(3):
        together(*[partial(post, webhook, "whatsapp")] * 4)
    Conversation.objects.update(started_at=timezone.now() - timedelta(days=7))
    post(webhook, "whatsapp")
    assert said() == ["Hello"]
    assert Conversation.objects.get().inbound_sequence == 1


def test_case_02_the_same_id_twice_in_one_payload_is_one(meta, account, page):
    one = whatsapp.text("Hello", message_id="wamid.1")
    arrives(meta, one, one)
    twice = composed.text(page.page, PERSON, "Hi", mid="m_1")
    post(page.webhook(twice, twice), "messenger")
    assert said() == ["Hello", "Hi"]


def test_case_03_messages_statuses_and_tenants_in_one_payload_and_one_bad_item(meta, account):
    other = factories.ClientFactory()
    with FakeMeta("222") as second:
        account_at(second, other)
    arrives(meta, whatsapp.text("First"))
    say("Hi")
    changes = [
        whatsapp.change(meta.phone_number_id, messages=[whatsapp.text("One"), None, {"from": {}}]),
        whatsapp.change("222", messages=[whatsapp.text("To another tenant")]),
        whatsapp.change(meta.phone_number_id, statuses=[7, whatsapp.status(meta.sent[0].wamid, "read")]),
    ]
    status, outcome = post(meta.signed(whatsapp.around(*changes)), "whatsapp")
    assert (status, outcome) == (200, {"messages": 2, "receipts": 1, "recorded": 3})
    assert said() == ["First", "One", "To another tenant"]
    assert {c.client for c in Conversation.objects.all()} == {account.client, other}
    assert statuses() == ["read"]


@pytest.mark.parametrize("order", [("read", "delivered", "sent"), ("delivered", "read"), ("sent", "sent", "read")])
def test_case_04_receipts_out_of_order_never_go_back(meta, account, order):
    arrives(meta, whatsapp.text("Hello"))
    say("Hi")
    for word in order:
        post(meta.status_webhook(meta.sent[0], word), "whatsapp")
    assert statuses() == ["read"]


def test_case_04_failed_after_sent_says_why_and_the_rest_is_not_sent(meta, account, door):
    arrives(meta, whatsapp.text("Hello"))
    send.send(Conversation.objects.get().pk, "x" * 5000, actor=SYSTEM, now=timezone.now())
    token, [claimed] = claiming.claim(timezone.now(), 1)
    held = sending.begin(claimed, token, timezone.now())
    sending.record_sent(held, held.send(), timezone.now())
    post(meta.status_webhook(meta.sent[0], "failed", error=131026), "whatsapp")
    assert statuses() == ["failed", "cancelled"]
    assert send_all() == 0
    assert Message.objects.first().reason == "It failed."


@pytest.mark.parametrize("with_our_id", [True, False])
def test_case_04_a_status_faster_than_our_commit_is_kept_and_applied(meta, account, with_our_id):
    arrives(meta, whatsapp.text("Hello"))
    send.send(Conversation.objects.get().pk, "Hi", actor=SYSTEM, now=timezone.now())
    token, [claimed] = claiming.claim(timezone.now(), 1)
    held = sending.begin(claimed, token, timezone.now())
    result = held.send()
    ours = str(claimed.message_id) if with_our_id else ""
    status = whatsapp.status(result.provider_message_id, "delivered", our_message_id=ours)
    arrives(meta, statuses=[status])
    sending.record_sent(held, result, timezone.now())
    assert statuses() == ["delivered"]


def test_case_05_echoes_are_no_words_of_a_person(meta, account, page):
    change = {
        "field": "smb_message_echoes",
        "value": {
            "metadata": {"phone_number_id": meta.phone_number_id},
            "message_echoes": [{"from": "250788123200", "to": ANA, "id": "w", "type": "text", "text": {"body": "Us"}}],
        },
    }
    post(meta.signed(whatsapp.around(change)), "whatsapp")
    post(page.webhook(composed.echo(page.page, PERSON, "Us")), "messenger")
    assert not Conversation.objects.exists()
    assert set(InboundEvent.objects.values_list("reason", flat=True)) == {"echo"}


@pytest.mark.parametrize(
    ("contacts", "name"),
    [
        ([], ""),
        ([{"wa_id": ANA}], ""),
        ([{"wa_id": ANA, "profile": {"name": ""}}], ""),
        ([{"wa_id": "1", "profile": {"name": "Luz"}}, {"wa_id": ANA, "profile": {"name": "Ana 👩‍🚀"}}], "Ana 👩‍🚀"),
        ([{"wa_id": ANA, "profile": {"name": "x" * 5000}}], "x" * 200),
    ],
)
def test_case_06_names_may_be_missing_unordered_or_endless(meta, account, contacts, name):
    arrives(meta, whatsapp.text("Hello"), contacts=contacts)
    assert Contact.objects.get().name == name


def test_case_07_a_user_id_alone_is_an_identity_and_no_guest(meta, account):
    arrives(meta, whatsapp.text("Hello", sender="", user_id="PE.1234"))
    conversation = Conversation.objects.get()
    assert (conversation.is_guest, conversation.contact.phone) == (False, None)
    reply_to_all()
    send_all()
    assert meta.sent[0].to == "PE.1234"
    assert "recipient" in meta.requests[-1].json(), "a user id is no phone number"


def test_case_07_the_phone_that_comes_later_is_the_same_persons(meta, account):
    arrives(meta, whatsapp.text("One", sender="", user_id="PE.1234"))
    arrives(meta, whatsapp.text("Two", sender=ANA, user_id="PE.1234"))
    arrives(meta, whatsapp.text("Three", sender=ANA))
    conversation = Conversation.objects.get()
    assert (conversation.contact.phone, conversation.device.address) == (f"+{ANA}", ANA)
    assert said() == ["One", "Two", "Three"]


def test_case_07_whoever_hides_the_number_later_is_still_known(meta, account):
    """The user id began to come beside the phone while the session was open."""
    arrives(meta, whatsapp.text("One", sender=ANA))
    arrives(meta, whatsapp.text("Two", sender=ANA, user_id="PE.1234"))
    arrives(meta, whatsapp.text("Three", sender="", user_id="PE.1234"))
    arrives(meta, whatsapp.text("Four", sender="PE.1234"))
    assert Conversation.objects.get().device.address == "PE.1234", "an answer goes where the newest message came from"
    assert len(said()) == 4


def test_case_07_a_user_id_that_rotates_is_found_by_the_phone(meta, account):
    arrives(meta, whatsapp.text("One", sender=ANA, user_id="PE.1"))
    arrives(meta, whatsapp.text("Two", sender=ANA, user_id="PE.2"))
    arrives(meta, whatsapp.text("Three", sender="", user_id="PE.2"))
    assert Contact.objects.count() == 1


def test_case_07_where_phone_and_user_id_are_two_people_the_phone_decides(meta, account):
    arrives(meta, whatsapp.text("I am a phone", sender=ANA))
    arrives(meta, whatsapp.text("I am an id", sender="", user_id="PE.1"))
    arrives(meta, whatsapp.text("I am both", sender=ANA, user_id="PE.1"))
    assert Contact.objects.count() == 2
    phone = Conversation.objects.get(contact__phone=f"+{ANA}")
    assert list(phone.chunks.filter(role="user").values_list("content", flat=True)) == ["I am a phone", "I am both"]


@pytest.mark.parametrize(
    ("known", "sender"),
    [
        ("+525512345678", "5215512345678"),
        ("+5215512345678", "525512345678"),
        ("+5511987654321", "551187654321"),
        ("+551187654321", "5511987654321"),
    ],
)
def test_case_08_a_number_written_otherwise_is_the_same_and_answered_as_it_came(meta, account, door, known, sender):
    door.says("Hello", channel="sms", user_id="customer-7", phone=known)
    arrives(meta, whatsapp.text("And on WhatsApp", sender=sender))
    assert Contact.objects.get().user_id == "customer-7"
    reply_to_all()
    send_all()
    assert [sent.to for sent in meta.sent] == [sender]


@pytest.mark.parametrize(("known", "sender"), [("+541112345678", "5491112345678"), ("+551123456789", "5511923456789")])
def test_case_08_other_subscribers_are_other_people(meta, account, door, known, sender):
    """Argentina's 9 and Brazil's landlines."""
    door.says("Hello", channel="sms", user_id="customer-7", phone=known)
    arrives(meta, whatsapp.text("Hi", sender=sender))
    assert Contact.objects.count() == 2


@pytest.mark.parametrize("kind", ["reaction", "edit", "revoke", "system", "request_welcome", "hologram"])
def test_case_09_what_is_no_turn_is_kept_and_nobody_answers(meta, account, kind):
    outcome = arrives(meta, whatsapp.message(kind, {"message_id": "wamid.1"}))
    assert outcome["recorded"] == 1
    assert not Conversation.objects.exists()
    assert InboundEvent.objects.get().raw


def test_case_10_nothing_to_read_is_readable_or_kept(meta, account):
    arrives(
        meta,
        whatsapp.text("  \n "),
        whatsapp.media("image"),
        whatsapp.location(0.0, 0),
        whatsapp.media("sticker"),
        whatsapp.media("audio", voice=True),
    )
    assert said() == ["[image]", "[location] (0.0, 0)", "[sticker]", "[voice]"]
    assert InboundEvent.objects.get().reason == "not_a_turn"


def test_case_11_what_no_database_takes_is_replaced_and_the_rest_kept(meta, account, page):
    words = "nul \x00 half \ud83d family 👨‍👩‍👧 rtl \u202eabc bell \x07"
    arrives(meta, whatsapp.text(words), contacts=[whatsapp.contact(ANA, "A\x00na")])
    post(page.webhook(composed.text(page.page, PERSON, words)), "messenger")
    assert said() == [words.replace("\x00", "\ufffd").replace("\ud83d", "\ufffd")] * 2


def test_case_12_the_raw_bytes_are_signed(meta, account):
    payload = whatsapp.payload(meta.phone_number_id, messages=[whatsapp.text("Größe / 大 👍")])
    escaped, plain = meta_json(payload), json.dumps(payload, ensure_ascii=False).encode()
    for body, signed, status in [(escaped, escaped, 200), (plain, plain, 200), (plain, escaped, 403)]:
        assert post(SignedWebhook(body, meta_signature(signed, meta.app_secret)), "whatsapp")[0] == status
    given = meta_signature(escaped, meta.app_secret)["X-Hub-Signature-256"]
    for bad in (given.upper(), given[:-1], f"{given},{given}", "", given.replace("sha256=", "")):
        assert post(SignedWebhook(escaped, {"X-Hub-Signature-256": bad}), "whatsapp")[0] in (401, 403)
    assert post(SignedWebhook(escaped, {"x-hub-signature-256": given}), "whatsapp")[0] == 200, "whatever its letters"
    zipped = gzip.compress(escaped)
    status, outcome = post(SignedWebhook(zipped, meta_signature(zipped, meta.app_secret)), "whatsapp")
    assert (status, outcome["recorded"], InboundEvent.objects.get().reason) == (200, 1, "malformed"), (
        "kept, not unpacked"
    )


def test_case_13_unknown_numbers_pages_and_tenants_that_are_off_tell_nothing(meta, account, page):
    """What is unknown is answered like what is known; what is not signed, alike whether it exists or not."""
    stranger = signed_by_meta(whatsapp.payload("999", messages=[whatsapp.text("Hi")]), meta.app_secret)
    assert post(stranger, "whatsapp") == (200, {"messages": 0, "receipts": 0, "recorded": 1})
    other_page = signed_by_meta(composed.payload("999", composed.text("999", PERSON, "Hi")), page.app_secret)
    assert post(other_page, "messenger")[1]["recorded"] == 1
    forged = [whatsapp.payload(number, messages=[whatsapp.text("x")]) for number in (meta.phone_number_id, "999")]
    answers = [post(signed_by_meta(payload, "no"), "whatsapp") for payload in forged]
    assert answers[0] == answers[1]
    assert answers[0][0] == 403
    assert not Conversation.objects.exists()


def test_case_14_three_megabytes_come_in_and_long_texts_go_out_in_order(meta, account):
    messages = [whatsapp.text("x" * 40_000, message_id=f"w{n}") for n in range(70)]
    webhook = meta.webhook(messages=messages)
    assert 2_800_000 < len(webhook.body) < 3_500_000
    assert post(webhook, "whatsapp")[1]["messages"] == 70
    text = "👨‍👩‍👧 A sentence. " * 600
    meta.fail_next(Fault(), 1)
    meta.fail_next(Fault(500), 1)
    say(text)
    assert statuses()[0] == "sent"
    assert statuses()[1:] == ["queued"] * (len(statuses()) - 1), "what comes after waits for the part that failed"
    all_due()
    send_all()
    assert "".join(sent.text for sent in meta.sent) == text, "resumed at the part that was not sent"


@pytest.mark.parametrize("fault", [Fault(cut="after"), Fault(cut="body")], ids=["no answer", "half an answer"])
def test_case_15_a_send_without_an_answer_is_settled_and_not_repeated(meta, account, page, fault):
    arrives(meta, whatsapp.text("Hello"))
    meta.fail_next(fault)
    say("Hi")
    assert statuses() == ["unknown"]
    post(meta.status_webhook(meta.sent[0], "delivered"), "whatsapp")
    send_all()
    assert (statuses(), len(meta.sent)) == (["delivered"], 1)


def test_case_15_through_360dialog_as_well(shop):
    with FakeDialog360() as dialog:
        account_at(dialog, shop)
        post(dialog.text_webhook("Hello"), "whatsapp")
        reply_to_all()
        dialog.fail_next(Fault(cut="after"))
        send_all()
        post(dialog.status_webhook(dialog.sent[0], "read"), "whatsapp")
    assert (statuses(), len(dialog.sent)) == (["read"], 1)


def test_case_16_the_window_that_closed_on_the_way_is_no_storm_of_tries(meta, account):
    arrives(meta, whatsapp.text("Hello"))
    say("Hi")
    post(meta.status_webhook(meta.sent[0], "failed", error=131047), "whatsapp")
    all_due()
    assert send_all() == 0
    message = Message.objects.get()
    assert (message.status, message.code, len(meta.requests)) == ("failed", "131047", 1)
    assert message.reason


def test_case_17_a_revoked_token_stops_the_account_and_costs_no_message_its_tries(meta, account):
    for number in range(3):
        arrives(meta, whatsapp.text("Hello", sender=f"5199999990{number}"))
    reply_to_all()
    meta.error_next(190, status=401)
    token, [first, *_] = claiming.claim(timezone.now(), 1)
    held = sending.begin(first, token, timezone.now())
    with pytest.raises(Exception, match="refuses the access token") as caught:
        held.send()
    sending.record_failed(held, caught.value, timezone.now())
    all_due()
    assert send_all() == 0, "the others wait instead of being refused one by one"
    assert set(Message.objects.values_list("status", "attempts")) == {("queued", 0)}
    account.refresh_from_db()
    assert account.health == "broken"


def test_case_17_a_pair_that_is_throttled_holds_no_other_pair_back(meta, account):
    for number in range(2):
        arrives(meta, whatsapp.text("Hello", sender=f"5199999990{number}"))
    reply_to_all()
    meta.error_next(131056, status=403)
    send_all()
    assert sorted(statuses()) == ["queued", "sent"]
    assert Message.objects.get(status="queued").due_at > timezone.now()


def test_case_20_a_number_that_writes_to_itself_is_told_so(meta, account):
    arrives(meta, whatsapp.text("Hello"))
    meta.error_next(131021)
    say("Hi")
    assert Message.objects.get().reason == "The sender and the recipient are the same number. (131021)"


@pytest.mark.parametrize("shape", [{"entry": {}}, {"entry": None}, {"entry": [None, 7]}, [], None, {"object": "page"}])
@pytest.mark.parametrize("channel", ["whatsapp", "messenger"])
def test_case_20_a_signed_body_of_any_shape_is_kept_and_answered(meta, account, page, shape, channel):
    """A refusal would be delivered again for days, and webhooks that fail are switched off."""
    provider = meta if channel == "whatsapp" else page
    status, outcome = post(provider.signed(shape), channel)
    assert status == 200
    assert outcome["recorded"] == InboundEvent.objects.count() > 0
    assert not Conversation.objects.exists()


@pytest.mark.parametrize("timestamp", ["asdf", None, "milliseconds", "99999999999", {}, "-1"])
def test_case_20_times_that_are_nonsense_lose_nothing(meta, account, timestamp):
    given = f"{time.time() * 1000:.0f}" if timestamp == "milliseconds" else timestamp
    message = whatsapp.text("Hello") | {"timestamp": given}
    arrives(meta, message)
    assert said() == ["Hello"]


def test_case_20_a_form_at_the_json_door_is_refused_and_forgotten(meta, account):
    body = b"From=51999999999&Text=Hello"
    status, envelope = post(SignedWebhook(body, meta_signature(body, "wrong")), "whatsapp")
    assert (status, envelope["code"]) in [(403, "invalid_signature"), (400, "malformed")]
    assert not InboundEvent.objects.exists()
