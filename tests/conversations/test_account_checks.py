"""The account's page says whether the provider really delivers to us, and what to do where it does not."""

from __future__ import annotations

import pytest

from channels_out.simulators import whatsapp
from conversations.models import ChannelAccount
from conversations.services.tenants import channel_accounts
from tests.conversations import meta_doors
from tests.conversations.back_office import sign_in
from tests.conversations.meta_doors import account_at
from tests.fakes.dialog360 import FakeDialog360

pytestmark = pytest.mark.django_db
OURS = "https://convo.example/webhooks/whatsapp/inbound"
ALL_FIELDS = ["messages", "messaging_postbacks", "message_deliveries", "message_reads", "message_echoes"]

account, page = meta_doors.account, meta_doors.page


@pytest.fixture(autouse=True)
def _public(settings) -> None:
    settings.PUBLIC_BASE_URL = "https://convo.example"


@pytest.fixture
def known(meta, account) -> ChannelAccount:
    """The account, whose business account is known, and all of which is in order."""
    ChannelAccount.objects.filter(pk=account.pk).update(business_id=whatsapp.BUSINESS_ACCOUNT)
    meta.subscribed[:] = [{"whatsapp_business_api_data": {"id": "12", "name": "Convo"}}]
    meta.state["webhook_configuration"] = {"application": OURS}
    account.refresh_from_db()
    return account


def faults(account: ChannelAccount) -> list[str]:
    """Check the account and return what is not fine."""
    channel_accounts.check(account)
    account.refresh_from_db()
    return [each["sentence"] for each in account.findings if not each["is_fine"]]


def test_an_account_in_order_has_nothing_to_mend(meta, known):
    assert faults(known) == []
    assert [each["sentence"] for each in known.findings] == [
        "The credentials are accepted: The shop +250788123200.",
        "The number is connected.",
        "Meta delivers to this address.",
        "1 app hears the WhatsApp Business account.",
    ]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"status": "DISCONNECTED"}, "The number is disconnected: register it in WhatsApp Manager"),
        ({"status": "SOMETHING_NEW"}, "The number is something new: see WhatsApp Manager."),
        ({"quality_rating": "RED"}, "People's rating of the number is red"),
        ({"name_status": "DECLINED"}, "declined the number's display name"),
        ({"webhook_configuration": {"application": ""}}, "Meta has no address to deliver to"),
        ({"webhook_configuration": {"application": "https://old.example/hook"}}, "Meta delivers to another address"),
        (
            {"webhook_configuration": {"application": OURS, "phone_number": "https://old.example/hook"}},
            "Meta delivers to another address",
        ),
    ],
)
def test_each_fault_is_a_sentence_that_says_what_to_do(meta, known, state, words):
    meta.state |= state
    [fault] = faults(known)
    assert words in fault


def test_without_a_subscribed_app_meta_delivers_nothing(meta, known):
    meta.subscribed.clear()
    [fault] = faults(known)
    assert "Meta delivers nothing: subscribe your app" in fault
    meta.subscribed[:] = [{"override_callback_uri": "https://old.example/hook"}]
    [fault] = faults(known)
    assert "none is ours" in fault


def test_an_unknown_business_account_and_an_address_without_https_are_faults_too(meta, account, settings):
    settings.PUBLIC_BASE_URL = "http://127.0.0.1:8000"
    assert [each.partition(":")[0] for each in faults(account)] == [
        "Providers deliver to https addresses alone",
        "Whether Meta delivers the number's messages cannot be asked yet",
    ]


def test_what_cannot_be_asked_is_said(meta, known):
    meta.subscribed.clear()
    ChannelAccount.objects.update(business_id="999")
    known.refresh_from_db()
    [fault] = faults(known)
    assert fault.startswith("The rest could not be asked: ")


def test_a_page_must_be_subscribed(page, shop):
    account = ChannelAccount.objects.get(provider="messenger")
    assert "No app hears the page" in faults(account)[0]
    page.subscribed[:] = ["messages"]
    assert "not subscribed to messaging_postbacks" in faults(account)[0]
    page.subscribed[:] = ALL_FIELDS
    assert faults(account) == []


def test_360dialog_says_where_it_delivers(shop):
    with FakeDialog360() as dialog:
        account = account_at(dialog, shop)
        assert "360dialog has no address to deliver to" in faults(account)[0]
        dialog.registered = OURS
        assert faults(account) == []


def test_the_page_shows_the_address_to_paste_and_what_was_found(meta, known, shop):
    staff = sign_in("mona", shop, "manager")
    address = f"/admin/conversations/channelaccount/{known.pk}"
    before = staff.get(f"{address}/change/").content.decode()
    assert OURS in before
    assert "with the verify token in Meta" in before
    assert "Not checked yet" in before
    meta.subscribed.clear()
    answer = staff.post(f"{address}/check/", follow=True).content.decode()
    assert "To be mended: No app hears the WhatsApp Business account" in answer
    assert "The number is connected." in answer


def test_refused_credentials_are_the_finding(meta, known):
    meta.access_token = "another"
    with pytest.raises(channel_accounts.ConflictError):
        channel_accounts.check(known)
    known.refresh_from_db()
    assert [each["is_fine"] for each in known.findings] == [False]
    assert "refuses the access token" in known.findings[0]["sentence"]
