"""What staff say of a person: edited by agents, kept against the channel, told to models, found, merged, forgotten."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from conversations.admin.access import Role
from conversations.models import (
    Client,
    Contact,
    ContactIdentity,
    ContactMatch,
    Conversation,
    EventNote,
    StaffAction,
    Turn,
)
from conversations.services.contacts import details
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.desk import finding
from conversations.services.export import person as export
from conversations.services.retention import erasure
from conversations.services.staff_actions import edit_contact, merge_contacts
from tests import factories
from tests.conftest import Door, reply_to_all
from tests.conversations.meta_doors import account_at, post
from tests.conversations.staff import signed_in, staff
from tests.fakes.meta import FakeMeta
from tests.races.threads import outcomes

pytestmark = pytest.mark.django_db


@pytest.fixture
def agnes(shop: Client) -> Any:
    """The browser of an agent of the shop."""
    return signed_in(staff("agnes", shop=Role.AGENT))


@pytest.fixture
def ann(shop: Client) -> Contact:
    """A person of whom the channel says one name."""
    return factories.ContactFactory(client=shop, user_id="ann-1", name="annie99")


def save(http: Any, contact: Contact, before: Any = None, **fields: Any) -> tuple[int, Any]:
    """Post the form as a browser does whose page was loaded before, and return the status and the answer."""
    seen = details.values_of(contact) if before is None else before
    whole = {name: seen.get(name, "") for name in ("name", "phone", "email", "language")} | {
        "key": [name.removeprefix("attribute:") for name in seen if name.startswith("attribute:")],
        "value": [value for name, value in seen.items() if name.startswith("attribute:")],
    }
    address = reverse("admin:conversations_contact_person", args=[contact.pk])
    answer = http.post(address, {**whole, "before": json.dumps(seen), **fields})
    return answer.status_code, answer.json() if "json" in answer.headers["Content-Type"] else {}


# --- what is edited ---------------------------------------------------------------------------------------------------
def test_an_agent_edits_everything_that_is_the_staffs(agnes: Any, ann: Contact, shop: Client) -> None:
    status, body = save(
        *(agnes, ann),
        name=" Ann   Lee ",
        phone="+51 999 000 111",
        email="Ann.Lee@Example.com",
        language="es",
        key=["Customer number", "", "Plan"],
        value=["4711", "", "gold"],
    )
    assert (status, body["said"]) == (200, "The person is saved.")
    ann.refresh_from_db()
    assert (str(ann), ann.name, ann.phone, ann.is_guest) == ("Ann Lee", "annie99", "+51999000111", False)
    assert (ann.email, ann.language) == ("ann.lee@example.com", "es")
    assert ann.attributes == {"Customer number": "4711", "Plan": "gold"}
    [note] = EventNote.objects.filter(kind="contact.changed")
    assert note.data["contact_id"] == str(ann.pk)
    assert set(note.data["changed"]) == {"name", "phone", "is_guest", "email", "language", "attributes"}
    [entry] = StaffAction.objects.filter(object_type="contact")
    assert entry.verb == "edited"
    assert "example.com" not in json.dumps(entry.changes), "the audit log keeps what changed, and not to what"

    assert save(agnes, ann)[1]["said"] == "Nothing changed."
    assert save(agnes, ann, key=["Plan"], value=["silver"])[0] == 200
    ann.refresh_from_db()
    assert ann.attributes == {"Plan": "silver"}, "an attribute that the form has no more is deleted"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"phone": "call me"}, "phone number"),
        ({"phone": "12"}, "phone number"),
        ({"email": "ann at home"}, "e-mail"),
        ({"email": "a" * 250 + "@example.com"}, "e-mail"),
        ({"language": "klingon"}, "language"),
        ({"name": "x" * 201}, "name"),
        ({"key": [f"key {n}" for n in range(31)], "value": ["x"] * 31}, "attributes"),
        ({"key": ["x" * 41], "value": ["x"]}, "attribute"),
        ({"key": ["Plan"], "value": ["x" * 501]}, "attribute"),
        ({"key": [""], "value": ["a value alone"]}, "attribute"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(agnes: Any, ann: Contact, fields: Any, said: str) -> None:
    status, body = save(agnes, ann, **{"name": "Ann Lee", **fields})
    assert status == 409
    assert said in body["said"]
    assert Contact.objects.get(client=ann.client_id, pk=ann.pk).staff_name == ""


def test_viewers_and_other_clients_staff_do_not_edit(ann: Contact, shop: Client, neighbour: Client) -> None:
    viewer = signed_in(staff("vera", shop=Role.VIEWER))
    assert save(viewer, ann, name="Mine")[0] == 403
    foreign = signed_in(staff("frank", **{neighbour.sub_domain: Role.MANAGER}))
    assert save(foreign, ann, name="Mine")[0] == 404
    assert foreign.get(reverse("admin:conversations_contact_person", args=[ann.pk])).status_code == 405
    ann.refresh_from_db()
    assert str(ann) == "annie99"
    page = viewer.get(reverse("admin:conversations_contact_change", args=[ann.pk])).content.decode()
    assert "data-person" not in page


def test_the_page_of_a_person_reads_no_payloads_and_counts_once(agnes: Any, ann: Contact) -> None:
    with CaptureQueriesContext(connection) as asked:
        assert agnes.get(reverse("admin:conversations_contact_change", args=[ann.pk])).status_code == 200
    statements = [each["sql"] for each in asked.captured_queries]
    assert not [each for each in statements if "inbound_events" in each], "they are as many as were ever received"
    assert len([each for each in statements if 'COUNT(*) AS "__count" FROM "contact_identities"' in each]) == 1
    assert len(statements) <= 45


def test_hostile_fields_change_nothing_else(agnes: Any, ann: Contact) -> None:
    address = reverse("admin:conversations_contact_person", args=[ann.pk])
    for before in ("", "[]", "null", "{" * 900, json.dumps({"name": 7, "phone": ["x"]})):
        assert agnes.post(address, {"before": before, "hold_reason": "x", "is_guest": "no"}).status_code == 200
    assert save(agnes, ann, name="<script>alert(1)</script>\x00")[0] == 200
    ann.refresh_from_db()
    assert (ann.hold_reason, ann.is_guest) == ("", True)
    assert ann.staff_name == "<script>alert(1)</script>"
    page = agnes.get(reverse("admin:conversations_contact_change", args=[ann.pk])).content.decode()
    assert "<script>alert(1)" not in page


def test_card_numbers_are_not_kept_of_people_either(agnes: Any, ann: Contact) -> None:
    assert save(agnes, ann, key=["Paid with"], value=["4111 1111 1111 1111"])[0] == 200
    ann.refresh_from_db()
    assert "4111" not in str(ann.attributes)


# --- the channel and the staff ----------------------------------------------------------------------------------------
def test_the_name_by_staff_stays_whatever_the_channel_says(meta: FakeMeta, shop: Client, agnes: Any) -> None:
    account_at(meta, shop)
    post(meta.text_webhook("Hello", message_id="wamid.1", name="annie99"), "whatsapp")
    person = Contact.objects.get(client=shop)
    assert save(agnes, person, name="Ann Lee")[0] == 200
    post(meta.text_webhook("Again", message_id="wamid.2", name="ANNIE ☀"), "whatsapp")
    person.refresh_from_db()
    assert (str(person), person.name) == ("Ann Lee", "annie99")


def test_a_message_of_a_renamed_person_is_still_one_statement(door: Door, agnes: Any) -> None:
    door.says("Hello", user_id="ann", name="annie99")
    person = Contact.objects.get(user_id="ann")
    save(agnes, person, name="Ann Lee", email="ann@example.com", language="es", key=["Plan"], value=["gold"])
    with CaptureQueriesContext(connection) as asked:
        door.says("Again", user_id="ann", name="annie99")
    appended = [each["sql"] for each in asked if "conversations" in each["sql"]]
    assert len(appended) <= 1, appended
    person.refresh_from_db()
    assert (person.staff_name, person.name) == ("Ann Lee", "annie99")
    door.says("I married", user_id="ann", name="Ann Smith")
    person.refresh_from_db()
    assert (str(person), person.name) == ("Ann Lee", "Ann Smith"), "the programs' name is kept, and not shown"


def test_a_name_that_is_deleted_leaves_the_channels(agnes: Any, ann: Contact) -> None:
    save(agnes, ann, name="Ann Lee")
    ann.refresh_from_db()
    assert save(agnes, ann, name="")[0] == 200
    ann.refresh_from_db()
    assert (ann.staff_name, str(ann)) == ("", "annie99")


def test_the_number_of_a_channel_is_not_edited(agnes: Any, ann: Contact, shop: Client) -> None:
    Contact.objects.filter(client=shop, pk=ann.pk).update(phone="+51999000111", is_guest=False)
    ContactIdentity.objects.create(contact=ann, client=shop, channel="whatsapp", kind="phone", address="51999000111")
    ann.refresh_from_db()
    page = agnes.get(reverse("admin:conversations_contact_change", args=[ann.pk])).content.decode()
    assert "The number belongs to WhatsApp" in page
    assert 'name="phone"' not in page.partition("data-person")[2].partition("</form>")[0]
    status, body = save(agnes, ann, phone="+51999000222")
    assert (status, "address on a channel" in body["said"]) == (409, True)
    assert save(agnes, ann, phone="")[0] == 409


# --- another contact has it -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("theirs", "entered"),
    [
        ({"phone": "+5511987654321", "is_guest": False}, {"phone": "+55 11 8765-4321"}),  # a mobile of before 2012
        ({"email": "ann@example.com"}, {"email": "ANN@example.com"}),
    ],
)
def test_what_another_contact_has_leads_to_merging(
    agnes: Any, ann: Contact, shop: Client, theirs: Any, entered: Any
) -> None:
    other = factories.ContactFactory(client=shop, user_id="other", name="Anita", **theirs)
    status, body = save(agnes, ann, name="Ann Lee", **entered)
    assert status == 409
    assert "Anita has this" in body["said"]
    match = ContactMatch.objects.get(client=shop)
    assert {match.first_id, match.second_id} == {ann.pk, other.pk}
    assert body["merge"] == reverse("admin:conversations_contactmatch_change", args=[match.pk])
    assert "a colleague entered" in agnes.get(body["merge"]).content.decode()
    assert save(agnes, ann, **entered)[1]["merge"] == body["merge"], "the pair is noted once"
    ann.refresh_from_db()
    assert (ann.phone, ann.email, ann.staff_name) == (None, "", "")


def test_a_number_from_which_another_writes_is_theirs(agnes: Any, ann: Contact, shop: Client) -> None:
    other = factories.ContactFactory(client=shop, user_id="other", name="Anita")
    ContactIdentity.objects.create(contact=other, client=shop, channel="whatsapp", kind="phone", address="51999000111")
    status, body = save(agnes, ann, phone="+51999000111")
    assert (status, "Anita has this phone" in body["said"]) == (409, True)


def test_other_clients_people_do_not_matter(agnes: Any, ann: Contact, neighbour: Client) -> None:
    factories.ContactFactory(client=neighbour, email="ann@example.com", phone="+51999000111", is_guest=False)
    assert save(agnes, ann, email="ann@example.com", phone="+51999000111")[0] == 200


# --- two at once ------------------------------------------------------------------------------------------------------
def test_the_second_of_two_colleagues_is_told_and_nothing_is_lost(agnes: Any, ann: Contact) -> None:
    seen = details.values_of(ann)
    assert save(agnes, ann, seen, name="Ann Lee", key=["Plan"], value=["gold"])[0] == 200
    status, body = save(agnes, ann, seen, name="Anne Leigh", email="ann@example.com")
    assert status == 409
    assert body["now"] == {"name": "Ann Lee"}
    assert "“Ann Lee”" in body["said"]
    ann.refresh_from_db()
    assert (ann.staff_name, ann.email, ann.attributes) == ("Ann Lee", "", {"Plan": "gold"})
    status, _ = save(agnes, ann, seen, email="ann@example.com", key=["Seat"], value=["12"])
    assert status == 200, "what the first left alone is saved"
    ann.refresh_from_db()
    assert (ann.staff_name, ann.email) == ("Ann Lee", "ann@example.com")
    assert ann.attributes == {"Plan": "gold", "Seat": "12"}, "an attribute that the form never showed stays"
    assert save(agnes, ann, {**seen, **body["now"]}, name="Anne Leigh")[0] == 200, "knowing it, they may overwrite it"
    ann.refresh_from_db()
    assert ann.staff_name == "Anne Leigh"


@pytest.mark.django_db(transaction=True)
def test_of_two_who_enter_one_address_for_two_people_one_is_refused(shop: Client) -> None:
    people = [factories.ContactFactory(client=shop, user_id=f"person-{n}") for n in range(6)]

    def enter(contact: Contact, **wanted: str) -> Any:
        return lambda: edit_contact.edit(contact.pk, wanted, {}, client=shop)

    results = outcomes([enter(each, email="same@example.com") for each in people])
    assert len([each for each in results if not isinstance(each, Exception)]) == 1, results
    assert all(getattr(each, "code", "taken") == "taken" for each in results), results
    results = outcomes([enter(each, phone="+51999000111") for each in people])
    assert len([each for each in results if not isinstance(each, Exception)]) == 1, results
    assert Contact.objects.filter(client=shop, phone="+51999000111").count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_who_name_one_person_at_once_one_decides(ann: Contact, shop: Client) -> None:
    before = details.values_of(ann)
    jobs = [
        lambda number=number: edit_contact.edit(ann.pk, {"name": f"Name {number}"}, before, client=shop)
        for number in range(8)
    ]
    results = outcomes(jobs)
    assert len([each for each in results if not isinstance(each, Exception)]) == 1
    assert all(each.code == "changed" for each in results if isinstance(each, Exception))


# --- who knows it -----------------------------------------------------------------------------------------------------
def test_models_are_told_the_name_and_the_language_and_nothing_else(door: Door, agnes: Any) -> None:
    door.says("Hello", user_id="ann", name="annie99")
    person = Contact.objects.get(user_id="ann")
    save(agnes, person, name="Ann Lee", language="pt-br", email="ann@example.com", key=["Secret"], value=["xyzzy"])
    reply_to_all()
    prompt = json.dumps(Turn.objects.get().prompt)
    assert "Ann Lee" in prompt
    assert "Brazilian Portuguese" in prompt
    for hidden in ("annie99", "example.com", "xyzzy"):
        assert hidden not in prompt.replace("Hello", "")


def test_the_next_conversation_begins_with_them(door: Door, agnes: Any) -> None:
    door.says("Hello", user_id="ann", name="annie99")
    person = Contact.objects.get(user_id="ann")
    save(agnes, person, name="Ann Lee", language="es")
    door.says("Hello", user_id="ann", channel="whatsapp")
    memory = Conversation.objects.get(channel="whatsapp").chunks.get(position=2).content
    assert "- Name: Ann Lee" in memory
    assert "- Language: es" in memory


def test_people_are_found_by_the_name_by_staff_and_by_their_email(agnes: Any, ann: Contact, shop: Client) -> None:
    save(agnes, ann, name="Béatrice Zola", email="bea@example.com")
    for query in ("beatrice", "zola", "bea@example", "annie", "example.com"):
        assert [each.name for each in finding.people([shop.pk], query)] == ["Béatrice Zola"], query
    save(agnes, Contact.objects.get(client=shop, pk=ann.pk), email="")
    assert finding.people([shop.pk], "bea@example") == []


def test_the_inbox_shows_the_person_and_what_stands_beside_them(door: Door, agnes: Any, shop: Client) -> None:
    door.says("Hello", user_id="ann", name="annie99")
    conversation = Conversation.objects.get()
    Contact.objects.filter(client=shop).update(
        opted_out={"sms:marketing": {"since": "2026-11-01T10:00:00+00:00", "reason": "asked on the phone"}}
    )
    save(agnes, conversation.contact, name="Ann Lee", email="ann@example.com", key=["Plan"], value=["gold"])
    agnes.post(
        reverse("admin:conversations_conversation_do", args=[conversation.pk, "note"]), {"text": "Likes the blue one"}
    )
    shown = agnes.get(f"/admin/inbox/{conversation.pk}/pane/").content.decode()
    aside = shown.partition('<aside class="ib-person"')[2].partition("</aside>")[0]
    for words in ("Ann Lee", "annie99", "ann@example.com", "gold", "Likes the blue one", "asked on the phone"):
        assert words in aside, words
    assert "Nothing is known of this contact" in aside, "what the model knows"
    assert '<bdi class="ib-name">Ann Lee</bdi>' in agnes.get("/admin/inbox/").content.decode()


# --- merged, exported, erased -----------------------------------------------------------------------------------------
def test_merging_keeps_what_either_has(agnes: Any, ann: Contact, shop: Client) -> None:
    other = factories.ContactFactory(
        *(),
        client=shop,
        user_id="other",
        staff_name="Anita",
        email="anita@example.com",
        language="es",
        attributes={"Plan": "silver", "Seat": "12"},
    )
    save(agnes, ann, name="Ann Lee", key=["Plan"], value=["gold"])
    first, second = sorted((ann, other), key=lambda each: each.pk)
    match = ContactMatch.objects.create(client=shop, first=first, second=second, evidence="entered")
    merge_contacts.merge(match.pk, keep=ann.pk, actor=Actor("staff", "mona"), now=timezone.now())
    ann.refresh_from_db()
    other.refresh_from_db()
    assert (ann.staff_name, ann.email, ann.language) == ("Ann Lee", "anita@example.com", "es")
    assert ann.attributes == {"Plan": "gold", "Seat": "12"}
    assert (other.staff_name, other.email, other.language, other.attributes) == ("", "", "", {})
    status, body = save(agnes, ann, {}, name="Ann")
    assert status == 409, body  # the form was of another person
    with pytest.raises(edit_contact.ConflictError, match="merged"):
        edit_contact.edit(other.pk, {"name": "x"}, {}, client=shop)


def test_an_export_has_them_and_an_erasure_takes_them(agnes: Any, ann: Contact, shop: Client) -> None:
    save(agnes, ann, name="Ann Lee", email="ann@example.com", language="es", key=["Plan"], value=["gold"])
    ann.refresh_from_db()
    whole = b"".join(export.export(ann.pk, actor=SYSTEM, now=timezone.now(), client=shop).pieces())
    assert len(whole) > 100
    facts = export._facts(ann, timezone.now())
    assert (facts["Name"], facts["E-mail"], facts["Language"], facts["Plan"]) == (
        *("Ann Lee", "ann@example.com", "Spanish"),
        "gold",
    )
    erasure.begin(ann.pk, actor=SYSTEM, now=timezone.now())
    with connection.cursor() as cursor:
        cursor.execute("SELECT object_name || changes::text FROM staff_actions")
        assert "Ann Lee" not in str(cursor.fetchall())
    with pytest.raises(edit_contact.NotFoundError):
        edit_contact.edit(ann.pk, {"name": "x"}, {}, client=shop)


def test_a_person_who_does_not_exist_is_not_found(agnes: Any) -> None:
    assert agnes.post(reverse("admin:conversations_contact_person", args=[uuid4()]), {}).status_code == 404
