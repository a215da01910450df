"""Two contacts turn out to be one person: it is noticed, shown, and merged without losing a word."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.urls import reverse
from django.utils import timezone

from channels_out.kinds import AddressKind
from conversations.models import (
    Chunk,
    Contact,
    ContactIdentity,
    ContactMatch,
    Conversation,
    ConversationEvent,
    Erasure,
    Message,
    StaffAction,
    ToolCall,
    Turn,
)
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.ledger import SYSTEM, Actor, record
from conversations.services.core.person import Person
from conversations.services.delivery import opt_outs
from conversations.services.history import remember
from conversations.services.inbound import messages
from conversations.services.replies import leases, pipeline, tool_calls, tool_runner
from conversations.services.retention import erasure
from conversations.services.staff_actions import corrections, merge_contacts, seed_helpers
from conversations.services.transitions import closing
from memory.models import Memory
from tests.conftest import reply_to_all, send_all
from tests.conversations import tool_shop
from tests.conversations.back_office import sign_in
from tests.conversations.tool_shop import CHARGE
from tests.factories import ContactFactory, SandboxFactory
from tests.prompts import heard
from tests.races.invariants import assert_sound

pytestmark = pytest.mark.django_db

PHONE = "+51999000077"
DIGITS = PHONE.removeprefix("+")
STAFF = Actor("staff", "mona")


model, server, tool = tool_shop.model, tool_shop.server, tool_shop.tool


def arrives(shop: Any, channel: str, text: str, address: str, kind: str, **who: Any) -> None:
    """A provider's message."""
    account = SandboxFactory(client=shop, channel=channel)
    messages.settle(
        shop,
        messages.InboundText(
            channel=channel,
            person=Person(address=address, kind=kind, **who),
            text=text,
            message_id=f"{channel} {text}",
            at=timezone.now(),
            scope=str(account.pk),
            account=account,
        ),
    )


def same_phone(door: Any, **second: Any) -> ContactMatch:
    """The web shop knows Ann by phone; a second user id gains the same."""
    door.says("First, as ann", user_id="ann", phone=PHONE, name="Ann", **({"channel": "sms"} | second))
    door.says("Second, as bea", user_id="bea", **({"channel": "sms"} | second))
    door.says("Third, with a phone", user_id="bea", phone=PHONE, message_id="m3", **({"channel": "sms"} | second))
    return ContactMatch.objects.get()


def merge(match: ContactMatch, **how: Any) -> ContactMatch:
    done = merge_contacts.merge(match.pk, actor=STAFF, now=timezone.now(), **how)
    assert_sound()
    return done


def said(session: Conversation) -> list[str]:
    return list(session.chunks.filter(role__in=["user", "ai"]).order_by("position").values_list("content", flat=True))


# --- it is noticed ---------------------------------------------------------------------------------------------------
def test_a_guest_who_gains_a_known_phone_is_noted_once(door):
    match = same_phone(door)
    door.says("Again", user_id="bea", phone=PHONE)
    assert ContactMatch.objects.count() == 1
    assert {match.first.user_id, match.second.user_id} == {"ann", "bea"}
    assert (match.evidence, match.state, match.channel, match.message_id) == ("same_phone", "open", "sms", "m3")


def test_somebody_new_with_a_known_phone_is_noted_however_it_is_written(door):
    door.says("Hola", user_id="ann", phone="+5215512345678")
    door.says("Hola", user_id="bea", phone="+525512345678")
    assert ContactMatch.objects.get().evidence == "same_phone"
    door.says("Hola", user_id="cleo", phone=PHONE)
    door.says("Hola", user_id="dora")
    assert ContactMatch.objects.count() == 1


