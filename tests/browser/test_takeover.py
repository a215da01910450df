"""An agent takes a session over and hands it back, in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from conversations.models import Conversation
from conversations.services.core.ledger import Actor
from conversations.services.transitions import takeover
from tests.browser.test_transcript import sign_in
from tests.conftest import Door, reply_to_all, send_all

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_an_agent_takes_over_from_the_inbox_answers_and_hands_back(page, shop, key):
    door = Door(shop, key)
    door.says("I want a human", phone="+51999999999", name="Ann")
    session = Conversation.objects.get()
    sign_in(page, name="agnes", shop=shop, role="agent")
    page.goto(f"/admin/conversations/conversation/{session.pk}/change/")
    page.get_by_label("Tell Ann").check()
    page.get_by_role("button", name="Take over").click()
    expect(page.get_by_text("You have this conversation.")).to_be_visible()
    expect(page.locator("[data-holder]")).to_contain_text("agnes")
    expect(page.locator(".cv-ours .cv-text").last).to_have_text("A colleague will take it from here.")
    assert reply_to_all() == 0

    page.goto("/admin/conversations/conversation/?waits=person")
    expect(page.locator("#result_list")).to_contain_text("agnes")
    page.locator("#result_list tbody").get_by_role("link", name="Ann").first.click()
    page.get_by_label("Reply").fill("I am human.")
    page.get_by_role("button", name="Send", exact=True).click()
    expect(page.locator(".cv-ours .cv-text").last).to_have_text("I am human.")
    takeover.take_over(session.pk, actor=Actor("staff", "max"), now=session.last_message_at, from_colleague=True)
    expect(page.get_by_text("max has this conversation.")).to_be_visible()
    page.get_by_role("button", name="Hand back to the assistant").click()
    expect(page.get_by_text("The assistant replies here.")).to_be_visible()
    door.says("Thanks")
    assert reply_to_all() == 1
    send_all()
    assert page.faults == []
    assert page.outside == []
