"""Whose opt-out it is, what stands in the row and in the ledger, and what comes at the same moment."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from conversations.models import Client, Contact, Conversation, Message
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.delivery import opt_outs
from tests import factories
from tests.conftest import reply_to_all
from tests.conversations.meta_doors import post_whatsapp
from tests.races.threads import not_committed

pytestmark = pytest.mark.django_db

HOUR = timedelta(hours=1)
GRACE = Actor("staff", "grace")
NAMELESS = Actor("api")


def stop(contact: Contact, channel: str = "sms", actor: Actor = GRACE, reason: str = "told us") -> int:
    return opt_outs.opt_out(contact.pk, channel, reason=reason, actor=actor, now=timezone.now())


def start(contact: Contact, channel: str = "sms", reason: str = "told us") -> None:
    opt_outs.opt_in(contact.pk, channel, reason=reason, actor=GRACE)


def channels(contact: Contact) -> set[str]:
    return set(Contact.objects.get(pk=contact.pk).opted_out)


def noted(kind: str) -> set[Any]:
    """The conversations in whose ledger this stands."""
    return set(Conversation.objects.filter(events__kind=kind).values_list("pk", flat=True))


@pytest.fixture
def ann(shop: Client) -> Contact:
    return factories.ContactFactory(client=shop)


@pytest.fixture
def bea(shop: Client, ann: Contact) -> Contact:
    return factories.ContactFactory(client=shop)


# --- the row ----------------------------------------------------------------------------------------------------------
def test_an_opt_out_is_of_one_person_and_of_one_channel(ann, bea):
    stop(bea)
    stop(bea, "whatsapp")
    assert (channels(ann), channels(bea)) == (set(), {"sms", "whatsapp"})
    stop(ann)
    start(bea)
    assert (channels(ann), channels(bea)) == ({"sms"}, {"whatsapp"})


@pytest.mark.parametrize(("actor", "by"), [(GRACE, "grace"), (NAMELESS, "api")])
def test_the_row_says_when_why_and_by_whom(ann, actor, by):
    now = timezone.now()
    opt_outs.opt_out(ann.pk, "sms", reason="told us", actor=actor, now=now)
    assert Contact.objects.get(pk=ann.pk).opted_out == {"sms": {"since": now.isoformat(), "word": "told us", "by": by}}


def test_what_the_person_writes_is_by_the_person(door):
    door.says("Hello")
    door.says("STOP")
    assert Contact.objects.get().opted_out["sms"]["by"] == "contact"


@pytest.mark.parametrize("act", [stop, start])
def test_staff_give_a_channel_a_reason_and_a_person_who_exists(ann, act):
    if act is start:
        stop(ann)
    before = channels(ann)
    for channel in ("orb", "voice", "web", "nonsense"):
        with pytest.raises(InvalidError, match="Nobody can opt out of that channel"):
            act(ann, channel)
    with pytest.raises(InvalidError, match="Enter a reason"):
        act(ann, reason=" ")
    with pytest.raises(NotFoundError):
        act(Contact(pk=uuid4()))
    assert channels(ann) == before


def test_nobody_opts_out_twice_or_in_without_an_opt_out(ann):
    with pytest.raises(ConflictError, match="has not opted out of sms"):
        start(ann)
    stop(ann)
    with pytest.raises(ConflictError, match="already opted out of sms"):
        stop(ann)
    with pytest.raises(ConflictError, match="has not opted out of whatsapp"):
        start(ann, "whatsapp")


# --- the ledger -------------------------------------------------------------------------------------------------------
def conversation(contact: Contact, ago: int, **more: Any) -> Conversation:
    """A conversation whose last message is so many hours old."""
    return factories.ConversationFactory(client=contact.client, contact=contact, aged=ago * HOUR, **more)


def over(contact: Contact, ago: int, **more: Any) -> Conversation:
    given = {"status": "closed", "ended_by": "user", "ended_at": timezone.now(), **more}
    return conversation(contact, ago, **given)


@pytest.mark.parametrize("open_too", [True, False])
def test_it_is_noted_in_the_open_conversation_else_in_the_newest(ann, bea, open_too):
    over(ann, 9)
    newest = over(ann, 3)
    conversation(ann, 1, channel="whatsapp")
    conversation(bea, 1)
    noting = conversation(ann, 5) if open_too else newest
    stop(ann)
    start(ann)
    assert (noted("opted_out"), noted("opted_in")) == ({noting.pk}, {noting.pk})


def test_who_has_no_conversation_can_opt_out_and_in(ann):
    assert stop(ann) == 0
    assert channels(ann) == {"sms"}
    start(ann)
    assert channels(ann) == set()


def test_the_ledger_says_why_and_how_many_messages_it_cancelled(door):
    door.says("Hello")
    reply_to_all()
    contact = Contact.objects.get()
    assert stop(contact) == 1
    event = Conversation.objects.get().events.get(kind="opted_out")
    assert (event.cause, event.actor_name, event.data["cancelled"]) == ("told us", "grace", 1)
    assert Message.objects.get().code == "opted_out"


# --- what is owed -----------------------------------------------------------------------------------------------------
def owed() -> list[bool]:
    return list(Conversation.objects.values_list("reply_owed", flat=True))


def test_no_reply_is_owed_after_an_opt_out_by_staff(door):
    door.says("Hello")
    assert owed() == [True]
    stop(Contact.objects.get())
    assert owed() == [False]


def test_a_second_stop_settles_what_is_owed_as_well(door):
    door.says("STOP")
    Conversation.objects.update(reply_owed=True, burst_began_at=timezone.now(), reply_due_at=timezone.now())
    door.says("STOP")
    assert owed() == [False]
    assert len(noted("opted_out")) == 1
    assert Message.objects.count() == 1, "it is confirmed once"


@pytest.mark.parametrize("auto_reply", [True, False])
def test_a_start_that_is_not_confirmed_is_answered_where_the_assistant_answers(shop, meta, account, auto_reply):
    post_whatsapp(meta.text_webhook("Baja"))
    assert owed() == [False]
    Client.objects.filter(pk=shop.pk).update(auto_reply=auto_reply)
    post_whatsapp(meta.text_webhook("ALTA"))
    assert owed() == [auto_reply]
    assert len(noted("opted_in")) == 1
    assert reply_to_all() == int(auto_reply)


def test_a_start_that_is_confirmed_is_not_answered(door):
    door.says("STOP")
    door.says("START")
    assert owed() == [False]
    assert Message.objects.filter(text__startswith="You will get messages from Shop again").count() == 1


def test_an_opt_out_at_the_provider_counts_once(door):
    door.says("Hello")
    found = Conversation.objects.select_related("contact").get()
    opt_outs.apply_from_provider(found, "21610", timezone.now())
    first = Contact.objects.get().opted_out
    assert (first["sms"]["word"], first["sms"]["by"], owed()) == ("21610", "system", [False])
    again = Conversation.objects.select_related("contact").get()
    opt_outs.apply_from_provider(again, "21611", timezone.now())
    assert Contact.objects.get().opted_out == first
    assert again.events.filter(kind="opted_out").count() == 1


# --- at the same moment -----------------------------------------------------------------------------------------------
@pytest.mark.django_db(transaction=True)
def test_two_of_the_staff_opt_a_person_out_once(ann):
    conversation(ann, 1)
    with not_committed(partial(stop, ann)), pytest.raises(ConflictError, match="already opted out"):
        stop(ann)
    assert Conversation.objects.get().events.filter(kind="opted_out").count() == 1


@pytest.mark.django_db(transaction=True)
def test_an_opt_out_does_not_wait_for_a_conversation_that_is_just_being_opened(ann):
    with not_committed(lambda: conversation(ann, 1)):
        stop(ann)
        assert not Conversation.objects.exists(), "it is not committed yet"
    assert channels(ann) == {"sms"}


@pytest.mark.django_db(transaction=True)
def test_an_opt_out_of_one_channel_keeps_that_of_another_which_comes_meanwhile(door):
    door.says("Hello")
    contact = Contact.objects.get()
    with not_committed(partial(stop, contact, "whatsapp", SYSTEM)):
        door.says("STOP")
    assert channels(contact) == {"sms", "whatsapp"}
