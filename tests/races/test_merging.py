"""Messages of both contacts while they become one: nothing is lost or said twice, and one session is open."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from django.utils import timezone

from channels_out.kinds import AddressKind
from conversations.models import Chunk, Contact, ContactMatch, Conversation
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import Actor
from conversations.services.core.person import Person
from conversations.services.inbound import messages
from conversations.services.jobs import sweep
from conversations.services.staff_actions import merge_contacts
from conversations.services.transitions import closing
from tests.conftest import reply_to_all
from tests.factories import SandboxFactory
from tests.races.doors import front_door
from tests.races.invariants import assert_sound
from tests.races.threads import outcomes, shuffled, together
from tests.sizes import times

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]

STAFF = Actor("staff", "grace")
ROUNDS = times(2, 20)
PAIRS = times(3, 30)
PHONE = "+51999000077"


def pair(shop: Any, says: Any, psid: Any, round_: int) -> ContactMatch:
    """Two contacts with a phone, of which one is also known by an address."""
    phone = f"{PHONE[:-2]}{round_:02}"
    psid("before", user_id=f"P{round_}", message_id=f"p before {round_}")
    says("before", channel="messenger", user_id=f"ann{round_}", phone=phone, message_id=f"a before {round_}")
    says("before", channel="messenger", user_id=f"P{round_}", phone=phone, message_id=f"b before {round_}")
    return ContactMatch.objects.get(state="open")


@pytest.fixture
def says(shop, key):
    return front_door(shop, key)


@pytest.fixture
def psid(shop):
    """Messages by the provider's address."""
    account = SandboxFactory(client=shop, channel="messenger", address="page")

    def says(message: str, *, user_id: str, message_id: str) -> Any:
        return messages.settle(
            shop,
            messages.InboundText(
                channel="messenger",
                person=Person(address=user_id, kind=AddressKind.PSID),
                text=message,
                message_id=message_id,
                at=timezone.now(),
                scope=str(account.pk),
                account=account,
            ),
        )

    return says


def test_messages_of_both_while_they_become_one(shop, says, psid):
    for round_ in range(ROUNDS):
        match = pair(shop, says, psid, round_)
        names = {"a": f"ann{round_}", "b": f"P{round_}"}
        jobs = [
            partial(says, "now", channel="messenger", user_id=names[who], message_id=f"{who} {number} {round_}")
            for who in names
            for number in range(6)
        ]
        jobs += [partial(psid, "now", user_id=names["b"], message_id=f"p {number} {round_}") for number in range(6)]
        merges = [partial(merge_contacts.merge, match.pk, actor=STAFF, now=timezone.now())] * 2
        together(*shuffled([*jobs, *merges, *jobs[::5]]))

        for name in (f"{who} {number} {round_}" for who in "abp" for number in range(6)):
            assert Chunk.objects.filter(message_id__endswith=name, content="now").count() == 1, name
        person = Contact.objects.get(aliases__user_id__in=names.values())
        assert Conversation.objects.open().filter(contact=person).count() == 1
        assert not Conversation.objects.filter(contact__merged_into__isnull=False).exists()
        assert not person.aliases.filter(identities__isnull=False).exists()
        assert_sound()
        reply_to_all()
        assert_sound()


def test_a_merger_and_the_end_of_a_session(shop, says, psid):
    for round_ in range(ROUNDS):
        match = pair(shop, says, psid, round_)
        ids = list(Conversation.objects.open().filter(contact__in=[match.first_id, match.second_id]))
        closers = [partial(closing.close, each.pk, ended_by="staff", actor=STAFF, now=timezone.now()) for each in ids]
        merges = [partial(merge_contacts.merge, match.pk, actor=STAFF, now=timezone.now())]
        again = partial(says, "after", channel="messenger", user_id=f"P{round_}", message_id=f"after {round_}")
        results = outcomes(shuffled([*closers, *merges, again]))
        refused = [result for result in results if isinstance(result, Exception)]
        assert {(type(error), getattr(error, "code", repr(error))) for error in refused} <= {(ConflictError, "ended")}
        assert Chunk.objects.filter(content="after", message_id__endswith=str(round_)).count() == 1
        assert_sound()


def test_those_who_have_no_session_open_while_they_become_one(shop, says, psid):
    for round_ in range(ROUNDS):
        match = pair(shop, says, psid, round_)
        for session in Conversation.objects.open():
            closing.close(session.pk, ended_by="staff", actor=STAFF, now=timezone.now())
        jobs = [
            partial(says, "now", channel=channel, user_id=user_id, message_id=f"{user_id} {channel} {number}")
            for channel in ("messenger", "sms")
            for user_id in (f"ann{round_}", f"P{round_}")
            for number in range(2)
        ]
        together(*shuffled([*jobs, partial(merge_contacts.merge, match.pk, actor=STAFF, now=timezone.now())]))
        open_ones = Conversation.objects.open()
        assert sorted(open_ones.values_list("channel", flat=True)) == ["messenger", "sms"]
        assert not Conversation.objects.filter(contact__merged_into__isnull=False).exists()
        assert Chunk.objects.filter(conversation__in=open_ones, content="now").count() == len(jobs)
        assert_sound()


@pytest.mark.parametrize("known", [False, True], ids=["who are new", "who are known"])
def test_two_who_name_one_phone_at_the_same_instant_are_noted(own_json, known):
    for round_ in range(PAIRS):
        names = [f"ann {round_}", f"bea {round_}"]
        if known:
            for name in names:
                own_json("Hello", user_id=name)
        together(*(partial(own_json, "It's me", user_id=name, phone=f"+519999{round_:05}") for name in names))

    noted = ContactMatch.objects.count()
    assert noted == PAIRS or not known
    sweep.sweep(timezone.now())
    assert ContactMatch.objects.count() == PAIRS
    sweep.sweep(timezone.now())
    assert set(ContactMatch.objects.values_list("evidence", flat=True)) == {"same_phone"}