def test_a_message_that_names_addresses_of_two_is_noted(shop):
    arrives(shop, "whatsapp", "By id", "US.1", AddressKind.BSUID)
    arrives(shop, "whatsapp", "By phone", DIGITS, AddressKind.PHONE, phone=PHONE)
    assert not ContactMatch.objects.exists()
    arrives(shop, "whatsapp", "By both", DIGITS, AddressKind.PHONE, aliases=((AddressKind.BSUID, "US.1"),))
    match = ContactMatch.objects.get()
    assert (match.evidence, match.message_id) == ("same_message", "whatsapp By both")
    arrives(shop, "whatsapp", "Again", DIGITS, AddressKind.PHONE, aliases=((AddressKind.BSUID, "US.1"),))
    assert ContactMatch.objects.count() == 1

    merge(match)
    arrives(shop, "whatsapp", "Now", "US.1", AddressKind.BSUID)
    assert said(Conversation.objects.open().get())[-1] == "Now"
    assert Contact.objects.filter(merged_into=None).count() == 1


def test_a_messenger_guest_s_phone_is_somebody_s_on_whatsapp(shop, door):
    arrives(shop, "whatsapp", "By phone", DIGITS, AddressKind.PHONE, phone=PHONE)
    arrives(shop, "messenger", "By page", "PSID-1", AddressKind.PSID)
    door.says("My number", channel="messenger", user_id="PSID-1", phone=PHONE)
    match = ContactMatch.objects.get()
    assert match.evidence == "same_phone"
    merge(match)
    person = Contact.objects.get(merged_into=None)
    assert set(person.identities.values_list("channel", "address")) >= {("whatsapp", DIGITS), ("messenger", "PSID-1")}
    assert person.conversations.open().count() == 2  # on two channels they stay two


def test_phones_of_other_clients_say_nothing(door, neighbour):
    ContactFactory(client=neighbour, phone=PHONE, is_guest=False)
    door.says("Hola", user_id="bea")
    door.says("Hola", user_id="bea", phone=PHONE)
    assert not ContactMatch.objects.exists()


# --- merging ---------------------------------------------------------------------------------------------------------
def test_a_tool_call_that_is_being_made_meanwhile_keeps_its_answer(door, model, server, tool):
    door.says("1", user_id="ann", phone=PHONE)
    reply_to_all()
    door.says("2", user_id="bea")
    [claim] = leases.claim(timezone.now(), 10)
    made = tool_calls.begin(claim, tool.pk, CHARGE[1])
    door.says("3", user_id="bea", phone=PHONE)
    merge(ContactMatch.objects.get())
    recorded = tool_calls.record_result(made, tool_runner.make(made))
    call = ToolCall.objects.get()
    assert (call.status, call.conversation.status) == ("answered", "active")
    assert "R-order-1" in recorded.answer


def test_two_open_sessions_become_one_in_the_order_of_time(door, shop):
    door.says("1", user_id="ann", phone=PHONE)
    door.says("2", user_id="bea")
    reply_to_all()
    send_all()
    door.says("3", user_id="ann", message_id="m3")
    door.says("4", user_id="bea", phone=PHONE)
    seed_helpers.add_step(Conversation.objects.get(contact__user_id="bea").pk, "Call back")
    into, other = Conversation.objects.order_by("started_at")
    replied = Chunk.objects.filter(role="ai").values_list("content", flat=True)
    match = ContactMatch.objects.get()
    seen = merge_contacts.preview(match)
    assert [(a.pk, b.pk) for a, b in seen.joined] == [(into.pk, other.pk)]
    assert (seen.person.user_id, seen.alias.user_id) == ("ann", "bea")

    done = merge(match)
    assert done.moved == seen.rows
    into.refresh_from_db()
    other.refresh_from_db()
    words = said(into)
    assert [word for word in words if len(word) == 1] == ["1", "2", "3", "4"]
    assert sorted(set(words) - {"1", "2", "3", "4"}) == sorted(set(replied))
    assert list(into.chunks.order_by("position").values_list("position", flat=True)) == list(
        range(1, into.last_position + 1)
    )
    assert (other.status, other.chunks.count(), other.last_position) == ("closed", 0, 0)
    assert other.end_reason == f"Goes on in {into.pk}"
    assert (into.inbound_sequence, into.reply_owed, into.is_guest) == (4, True, False)
    assert [step.description for step in into.steps.all()] == ["Call back"]
    assert Message.objects.filter(conversation=into).count() == Message.objects.count() == 2
    joined = ConversationEvent.objects.get(kind="joined")
    assert (joined.conversation_id, joined.actor_name, joined.data["other"]) == (into.pk, "mona", str(other.pk))

    # it goes on: one reply that saw all, a duplicate that is known, and messages by either user id
    assert reply_to_all() == 1
    prompt = Turn.objects.filter(status="committed").latest("started_at").prompt["messages"]
    assert heard(prompt) == ["1", "2", "3", "4"]
    assert door.says("3", user_id="ann", message_id="m3")["duplicate"] is True
    for user_id in ("ann", "bea"):
        assert door.says("on", user_id=user_id)["conversation_id"] == str(into.pk)
    assert_sound()


