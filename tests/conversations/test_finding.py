"""Finding people by parts of names, phones and addresses, and conversations by labels and words said."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from conversations.admin.access import Role
from conversations.models import Client, Contact, Conversation, ConversationLabel, Label
from conversations.services.core.sql import row
from conversations.services.desk import finding
from tests import factories
from tests.conftest import Door
from tests.conversations.staff import signed_in, staff

pytestmark = pytest.mark.django_db

PEOPLE = {
    "María Fernández": ("+51987654321", "maria.f@example.com"),
    "JOSÉ NÚÑEZ": ("+51911122233", "user-1"),
    "Łukasz Øster": (None, "user-2"),
    "Straße Weiß": (None, "user-3"),
    "Ёлка Йод": (None, "user-4"),
    "Ὀδυσσεύς": (None, "user-5"),
    "王伟": (None, "user-6"),
    "مَرْيَم": (None, "user-7"),
    "Li Wu": (None, "user-8"),
    "Мария": (None, "user-9"),
}


@pytest.fixture
def people(shop: Client) -> Client:
    """The shop, and the people above."""
    for name, (phone, user_id) in PEOPLE.items():
        factories.ContactFactory(client=shop, name=name, phone=phone, user_id=user_id, is_guest=phone is None)
    return shop


def found(shop: Client, query: str) -> list[str]:
    return [each.name for each in finding.people([shop.pk], query)]


@pytest.mark.parametrize(
    ("query", "name"),
    [
        *[(name, name) for name in PEOPLE],
        *[(name.upper(), name) for name in PEOPLE],
        ("maria", "María Fernández"),
        ("fernandez maria", "María Fernández"),
        ("ernánd", "María Fernández"),
        ("example.com", "María Fernández"),
        ("maria.f@ex", "María Fernández"),
        ("6543", "María Fernández"),
        ("987 654-321", "María Fernández"),
        ("+51 (987) 654 321", "María Fernández"),
        ("nunez", "JOSÉ NÚÑEZ"),
        ("lukasz", "Łukasz Øster"),
        ("oster", "Łukasz Øster"),
        ("strasse weiss", "Straße Weiß"),
        ("елка", "Ёлка Йод"),
        ("οδυσσευσ", "Ὀδυσσεύς"),
        ("مريم", "مَرْيَم"),
        ("li", "Li Wu"),
        ("王", "王伟"),
        ("ма", "Мария"),
        ("ma", "María Fernández"),
    ],
)
def test_a_part_finds_the_person_in_any_case_and_without_accents(people: Client, query: str, name: str) -> None:
    assert name in found(people, query)


@pytest.mark.parametrize("query", ["", " ", "x", "zzz", "6544", "maria nunez", "%", "' OR true", "\x00", "🙂" * 300])
def test_what_nobody_is_called_finds_nobody(people: Client, query: str) -> None:
    assert found(people, query) == []
    assert finding.find([people.pk], query).people == []


def test_a_contact_is_found_by_what_they_are_called_now(people: Client) -> None:
    Contact.objects.filter(name="Li Wu").update(name="Lisa Wong")
    assert (found(people, "Li Wu"), found(people, "lisa")) == ([], ["Lisa Wong"])


def test_nobody_of_another_client_is_found(people: Client, neighbour: Client) -> None:
    factories.ContactFactory(client=neighbour, name="María Zanzibar")
    assert found(people, "zanzibar") == []
    assert found(neighbour, "maria") == ["María Zanzibar"]


def test_whoever_was_merged_is_found_as_the_person_they_are(people: Client) -> None:
    person = Contact.objects.get(name="Li Wu")
    factories.ContactFactory(client=people, user_id="old-name-77", is_guest=False, merged_into=person)
    assert found(people, "old-name-77") == ["Li Wu"]


def test_the_index_is_used(people: Client) -> None:
    Contact.objects.bulk_create(
        factories.ContactFactory.build(client=people, name=f"Customer {number}") for number in range(3_000)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE contacts")
        # The statement without the lateral joins around it, as it runs for one client.
        cursor.execute(
            "EXPLAIN SELECT k.id FROM contacts k WHERE k.client_id = %s"
            " AND pieces_of_names(k.client_id, k.name, k.phone, k.user_id, k.staff_name, k.email) @>"
            " pieces_of_names(%s, 'maria') LIMIT 300",
            [people.pk, people.pk],
        )
        assert "contacts_by_pieces" in str(cursor.fetchall())


def test_a_piece_begins_with_its_client(people: Client) -> None:
    [pieces] = row("SELECT pieces_of_names($1, 'Ann')", people.pk) or ()
    begins = str(people.pk)[:8]
    assert set(pieces) == {f"{begins} a", f"{begins} an", f"{begins}ann"}


def test_the_inbox_finds_people_labels_and_words_said(door: Door, shop: Client, neighbour: Client) -> None:
    door.says("My parcel is lost", user_id="ann", name="Ann Lee", phone="+51999888777")
    door.says("Hello", user_id="bob", name="Bob")
    conversation = Conversation.objects.get(contact__user_id="bob")
    label = Label.objects.create(client=shop, name="Überfällig")
    ConversationLabel.objects.create(client=shop, conversation=conversation, label=label)
    factories.ConversationFactory(client=neighbour, contact__name="Ann Zanzibar")
    http: Any = signed_in(staff("agnes", shop=Role.AGENT))

    def shown(query: str) -> str:
        html: str = http.get("/admin/inbox/find/", {"q": query}).json()["html"]
        return html

    assert "Ann Lee" in shown("8887")
    assert "Zanzibar" not in shown("ann")
    assert "<mark>parcel</mark>" in shown("PARCEL")
    assert "Überfällig" in shown("uberfall")
    assert "Nothing is found" in shown("xyzzy")
    assert signed_in(staff("nobody")).get("/admin/inbox/find/", {"q": "ann"}).status_code == 403
