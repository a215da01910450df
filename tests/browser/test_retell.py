"""Both of Retell's flows, with a person at the back office and an agent at the other end of real HTTP."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from conversations.admin.access import Role
from conversations.models import Contact
from tests.browser.test_back_office import sign_in, stayed_at_home
from tests.conftest import Door, reply_to_all, send_all
from tests.conversations.retell_shop import answers_by_retell
from tests.conversations.staff import staff
from tests.fakes.retell import FakeRetell, agent

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]


def test_an_agent_greets_whom_we_write_to_and_goes_on_when_they_answer(page, shop, key, settings):
    with FakeRetell() as fake:
        answers_by_retell(shop, settings, fake)
        fake.answers = lambda chat, content: [agent(f"{chat.variables['customer_name']}, {content}?")]
        staff("ann", shop=Role.MANAGER)
        sign_in(page, "ann")
        page.goto("/admin/conversations/conversation/")
        page.get_by_role("link", name="Write to a contact").click()
        page.locator("#id_channel").select_option("whatsapp")
        page.locator("#id_phone").fill("+51 999 888 777")
        page.locator("#id_name").fill("Ana")
        page.locator("#id_variables").fill("customer_name = Ana\ndebt_amount = 120.50\ndue_date = 2026-12-01")
        page.get_by_role("button", name="Open the conversation").click()
        expect(page.get_by_text("waits for a reply")).to_be_visible()
        reply_to_all()
        send_all()
        expect(page.locator(".cv-ours .cv-text")).to_have_text("Ana, Hola?")
        expect(page.locator(".cv-ours .cv-delivery")).to_have_text("delivered")

        Door(shop, key).says("No puedo", channel="whatsapp", user_id=Contact.objects.get().user_id)
        reply_to_all()
        send_all()
        expect(page.locator(".cv-ours .cv-text").last).to_have_text("Ana, No puedo?")
        assert len(fake.chats) == 1
        page.get_by_role("link", name="What the model was given").last.click()
        expect(page.locator(".cr-parts .cr-text")).to_have_text(["No puedo"])
        stayed_at_home(page)