def test_what_is_gone_by_the_clock_keeps_its_own_order(door):
    door.says("1", user_id="ann", phone=PHONE)
    door.says("2", user_id="ann")
    door.says("3", user_id="bea", phone=PHONE)
    Chunk.objects.filter(content="1").update(created_at=timezone.now())  # its clock ran ahead
    Conversation.objects.update(last_message_at=timezone.now())
    merge(ContactMatch.objects.get())
    words = said(Conversation.objects.open().get())
    assert words.index("1") < words.index("2")
    assert sorted(words) == ["1", "2", "3"]


def test_a_reply_that_is_being_written_is_given_up_and_owed(door):
    match = same_phone(door)
    claims = leases.claim(timezone.now(), 10)
    assert len(claims) == 2
    merge(match)
    assert set(Turn.objects.values_list("status", "code")) == {("abandoned", "merged")}
    assert [pipeline.prepare(claim) for claim in claims] == [None, None]
    assert reply_to_all() == 1
    assert_sound()


def test_a_redaction_finds_what_moved(door):
    match = same_phone(door)
    reply_to_all()
    merge(match)
    session = Conversation.objects.open().get()
    position = session.chunks.get(content="Second, as bea").position
    corrections.redact(session.pk, position, actor=SYSTEM, now=timezone.now())
    assert "Second, as bea" not in str(list(Turn.objects.values_list("prompt", "draft")))


def test_ended_sessions_and_memory_follow_and_guests_are_remembered(door):
    door.says("As ann", user_id="ann", phone=PHONE)
    door.says("As a guest", user_id="bea")
    guest = Contact.objects.get(user_id="bea")
    expired = Conversation.objects.filter(contact=guest)
    expired.update(status="expired", ended_at=timezone.now(), ended_by="timeout", reply_owed=False)
    record(expired.get(), "expired", SYSTEM, from_status="active", to_status="expired")
    closing.close(
        Conversation.objects.get(contact__user_id="ann").pk, ended_by="user", actor=SYSTEM, now=timezone.now()
    )
    remember.remember_ended()
    door.says("With a phone", user_id="bea", phone=PHONE)
    match = ContactMatch.objects.get()
    merge(match, keep=guest.pk)
    assert Contact.objects.get(user_id="ann").merged_into == guest
    assert Memory.objects.filter(contact_id=guest.pk).count() == 1
    assert remember.remember_ended() == 1
    assert set(Memory.objects.values_list("contact_id", flat=True)) == {guest.pk}
    assert Memory.objects.count() == 2
    assert door.get("/memory/search?q=guest&user_id=ann")["items"][0]["contact_id"] == str(guest.pk)
    assert len(door.get("/conversations?user_id=ann")["items"]) == 3
    assert ConversationEvent.objects.filter(kind="contact_merged").count() == 1


