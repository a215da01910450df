"""An agent approves one call of a tool and says what became of another, in a real browser."""

from __future__ import annotations

import os

import pytest
from playwright.sync_api import expect

from conversations.models import Conversation, ToolCall
from tests.browser.test_transcript import sign_in
from tests.conftest import Door, reply_to_all

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_an_agent_approves_a_call_and_settles_another_without_loading_the_page_again(page, shop, key):
    Door(shop, key).says("I want my money back", phone="+51999999999", name="Ann")
    reply_to_all()
    session = Conversation.objects.get()
    common = {"client": shop, "conversation": session, "arguments": {"order": "4711", "amount": 20}}
    ToolCall.objects.create(**common, name="refund", key="a" * 64, status="waiting")
    ToolCall.objects.create(**common, name="charge_card", key="b" * 64, status="unknown", code="timeout")
    sign_in(page, name="agnes", shop=shop, role="agent")
    page.goto(f"/admin/conversations/conversation/{session.pk}/change/")
    request = page.get_by_label("Tool refund")
    expect(request).to_contain_text("The assistant wants to call “refund”")
    expect(request).to_contain_text('"order": "4711"')
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/tool-requests.png")

    request.get_by_label("Reason").fill("within the rules")
    request.get_by_role("button", name="Approve").click()
    expect(page.get_by_text("The call is approved.")).to_be_visible()
    expect(request).to_have_count(0)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_label("Tool charge_card").get_by_role("button", name="It was not done").click()
    expect(page.get_by_label("Tool charge_card")).to_have_count(0)
    calls = page.locator("[data-section=calls]")
    calls.get_by_text("Tool calls (2)").click()
    expect(calls).to_contain_text("approved, about to be made")
    expect(calls).to_contain_text("within the rules")
    assert set(ToolCall.objects.values_list("status", flat=True)) == {"approved", "failed"}
    assert page.faults == []
    assert page.outside == []
