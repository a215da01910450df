"""Nothing vanishes: what does not become a chunk is kept with its reason, replayed by hand or by the sweep, trimmed."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import pytest
from django.urls import reverse
from django.utils import timezone

from channels_out.adapters.whatsapp import WhatsAppAdapter
from channels_out.errors import InboundError
from conversations.models import Chunk, Client, Conversation, InboundEvent, Message, RefusedWebhooks, StaffAction
from conversations.services.inbound import messages as inbound
from conversations.services.inbound import replay, signatures, unprocessed
from conversations.services.jobs import sweep
from conversations.services.tenants import setup
from conversations.tasks import clean_up
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations.back_office import sign_in
from tests.conversations.meta_doors import account_at, post_whatsapp
from tests.fakes.meta import FakeMeta

pytestmark = pytest.mark.django_db


def text(message_id, body="Hello", sender="51999999991"):
    return {
        "from": sender,
        "id": message_id,
        "timestamp": str(int(time.time())),
        "text": {"body": body},
        "type": "text",
    }


def user_chunks():
    return list(Chunk.objects.filter(role="user").order_by("id").values_list("content", flat=True))


@pytest.fixture
def broken(monkeypatch) -> Any:
    """A fault of ours: what says "poison" cannot be settled until `mend` is called."""
    real = inbound.settle

    def settle(client, arrival, **_):
        if arrival.text == "poison":
            raise ZeroDivisionError
        return real(client, arrival)

    monkeypatch.setattr(inbound, "settle", settle)
    return lambda: monkeypatch.setattr(inbound, "settle", real)


# --- a fault of ours -------------------------------------------------------------------------------------------------
def test_what_we_failed_to_process_is_answered_200_and_settled_by_a_later_sweep(meta, account, broken):
    messages = [text("w0", "one"), text("w1", "poison"), text("w2", "two"), text("w3", "poison", "51999999992")]
    status, envelope = post_whatsapp(meta.webhook(messages=messages))
    assert (status, envelope["data"]) == (200, {"messages": 2, "receipts": 0, "recorded": 2})
    kept = InboundEvent.objects.get()
    assert (kept.reason, kept.kind, kept.retry_at is not None) == ("processing_failed", "several", True)

    now = timezone.now()
    assert sweep.sweep(now).replayed == 0
    kept.refresh_from_db()
    assert (kept.attempts, kept.settled_at) == (1, None)
    assert kept.retry_at == now + timedelta(minutes=5)
    assert sweep.sweep(now + timedelta(minutes=1)).replayed == 0, "not before its time"

    broken()
    assert sweep.sweep(now + timedelta(minutes=6)).replayed == 1
    assert user_chunks() == ["one", "two", "poison", "poison"], "what was there already came no second time"
    kept.refresh_from_db()
    assert kept.settled_at
    assert kept.outcome == "Settled. Messages: 4."
    assert sweep.sweep(now + timedelta(days=1)).replayed == 0


def test_the_sweep_gives_up_in_the_end_and_staff_still_may_replay(meta, account, broken):
    post_whatsapp(meta.webhook(messages=[text("w1", "poison")]))
    now = timezone.now()
    for day in range(20):
        replay.retry_failed(now + timedelta(days=day))
    kept = InboundEvent.objects.get()
    assert (kept.attempts, kept.retry_at, kept.settled_at) == (replay.RETRIES, None, None)
    broken()
    assert replay.replay(kept.pk, now).settled
    assert user_chunks() == ["poison"]


def test_a_payload_that_crashes_the_adapter_is_kept_whole(meta, account, monkeypatch):
    reaction = {"from": "51999999991", "id": "w3", "timestamp": "1", "type": "reaction", "reaction": {"emoji": "👍"}}
    with monkeypatch.context() as patched:
        patched.setattr(WhatsAppAdapter, "parse", lambda *_: 1 / 0)
        status, envelope = post_whatsapp(meta.webhook(messages=[text("w1", "one"), reaction]))
        assert (status, envelope["data"]["recorded"]) == (200, 1)
        kept = InboundEvent.objects.get()
        assert (kept.reason, kept.kind, kept.channel_account) == ("processing_failed", "webhook", account)
        assert not replay.replay(kept.pk, timezone.now()).settled

    assert sweep.sweep(timezone.now()).replayed == 1
    assert user_chunks() == ["one"]
    assert list(InboundEvent.objects.order_by("id").values_list("kind", flat=True)) == ["webhook", "reaction"]


def test_a_crash_before_we_know_whose_it_is_asks_for_a_signature_first(meta, account, monkeypatch):
    monkeypatch.setattr(WhatsAppAdapter, "addresses", lambda *_: 1 / 0)
    with FakeMeta(app_secret="other") as forger:
        assert post_whatsapp(forger.text_webhook("Hello"))[0] == 403
    assert not InboundEvent.objects.exists()
    assert post_whatsapp(meta.text_webhook("Hello"))[0] == 200
    kept = InboundEvent.objects.get()
    assert (kept.reason, kept.client) == ("processing_failed", account.client)
    assert replay.replay(kept.pk, timezone.now()).settled, "addresses are not asked for then"
    assert user_chunks() == ["Hello"]


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"entry": {}}', b"null", b'{"object": "page", "entry": []}'])
def test_nonsense_is_kept_where_it_is_signed_and_refused_where_not(meta, account, body):
    webhook = meta.signed(None)
    import hashlib
    import hmac

    digest = hmac.new(meta.app_secret.encode(), body, hashlib.sha256).hexdigest()
    signed = type(webhook)(body, {"X-Hub-Signature-256": f"sha256={digest}"})
    forged = type(webhook)(body, {"X-Hub-Signature-256": f"sha256={'0' * 64}"})

    assert post_whatsapp(forged)[0] == 403
    assert not InboundEvent.objects.exists()
    assert post_whatsapp(signed)[0] == 200
    kept = InboundEvent.objects.get()
    assert (kept.reason, kept.kind) == ("malformed", "webhook")
    result = replay.replay(kept.pk, timezone.now())
    assert (result.settled, result.sentence) == (False, "The adapter still cannot read the event.")


# --- unknown accounts ------------------------------------------------------------------------------------------------
def test_what_is_for_an_account_that_we_learn_of_later_is_replayed_into_it(meta, account):
    with FakeMeta(phone_number_id="999") as stray:
        post_whatsapp(
            stray.webhook(messages=[text("w1", "one"), text("w2", "two")], statuses=[{"id": "x", "status": "read"}])
        )
        kept = InboundEvent.objects.get()
        assert (kept.reason, kept.address, kept.client, kept.retry_at) == ("unknown_account", "999", None, None)
        assert replay.replay(kept.pk, timezone.now()).sentence == "The event's address still has no active account."

        account_at(stray, account.client)
        assert replay.replay(kept.pk, timezone.now()).settled
    assert user_chunks() == ["one", "two"]
    assert Conversation.objects.get().channel_account.address == "999"
    again = replay.replay(kept.pk, timezone.now())
    assert (again.settled, again.sentence) == (True, "The event was replayed before. Nothing is left to do.")


def test_one_tenants_staff_do_not_see_what_anothers_customers_wrote(meta, account, broken):
    """Two tenants of one app in one post, and we fail both: each has its own part."""
    setup.create_channel_account(
        factories.ClientFactory(),
        channel="whatsapp",
        provider="whatsapp",
        address="222",
        credentials={"access_token": "t", "app_secret": meta.app_secret, "verify_token": "v"},
    )
    changes = [
        {"field": "messages", "value": {"metadata": {"phone_number_id": number}, "messages": [text(number, "poison")]}}
        for number in (meta.phone_number_id, "222")
    ]
    post_whatsapp(meta.signed({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": changes}]}))

    first, second = InboundEvent.objects.order_by("id")
    assert {first.client, second.client} == {account.client, Client.objects.exclude(pk=account.client.pk).get()}
    for kept in (first, second):
        [change] = kept.raw["entry"][0]["changes"]
        assert change["value"]["metadata"]["phone_number_id"] == kept.address
    broken()
    assert sweep.sweep(timezone.now()).replayed == 2
    assert Conversation.objects.values("client").distinct().count() == 2


# --- receipts --------------------------------------------------------------------------------------------------------
def test_a_receipt_of_nothing_we_know_is_kept_and_can_be_replayed(meta, account):
    post_whatsapp(meta.text_webhook("Hello"))
    reply_to_all()
    send_all()
    [sent] = meta.sent
    Message.objects.update(provider_message_id="lost")
    post_whatsapp(meta.webhook(statuses=[{"id": sent.wamid, "status": "delivered", "timestamp": "1454119029"}]))
    kept = InboundEvent.objects.get()
    assert kept.reason == "receipt_unmatched"
    assert not replay.replay(kept.pk, timezone.now()).settled
    Message.objects.update(provider_message_id=sent.wamid)
    assert replay.replay(kept.pk, timezone.now()).settled
    assert Message.objects.get().status == "delivered"


# --- signatures ------------------------------------------------------------------------------------------------------
def test_bad_signatures_are_counted_by_account_and_day_and_nothing_of_them_is_kept(meta, account):
    with FakeMeta(app_secret="other") as forger, FakeMeta(phone_number_id="999", app_secret="other") as stranger:
        for _ in range(3):
            assert post_whatsapp(forger.text_webhook("Hello"))[0] == 403
        assert post_whatsapp(stranger.text_webhook("Hello"))[0] == 403
    counted = set(RefusedWebhooks.objects.values_list("channel_account", "provider", "count"))
    assert counted == {(account.pk, "whatsapp", 3), (None, "whatsapp", 1)}
    assert not InboundEvent.objects.exists()


def test_what_names_no_account_is_kept_if_any_of_many_tenants_signed_it(meta, account, caplog):
    """Meta tells a tenant's app of its templates without naming a number; each tenant may have an app of its own."""
    told = {"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [{"field": "account_update"}]}]}
    for number in range(30):
        with FakeMeta(phone_number_id=f"7{number}", app_secret=f"secret {number}".replace(" ", "-")) as tenant:
            account_at(tenant, factories.ClientFactory())
            webhook = tenant.signed(told)
    assert post_whatsapp(webhook) == (200, {"success": True, "data": {"messages": 0, "receipts": 0, "recorded": 1}})
    assert not caplog.records
    with FakeMeta(app_secret="nobody's") as forger:
        assert post_whatsapp(forger.signed(told))[0] == 403
    assert [line.getMessage() for line in caplog.records] == ["signature refused: provider=whatsapp"]


def test_a_long_body_is_held_against_few_secrets(meta, account, monkeypatch):
    tried = []
    monkeypatch.setattr(WhatsAppAdapter, "verify", lambda *given: tried.append(given) or _refuse())
    monkeypatch.setattr(signatures, "MOST_BYTES_HASHED", 3_000)
    for number in range(5):
        with FakeMeta(phone_number_id=f"7{number}", app_secret=f"secret-{number}") as tenant:
            account_at(tenant, factories.ClientFactory())
    with FakeMeta(phone_number_id="999", app_secret="nobody's") as forger:
        assert post_whatsapp(forger.text_webhook("x" * 1_000))[0] == 403
    assert len(tried) == 2


def _refuse():
    raise InboundError("The signature does not match.", code="invalid_signature")


# --- trimming --------------------------------------------------------------------------------------------------------
def test_what_is_older_than_the_set_time_is_trimmed(meta, account, settings):
    settings.INBOUND_EVENT_DAYS = 10
    for number in range(3):
        InboundEvent.objects.create(provider="whatsapp", kind=str(number), reason="unknown_type")
    InboundEvent.objects.exclude(kind="2").update(received_at=timezone.now() - timedelta(days=11))
    unprocessed.count_refused(WhatsAppAdapter(), account, timezone.now() - timedelta(days=12))
    unprocessed.count_refused(WhatsAppAdapter(), account, timezone.now())
    clean_up()
    assert list(InboundEvent.objects.values_list("kind", flat=True)) == ["2"]
    assert RefusedWebhooks.objects.count() == 1


# --- the back office -------------------------------------------------------------------------------------------------
def address(event, deed="change"):
    return reverse(f"admin:conversations_inboundevent_{deed}", args=[event.pk])


def replay_url(event):
    return address(event).replace("/change/", "/replay/")


def test_staff_see_filter_and_replay(meta, account, broken, shop):
    post_whatsapp(meta.webhook(messages=[text("w1", "poison"), {"from": "1", "id": "w9", "type": "reaction"}]))
    agent = sign_in("agnes", shop, "agent")
    listing = reverse("admin:conversations_inboundevent_changelist")
    assert b"processing failed" in agent.get(listing).content
    assert b"processing failed" not in agent.get(listing, {"reason__exact": "not_a_turn"}).content
    assert b"processing failed" not in agent.get(listing, {"state": "settled"}).content

    kept = InboundEvent.objects.get(reason="processing_failed")
    page = agent.get(address(kept)).content.decode()
    assert "poison" in page
    broken()
    assert agent.get(replay_url(kept)).status_code == 200, "it asks first"
    assert not user_chunks()
    answer = agent.post(replay_url(kept), follow=True)
    assert "Settled. Messages: 1." in answer.content.decode()
    assert user_chunks() == ["poison"]
    assert StaffAction.objects.get().verb == "replayed"

    chosen = {"action": "replay_selected", "_selected_action": [e.pk for e in InboundEvent.objects.all()]}
    answer = agent.post(listing, chosen, follow=True)
    assert "1 of 2 events are settled" in answer.content.decode()
    assert user_chunks() == ["poison"]


def test_who_may_not_replay_does_not(meta, account, broken, shop):
    post_whatsapp(meta.webhook(messages=[text("w1", "poison")]))
    with FakeMeta(phone_number_id="999") as stray:
        post_whatsapp(stray.webhook(messages=[text("w2", "private")]))
    broken()
    own, strays = InboundEvent.objects.order_by("id")
    viewer, outsider = sign_in("vera", shop, "viewer"), sign_in("otto", factories.ClientFactory(), "manager")
    assert b"poison" in viewer.get(address(own)).content
    for browser, event in [(viewer, own), (outsider, own), (outsider, strays), (viewer, strays)]:
        assert browser.post(replay_url(event)).status_code in (302, 403)
    assert b"private" not in viewer.get(address(strays), follow=True).content
    assert b"poison" not in outsider.get(address(own), follow=True).content
    assert not user_chunks()
    assert b"private" in sign_in("root").get(address(strays)).content


def test_what_came_is_shown_as_text(shop):
    event = InboundEvent.objects.create(
        client=shop, provider="whatsapp", kind="x", reason="unknown_type", raw={"a": "<script>alert(1)</script>"}
    )
    page = sign_in("agnes", shop, "agent").get(address(event)).content.decode()
    assert "<script>alert(1)" not in page
    assert "&lt;script&gt;alert(1)" in page