def test_opt_out_and_hold_stay_whoever_had_them(door):
    match = same_phone(door)
    bea = Contact.objects.get(user_id="bea")
    opt_outs.opt_out(bea.pk, "sms", reason="asked on the phone", actor=STAFF, now=timezone.now())
    Contact.objects.filter(pk=bea.pk).update(hold_reason="Case 4711")
    Contact.objects.filter(user_id="ann").update(hold_reason="Case 12")
    match.refresh_from_db()
    assert merge_contacts.preview(ContactMatch.objects.get()).hold_reason == "Case 12; Case 4711"
    reply_to_all()
    merge(match)
    person = Contact.objects.get(user_id="ann")
    assert list(person.opted_out) == ["sms"]
    assert person.hold_reason == "Case 12; Case 4711"
    assert set(Message.objects.values_list("status", flat=True)) == {"cancelled"}
    assert not Conversation.objects.filter(reply_owed=True).exists()
    with pytest.raises(ConflictError, match="4711"):
        erasure.begin(person.pk, actor=SYSTEM, now=timezone.now())


def test_what_staff_said_of_either_stands(door):
    match = same_phone(door)
    for user, words in (("ann", "Likes it short."), ("bea", "Speaks Quechua.")):
        session = Conversation.objects.filter(contact__user_id=user).latest("started_at")
        corrections.correct(session.pk, 2, words, actor=STAFF, now=timezone.now())
    merge(match)
    person, alias = Contact.objects.get(user_id="ann"), Contact.objects.get(user_id="bea")
    assert sorted(person.known.split("\n")) == ["Likes it short.", "Speaks Quechua."]
    assert person.known_until is not None
    assert alias.known == ""


def test_twice_is_once_and_a_dismissed_pair_stays_two(door):
    match = same_phone(door)
    merge_contacts.dismiss(match.pk, actor=STAFF, now=timezone.now())
    door.says("Again", user_id="bea", phone=PHONE)
    match.refresh_from_db()
    assert (match.state, match.decided_by_name) == ("dismissed", "mona")
    first = merge(match)
    events = ConversationEvent.objects.count()
    assert merge(match).decided_at == first.decided_at
    assert ConversationEvent.objects.count() == events
    with pytest.raises(ConflictError, match="merged already"):
        merge_contacts.dismiss(match.pk, actor=STAFF, now=timezone.now())


def test_of_three_the_names_all_lead_to_one(door):
    for name in ("ann", "bea", "cleo"):
        door.says(f"I am {name}", user_id=name)
        door.says("My phone", user_id=name, phone=PHONE)
    assert ContactMatch.objects.count() == 3
    contacts = {contact.user_id: contact.pk for contact in Contact.objects.all()}
    pair = sorted([contacts["bea"], contacts["cleo"]])
    merge(ContactMatch.objects.get(first=pair[0], second=pair[1]), keep=contacts["cleo"])
    assert ContactMatch.objects.filter(state="open").count() == 1
    merge(ContactMatch.objects.get(state="open"))
    assert dict(Contact.objects.values_list("user_id", "merged_into")) == {
        "ann": None,
        "bea": contacts["ann"],
        "cleo": contacts["ann"],
    }
    session = Conversation.objects.open().get()
    assert len(said(session)) == 6
    for name in contacts:
        assert door.says("on", user_id=name)["conversation_id"] == str(session.pk)
    assert seed_helpers.get_active_conversation("cleo", "sms") == session


def test_an_erasure_takes_the_alias_along_and_its_own_is_refused(door):
    match = same_phone(door)
    merge(match)
    alias, person = Contact.objects.get(user_id="bea"), Contact.objects.get(user_id="ann")
    with pytest.raises(ConflictError, match="alias"):
        erasure.begin(alias.pk, actor=SYSTEM, now=timezone.now())
    erasure.begin(person.pk, actor=SYSTEM, now=timezone.now())
    assert not Contact.objects.exists()
    assert not ContactMatch.objects.exists()


