"""Staff send a template and look at an account's checks, in a real browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.utils import timezone
from playwright.sync_api import expect

from channels_out.simulators import whatsapp
from conversations.models import Assistant, ChannelAccount, Conversation, Message
from conversations.services.delivery import template_catalogue
from conversations.services.tenants import channel_accounts
from tests.browser.test_transcript import sign_in
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.meta_doors import account_at, post
from tests.fakes.meta import FakeMeta

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]
SHOTS = os.environ.get("SHOTS", "")  # a directory for pictures of each page


@pytest.fixture
def meta() -> Iterator[FakeMeta]:
    """Meta's Graph API."""
    with FakeMeta() as fake:
        yield fake


@pytest.fixture
def account(meta: FakeMeta, shop) -> ChannelAccount:
    """The shop's number, with templates in several states."""
    ChannelAccount.objects.filter(client=shop, channel="whatsapp").delete()
    account = account_at(meta, shop)
    ChannelAccount.objects.filter(pk=account.pk).update(business_id=whatsapp.BUSINESS_ACCOUNT)
    account.refresh_from_db()
    meta.templates[:] = [
        whatsapp.template(
            "order_update",
            "Hello {{1}}, your order {{2}} is on its way.",
            header={"format": "IMAGE"},
            footer="The shop",
            buttons=[
                {"type": "URL", "text": "Track it", "url": "https://shop.example/{{1}}"},
                {"type": "QUICK_REPLY", "text": "Where is it?"},
            ],
        ),
        whatsapp.template("news", "We have news for you: {{1}}", status="PAUSED", quality="RED", category="MARKETING"),
        whatsapp.template("greeting", "Hello again! " * 12, category="MARKETING"),
    ]
    template_catalogue.refresh(account, timezone.now())
    channel_accounts.check(account)
    return account


def shoot(page, name: str) -> None:
    """Take pictures wide and narrow, light and dark."""
    if not SHOTS:
        return
    for width in (1280, 390):
        for theme in ("light", "dark"):
            page.set_viewport_size({"width": width, "height": 900})
            page.evaluate(f"document.documentElement.classList.toggle('dark', {str(theme == 'dark').lower()})")
            page.screenshot(path=str(Path(SHOTS) / f"{name}-{width}-{theme}.png"), full_page=True)
    page.set_viewport_size({"width": 1280, "height": 900})


def test_staff_send_a_template_from_the_transcript(page, meta, account, shop, key):
    Assistant.objects.filter(client=shop).update(disclosure="You are writing with an AI assistant of the shop.")
    post(meta.text_webhook("Where is my order?"), "whatsapp")
    reply_to_all()
    send_all()
    session = Conversation.objects.get()
    body = {"content": "Which size?", "choices": ["Small", {"title": "Very large", "description": "for four"}]}
    Door(shop, key).call("POST", f"/conversations/{session.pk}/send", body)
    send_all()
    sign_in(page, shop=shop)
    page.goto(f"/admin/conversations/conversation/{session.pk}/change/")
    expect(page.locator(".cv-choices li")).to_have_text(["Small", "Very large"])
    page.get_by_role("link", name="Send a template").click()
    expect(page.get_by_text("WhatsApp has paused this template")).to_be_visible()
    shoot(page, "templates-list")
    page.get_by_role("link", name="order_update").click()
    shoot(page, "template-form")
    page.get_by_label("Image of the header").fill("https://shop.example/van.jpg")
    page.get_by_label("Variable 1").fill("Ana")
    page.get_by_label("Variable 2").fill("4711")
    page.get_by_label("Button 1").fill("4711")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".cv-ours .cv-text").last).to_contain_text("Hello Ana, your order 4711 is on its way.")
    send_all()
    expect(page.get_by_text("template order_update: sent")).to_be_visible()
    shoot(page, "transcript")
    assert Message.objects.filter(template="order_update en_US", status="sent").count() == 1
    assert (page.outside, page.faults) == ([], [])


def test_the_account_s_page_shows_the_address_and_what_was_found(page, meta, account, shop):
    sign_in(page, shop=shop)
    page.goto(f"/admin/conversations/channelaccount/{account.pk}/change/")
    expect(page.get_by_text("/webhooks/whatsapp/inbound").first).to_be_visible()
    expect(page.get_by_text("No app hears the WhatsApp Business account").first).to_be_visible()
    shoot(page, "account")
    page.goto("/admin/conversations/messagetemplate/")
    expect(page.get_by_role("link", name="order_update")).to_be_visible()
    shoot(page, "catalogue")
    page.goto("/admin/conversations/conversation/new/")
    shoot(page, "outreach")
    assert (page.outside, page.faults) == ([], [])
