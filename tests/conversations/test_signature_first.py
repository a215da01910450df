"""A provider's webhook is signed before it is read, by the account that each of its events is for."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from channels_out import contract
from channels_out.simulators import whatsapp
from channels_out.simulators.meta import SignedWebhook, meta_json, meta_signature
from conversations.models import ChannelAccount, Chunk, Conversation, InboundEvent, MessageTombstone, RefusedWebhooks
from conversations.services.inbound import replay
from tests import factories
from tests.conversations.meta_doors import account_at, post
from tests.fakes.meta import FakeMeta

pytestmark = pytest.mark.django_db
OTHER = "222"
NESTED = b'{"entry":[' + b"[]," * 1_130_000 + b"[]]}"


@pytest.fixture
def account(meta, shop):
    ChannelAccount.objects.filter(client=shop, provider="sandbox", channel="whatsapp").delete()
    return account_at(meta, shop)


@pytest.fixture
def other():
    """Another tenant's number, of an app of their own."""
    with FakeMeta(OTHER, app_secret="the-other-secret") as fake:
        yield account_at(fake, factories.ClientFactory())


def signed(body, secret):
    return SignedWebhook(body, meta_signature(body, secret))


def said():
    return list(Chunk.objects.filter(role="user").order_by("id").values_list("content", flat=True))


def change_of(number, text):
    return whatsapp.change(number, messages=[whatsapp.text(text)])


@pytest.fixture
def parsed(monkeypatch):
    """Count how often a body was parsed."""
    real, seen = contract.load_json, []
    monkeypatch.setattr(contract, "load_json", lambda body: seen.append(len(body)) or real(body))
    return seen


@pytest.mark.parametrize(
    "body",
    [NESTED, b"[" * 100_000, b'{"phone_number_id":"1234567890",' + NESTED[1:], b"9" * 3_000_000, b"", b"\xff\x00"],
    ids=["nested", "deep", "nested, with the number", "a number", "nothing", "no text"],
)
def test_what_nobody_signed_is_refused_and_not_parsed(meta, account, parsed, body):
    status, answer = post(signed(body, "a-guess"), "whatsapp")
    assert (status, answer["code"]) == (403, "invalid_signature")
    assert not parsed
    assert not InboundEvent.objects.exists()


def test_what_is_signed_is_parsed_once(meta, account, parsed):
    for _ in range(2):
        assert post(meta.text_webhook("Hello"), "whatsapp")[0] == 200
    assert len(parsed) == 2


def test_a_signed_body_that_is_too_much_is_kept_and_not_delivered_for_days(meta, account):
    assert post(signed(NESTED, meta.app_secret), "whatsapp") == (200, {"messages": 0, "receipts": 0, "recorded": 1})
    assert InboundEvent.objects.get().reason == "malformed"
    assert not said()


@pytest.mark.parametrize("key", [rb"phone_number_id", rb"\u0070hone_number_id"])
@pytest.mark.parametrize("before", [True, False])
def test_one_accounts_secret_settles_nothing_of_another_however_it_is_named(meta, account, other, key, before):
    ours, theirs = change_of(meta.phone_number_id, "Ours"), change_of(OTHER, "Theirs")
    body = meta_json(whatsapp.around(*((theirs, ours) if before else (ours, theirs))))
    wanted = b'"phone_number_id":"%b"' % OTHER.encode()
    assert wanted in body
    body = body.replace(wanted, b'"%b":"%b"' % (key, OTHER.encode()))
    assert post(signed(body, meta.app_secret), "whatsapp") == (200, {"messages": 1, "receipts": 0, "recorded": 0})
    assert said() == ["Ours"]
    assert RefusedWebhooks.objects.get().channel_account == other


def test_a_key_that_is_repeated_counts_as_the_parser_reads_it(meta, account, other):
    body = meta_json(whatsapp.around(change_of(meta.phone_number_id, "Whose?")))
    ours = b'"phone_number_id":"%b"' % meta.phone_number_id.encode()
    body = body.replace(ours, ours + b',"phone_number_id":"222"')
    assert post(signed(body, meta.app_secret), "whatsapp")[0] == 200
    assert not said()
    post(signed(body, "the-other-secret"), "whatsapp")
    assert Conversation.objects.get().client == other.client


def test_an_account_that_only_an_escaped_key_names_is_found_after_the_signature(meta, account):
    body = meta_json(whatsapp.around(change_of(meta.phone_number_id, "Hello")))
    body = body.replace(b'"phone_number_id"', rb'"\u0070hone_number_id"')
    assert post(signed(body, "a-guess"), "whatsapp")[0] == 403
    assert post(signed(body, meta.app_secret), "whatsapp")[1]["messages"] == 1


def test_words_that_look_like_another_account_change_nothing(meta, account, other):
    words = '"phone_number_id":"222"'
    assert post(meta.text_webhook(words), "whatsapp")[1]["messages"] == 1
    assert said() == [words]
    assert not RefusedWebhooks.objects.exists()


def test_many_claimed_accounts_do_not_hide_the_one_that_signed(meta, account):
    strangers = [change_of(f"9{n:05d}", f"stray {n}") for n in range(300)]
    body = meta_json(whatsapp.around(*strangers, change_of(meta.phone_number_id, "Here")))
    assert post(signed(body, "a-guess"), "whatsapp")[0] == 403
    assert post(signed(body, meta.app_secret), "whatsapp")[1]["messages"] == 1
    assert said() == ["Here"]


# --- captured webhooks ------------------------------------------------------------------------------------------------
def test_a_captured_webhook_is_not_taken_again_once_its_tombstone_is_gone(meta, account):
    sent = timezone.now() - timedelta(days=9)
    webhook = meta.text_webhook("Delete this", message_id="wamid.1", timestamp=sent.timestamp())
    assert post(webhook, "whatsapp")[1] == {"messages": 0, "receipts": 0, "recorded": 1}
    assert not Conversation.objects.exists()
    kept = InboundEvent.objects.get()
    assert (kept.reason, kept.client, kept.retry_at) == ("too_old", account.client, None)
    assert not MessageTombstone.objects.exists()
    assert replay.replay(kept.pk, timezone.now()).settled, "staff may decide otherwise"
    assert said() == ["Delete this"]
    assert post(webhook, "whatsapp")[1] == {"messages": 1, "receipts": 0, "recorded": 0}, "it is there: a duplicate"
    assert said() == ["Delete this"]


def test_a_message_of_seven_days_ago_is_settled(meta, account):
    sent = timezone.now() - timedelta(days=7, hours=1)
    assert post(meta.text_webhook("Late", timestamp=sent.timestamp()), "whatsapp")[1]["messages"] == 1
    post(meta.text_webhook("Later", timestamp=sent.timestamp()), "whatsapp")
    assert said() == ["Late", "Later"]
