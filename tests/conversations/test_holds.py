"""Legal holds: what may be a reason, whose hold it is, and what the ledger says of it."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from conversations.models import Client, Contact, Conversation
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.ledger import Actor
from conversations.services.retention import holds
from tests import factories

pytestmark = pytest.mark.django_db

GRACE = Actor("staff", "grace")


@pytest.fixture
def other(shop: Client) -> Conversation:
    """A conversation of somebody else, which was there first."""
    return factories.ConversationFactory(client=shop)


@pytest.fixture
def conversation(other: Conversation) -> Conversation:
    return factories.ConversationFactory(client=other.client)


def hold(of: Conversation, reason: str = "Case 4711", **more: Any) -> None:
    holds.hold(of.pk, reason=reason, actor=GRACE, **more)


def reasons(*of: Conversation) -> list[str]:
    return [Conversation.objects.get(pk=each.pk).hold_reason for each in of]


def ledger(of: Conversation) -> list[tuple[str, str, str]]:
    return list(of.events.order_by("id").values_list("kind", "cause", "actor_name"))


@pytest.mark.parametrize("reason", ["", "  ", "x" * 201])
def test_a_hold_needs_a_reason_that_fits(conversation, reason):
    with pytest.raises(InvalidError, match="reason of at most 200 characters"):
        hold(conversation, reason)
    assert (reasons(conversation), ledger(conversation)) == ([""], [])


@pytest.mark.parametrize(("given", "stored"), [("x", "x"), ("x" * 200, "x" * 200), (f" {'x' * 200} ", "x" * 200)])
def test_a_reason_is_stored_without_the_space_around_it(conversation, given, stored):
    hold(conversation, given)
    assert (reasons(conversation), ledger(conversation)) == ([stored], [("held", stored, "grace")])


def test_the_ledger_has_each_change_of_a_hold_once(conversation, other):
    for reason in ("Case 1", "Case 1", "Case 2"):
        hold(conversation, reason)
    for _ in range(2):
        holds.lift(conversation.pk, actor=GRACE)
    assert ledger(conversation) == [
        ("held", "Case 1", "grace"),
        ("held", "Case 2", "grace"),
        ("hold_lifted", "Case 2", "grace"),
    ]
    assert ledger(other) == []


def test_a_hold_is_of_one_conversation_and_of_its_client(conversation, other, neighbour):
    hold(conversation, client=conversation.client)
    for act in (
        lambda: hold(other, client=neighbour),
        lambda: holds.lift(conversation.pk, actor=GRACE, client=neighbour),
    ):
        with pytest.raises(NotFoundError):
            act()
    assert reasons(conversation, other) == ["Case 4711", ""]


def test_a_contact_s_hold_is_of_one_contact(conversation, other):
    holds.set_contact_hold(conversation.client_id, conversation.contact_id, "Case 4711")
    held = Contact.objects.exclude(hold_reason="")
    assert [(each.pk, each.hold_reason) for each in held] == [(conversation.contact_id, "Case 4711")]
    holds.set_contact_hold(conversation.client_id, conversation.contact_id, "")
    assert not held.all().exists()
    with pytest.raises(NotFoundError, match="does not exist"):
        holds.set_contact_hold(conversation.client_id, uuid4(), "Case 4711")


@pytest.mark.parametrize("on", ["the conversation", "its contact", "both"])
def test_what_is_held_is_refused_with_the_reason_and_other_things_are_not(conversation, other, on):
    if on != "its contact":
        hold(conversation)
    if on != "the conversation":
        holds.set_contact_hold(conversation.client_id, conversation.contact_id, "Case 4712")
    first = "4712" if on == "its contact" else "4711"
    conversation.refresh_from_db()
    assert holds.hold_reason(Conversation.objects.get(pk=conversation.pk)) == f"Case {first}"
    with pytest.raises(ConflictError, match=f"This conversation is on hold: Case {first}"):
        holds.refuse_if_held(conversation.client_id, conversation.pk)
    of_contact = "A conversation of this contact is on hold: Case 4711"
    if on != "the conversation":
        of_contact = "This contact is on hold: Case 4712"
    with pytest.raises(ConflictError, match=of_contact):
        holds.refuse_if_contact_held(Contact.objects.get(pk=conversation.contact_id))
    for nobody_s in (other.pk, uuid4()):
        holds.refuse_if_held(conversation.client_id, nobody_s)
    holds.refuse_if_contact_held(other.contact)


def test_the_oldest_held_conversation_is_named(shop):
    contact = factories.ContactFactory(client=shop)
    for number in (2, 1):
        session = factories.ConversationFactory(client=shop, contact=contact, channel="voice", thread=str(number))
        Conversation.objects.filter(pk=session.pk).update(
            hold_reason=f"Case {number}", started_at=f"2026-01-0{number}T00:00Z"
        )
    with pytest.raises(ConflictError, match="on hold: Case 1"):
        holds.refuse_if_contact_held(contact)
