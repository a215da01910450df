"""WhatsApp through 360dialog end to end, beside an account at Meta itself."""

from __future__ import annotations

import pytest

from channels_out.simulators.meta import posted_by_dialog360
from conversations.models import Conversation, Message
from tests import factories
from tests.conftest import reply_to_all, send_all
from tests.conversations.meta_doors import account_at, post
from tests.fakes.dialog360 import FakeDialog360
from tests.fakes.meta import FakeMeta
from tests.fakes.server import Fault

pytestmark = pytest.mark.django_db


@pytest.fixture
def dialog():
    with FakeDialog360() as fake:
        yield fake


@pytest.fixture
def account(dialog, shop):
    return account_at(dialog, shop)


def test_a_webhook_with_our_secret_is_answered_through_360dialog(dialog, account):
    with FakeMeta(phone_number_id="777") as meta:
        account_at(meta, factories.ClientFactory())
        assert post(dialog.text_webhook("Hello"), "whatsapp")[1]["messages"] == 1
        reply_to_all()
        send_all()
        assert meta.sent == []
    [sent] = dialog.sent
    assert Conversation.objects.get().channel_account == account
    for status in ("delivered", "read"):
        post(dialog.status_webhook(sent, status), "whatsapp")
    assert Message.objects.get().status == "read"


def test_a_wrong_or_missing_secret_changes_nothing(dialog, account):
    webhook = dialog.text_webhook("Hello")
    for headers, status in [({"X-Convo-Secret": "guess"}, 403), ({"X-Convo-Secret": ""}, 403), ({}, 401)]:
        assert post(type(webhook)(webhook.body, headers), "whatsapp")[0] == status
    assert not Conversation.objects.exists()


def test_a_secret_that_is_being_replaced_may_be_either(dialog, shop):
    account_at(dialog, shop, webhook_secret="old, secret")
    assert post(dialog.text_webhook("Hello"), "whatsapp")[0] == 200


def test_a_secret_of_one_tenant_does_not_speak_for_anothers_number(dialog, account):
    with FakeDialog360("222", webhook_secret="theirs-alone") as second:
        account_at(second, factories.ClientFactory())
        forged = posted_by_dialog360(second_payload(second), dialog.webhook_secret)
    assert post(forged, "whatsapp")[0] == 403
    assert not Conversation.objects.exists()


def second_payload(provider):
    from channels_out.simulators import whatsapp

    return whatsapp.payload(provider.phone_number_id, messages=[whatsapp.text("Hello")])


def test_an_error_that_is_a_string_is_an_error(dialog, account):
    post(dialog.text_webhook("Hello"), "whatsapp")
    reply_to_all()
    dialog.fail_next(Fault(400, {"error": "This number is not allowed"}))
    send_all()
    message = Message.objects.get()
    assert (message.status, message.code) == ("failed", "http_400")


def test_a_refused_key_breaks_the_account(dialog, account):
    post(dialog.text_webhook("Hello"), "whatsapp")
    reply_to_all()
    dialog.api_key = "another"
    send_all()
    account.refresh_from_db()
    assert (account.health, Message.objects.get().status) == ("broken", "queued")
