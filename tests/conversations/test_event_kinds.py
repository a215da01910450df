"""Every line of the ledger that a program may want is an event, and so is every change of a contact."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.test import Client as HttpClient
from django.urls import reverse
from django.utils import timezone

from channels_out.events import AddressChange
from channels_out.kinds import AddressKind
from conversations.models import Client, Contact, ContactIdentity, Conversation, EventKind, EventNote
from conversations.services.contacts import address_changes, contacts_bulk
from conversations.services.core.ledger import Actor
from conversations.services.core.person import Person
from conversations.services.desk import notes, states
from conversations.services.events.kinds import OF_LEDGER
from conversations.services.retention import holds
from tests.conftest import Door
from tests.conversations.test_events_feed import read

# Lines that are no events, and why.
NO_EVENTS = {
    "sent": "its message is an event",
    "disclosed": "its message is an event",
    "help_answered": "its message is an event",
    "rating_asked": "its message is an event",
    "rating_why_asked": "its message is an event",
    "fallback_said": "its message is an event, and so is needs_staff",
    "recalled": "what a model was given",
    "chat_opened": "of the engine's own chat",
    "chat_ended": "of the engine's own chat",
    "chat_analyzed": "of the engine's own chat",
    "chat_replaced": "of the engine's own chat",
    "account_broken": "of the account; the messages that wait are events",
    "memory_deleted": "retention, of what was in no event",
    "exported": "what staff did, which the audit log keeps",
}


def recorded() -> Iterator[str]:
    """The words with which the services write lines, as far as they stand in the code as such."""
    for path in Path(settings.BASE_DIR / "conversations" / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "id", getattr(node.func, "attr", ""))
            place = {"record": 1, "record_in": 2, "_note": 1, "events_sql": 0}.get(name)
            if place is not None and len(node.args) > place:
                for part in ast.walk(node.args[place]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str) and part.value.isidentifier():
                        yield part.value


def test_every_line_is_an_event_or_has_a_reason_to_be_none() -> None:
    words = set(recorded())
    assert {"opened", "labelled", "assigned_to", "snoozed", "noted", "remembered"} <= words, "the search finds them"
    whole = {word for word in words if not (word.startswith("_") or word.endswith("_"))}
    assert whole - OF_LEDGER.keys() - NO_EVENTS.keys() == set()
    assert not OF_LEDGER.keys() & NO_EVENTS.keys()


def test_the_description_has_each_kind(server: Any) -> None:
    description = server.call("GET", "/schema/").json
    assert description["webhooks"].keys() == set(EventKind.values)


@pytest.mark.django_db
def test_what_staff_do_at_the_desk_is_told_without_their_words(door: Door, shop: Client) -> None:
    door.says("Hello")
    pk, now = Conversation.objects.get().pk, timezone.now()
    user = get_user_model().objects.create_user("maria", is_staff=True)
    actor = Actor("staff", "maria", user.pk)
    told: dict[str, Any] = {"actor": actor, "now": now, "client": shop}
    label = states.add_label(pk, "urgent", **told)
    states.remove_label(pk, label.pk, **told)
    states.assign(pk, user.pk, **told)
    states.set_priority(pk, 2, **told)
    states.snooze(pk, now + timedelta(hours=1), **told)
    states.wake(pk, **told)
    notes.add_note(pk, "They sounded heliotrope", **told)
    found = [(each["type"], each["data"].get("what")) for each in read(door)]
    assert found[2:] == [
        ("conversation.labelled", "labelled"),
        ("conversation.labelled", "unlabelled"),
        *(("conversation.changed", what) for what in ("assigned_to", "prioritised", "snoozed", "woken", "noted")),
    ]
    assert "heliotrope" not in str(read(door))


# --- contacts ---------------------------------------------------------------------------------------------------------
def changes(door: Door) -> list[dict[str, Any]]:
    return [each["data"] for each in read(door, types="contact.changed")]


@pytest.fixture
def person(shop: Client) -> Contact:
    """A contact who has no conversation, whose ledger would tell of them."""
    contact = Contact.objects.create(client=shop, user_id="ann", phone="+51999999999", is_guest=False)
    ContactIdentity.objects.create(
        contact=contact, client=shop, channel="whatsapp", kind="phone", address="51999999999"
    )
    return contact


@pytest.mark.django_db
def test_what_managers_change_on_a_contacts_page_is_told(door: Door, manager: HttpClient, person: Contact) -> None:
    page = reverse("admin:conversations_contact_change", args=[person.pk])
    for reason in ("A lawsuit", "A lawsuit", ""):
        assert manager.post(page, {"hold_reason": reason}).status_code == 302
    for action in ("opt-out", "opt-in"):
        manager.post(f"{page.removesuffix('change/')}{action}/", {"channel": "sms", "reason": "told us"})
    assert [each["changed"] for each in changes(door)] == [["hold"], ["hold"], ["opted_out"], ["opted_out"]]
    assert {each["contact_id"] for each in changes(door)} == {str(person.pk)}
    assert "lawsuit" not in str(EventNote.objects.values())


@pytest.mark.django_db
def test_contacts_that_come_in_bulk_are_told_as_those_that_come_alone(door: Door, shop: Client) -> None:
    named = Person(address="51900000001", kind=AddressKind.PHONE, phone="+51900000001", name="Ann")
    unnamed = Person(address="psid-2", kind=AddressKind.PSID)
    contacts_bulk.find_or_create_many(shop, "whatsapp", [named, unnamed])
    ann = Contact.objects.get(name="Ann")
    assert changes(door) == [{"contact_id": str(ann.pk), "changed": ["phone", "is_guest", "name"]}]
    contacts_bulk.find_or_create_many(shop, "whatsapp", [named, unnamed])
    assert len(changes(door)) == 1


@pytest.mark.django_db
def test_another_number_is_told(door: Door, shop: Client, person: Contact) -> None:
    moved = AddressChange(before="51999999999", after="51988888888", kind=AddressKind.PHONE)
    address_changes.change_address(shop, "whatsapp", moved)
    assert changes(door) == [{"contact_id": str(person.pk), "changed": ["address"]}]


@pytest.mark.django_db
def test_a_hold_that_changes_nothing_is_not_told(door: Door, person: Contact) -> None:
    holds.set_contact_hold(person.client_id, person.pk, "")
    assert changes(door) == []
