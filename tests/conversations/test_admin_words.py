"""The words that staff read in the back office: nothing internal, real names, and a menu for their work."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib import admin
from django.urls import reverse

from conversations.admin.access import Role
from conversations.admin.base import ClientScopedAdmin
from conversations.models import Client, Contact, Conversation
from tests.conftest import Door
from tests.conversations.back_office import page_of
from tests.conversations.staff import signed_in, staff, superuser

pytestmark = pytest.mark.django_db

ADDED = [page for page in admin.site._registry.values() if isinstance(page, ClientScopedAdmin) and page.add_role]


@pytest.mark.parametrize("page", ADDED, ids=lambda page: page.opts.model_name)
def test_a_form_to_add_shows_nothing_internal(page: Any, shop: Client) -> None:
    path = reverse(f"admin:{page.opts.app_label}_{page.opts.model_name}_add")
    shown = signed_in(superuser()).get(path, follow=True).content.decode()
    assert "DatabaseDefault" not in shown
    assert "Created at" not in shown


def test_a_no_is_no_alarm_and_what_destroys_is_red(door: Door, shop: Client) -> None:
    door.says("Hello", phone="+51999888777")
    contact = Contact.objects.get()
    http = signed_in(staff("mona", shop=Role.MANAGER))
    page = http.get(reverse("admin:conversations_contact_change", args=[contact.pk])).content.decode()
    assert 'title="No"' in page
    assert 'title="False"' not in page
    erase = http.get(f"/admin/conversations/contact/{contact.pk}/erase/").content.decode()
    export = http.get(f"/admin/conversations/contact/{contact.pk}/export/").content.decode()
    assert "bg-red-600" in erase
    assert "bg-red-600" not in export


def test_a_contact_leads_to_their_conversations(door: Door, shop: Client) -> None:
    door.says("Hello", channel="whatsapp", phone="+51999888777")
    conversation = Conversation.objects.get()
    http = signed_in(staff("agnes", shop=Role.AGENT))
    page = http.get(reverse("admin:conversations_contact_change", args=[conversation.contact_id])).content.decode()
    assert reverse("inbox:open", args=[conversation.pk]) in page
    assert "WhatsApp, active" in page
    assert "on WhatsApp" in http.get(page_of(conversation)).content.decode()


@pytest.mark.parametrize(("role", "has_settings"), [(Role.VIEWER, False), (Role.AGENT, False), (Role.MANAGER, True)])
def test_the_menu_is_for_the_work_that_one_does(shop: Client, role: str, has_settings: bool) -> None:
    groups = signed_in(staff("ann", shop=role)).get("/admin/").context["sidebar_navigation"]
    names = [item["title"] for group in groups for item in group["items"]]
    assert {"Inbox", "Conversations", "Contacts"} <= {*names}
    assert ("Assistants" in names) == ("Audit log" in names) == has_settings