def test_two_who_sign_in_and_who_is_being_erased_are_refused(door, shop):
    match = same_phone(door)
    ann, bea = Contact.objects.order_by("user_id")
    Erasure.objects.create(client=shop, asked_by_name="x", contact=bea.pk, sessions=[uuid4()])
    assert "erased" in merge_contacts.preview(match).refused
    with pytest.raises(ConflictError) as refused:
        merge(match)
    assert refused.value.code == "being_erased"
    Erasure.objects.all().delete()
    users = [get_user_model().objects.create_user(name) for name in ("u1", "u2")]
    Contact.objects.filter(pk=bea.pk).update(login=users[0])
    assert merge_contacts.preview(ContactMatch.objects.get()).person == bea  # who signs in is kept
    Contact.objects.filter(pk=ann.pk).update(login=users[1])
    with pytest.raises(ConflictError) as refused:
        merge(match)
    assert refused.value.code == "both_sign_in"
    Contact.objects.filter(pk=ann.pk).update(login=None)
    merge(match, keep=ann.pk)
    ann.refresh_from_db()
    assert ann.login == users[0]


def test_another_client_s_match_is_not_there(door, neighbour):
    match = same_phone(door)
    for verb in (merge_contacts.merge, merge_contacts.dismiss):
        with pytest.raises(NotFoundError):
            verb(match.pk, actor=STAFF, now=timezone.now(), client=neighbour)
        with pytest.raises(NotFoundError):
            verb(uuid4(), actor=STAFF, now=timezone.now())
    match.refresh_from_db()
    assert match.state == "open"


def test_every_table_with_a_contact_is_known_to_merging():
    of_contacts = {
        model for model in apps.get_models() for field in model._meta.concrete_fields if field.related_model is Contact
    }
    known = {Conversation, ContactIdentity, Contact, ContactMatch}
    assert of_contacts == known, "services/staff_actions/merge_contacts.py must move what a new table holds"


# --- in the back office ----------------------------------------------------------------------------------------------
def test_managers_see_the_evidence_and_decide(door, shop, neighbour):
    match = same_phone(door)
    page = reverse("admin:conversations_contactmatch_change", args=[match.pk])
    manager = sign_in("mona", shop, "manager")
    assert (
        "both have the same phone"
        in manager.get(reverse("admin:conversations_contactmatch_changelist")).content.decode()
    )
    shown = manager.get(page).content.decode()
    assert "Becomes one conversation:" in shown
    assert "1 conversation" in shown
    agent = sign_in("agnes", shop, "agent")
    assert agent.get(page).status_code == 200
    for deed in ("merge", "dismiss"):
        address = reverse(f"admin:conversations_contactmatch_{deed}", args=[match.pk])
        assert agent.post(address).status_code == 403
        assert sign_in(f"n-{deed}", neighbour, "manager").post(address).status_code == 302
    match.refresh_from_db()
    assert match.state == "open"

    dismissed = manager.post(reverse("admin:conversations_contactmatch_dismiss", args=[match.pk]), follow=True)
    assert "The contacts stay separate." in dismissed.content.decode()
    merged = manager.post(reverse("admin:conversations_contactmatch_merge_other_way", args=[match.pk]), follow=True)
    assert "The contacts are merged." in merged.content.decode()
    assert "The contacts are merged already." in merged.content.decode()
    assert Contact.objects.get(user_id="ann").merged_into.user_id == "bea"
    assert set(StaffAction.objects.values_list("verb", "user_name")) == {("merged", "mona"), ("dismissed", "mona")}
    alias = reverse("admin:conversations_contact_change", args=[Contact.objects.get(user_id="ann").pk])
    assert "bea" in manager.get(alias).content.decode()
    assert manager.post(reverse("admin:conversations_contactmatch_merge", args=[match.pk])).status_code == 403
