"""The two forms of appending write the same rows: one table of cases feeds both, so neither can be changed alone."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import transaction

from channels_out.kinds import AddressKind
from conversations.models import ChannelAccount, Chunk, Client, Contact, ContactIdentity, Conversation
from conversations.services.core import redaction
from conversations.services.core.person import Person
from conversations.services.core.statements import THIS_THREAD, Statements, finish
from conversations.services.inbound import messages
from conversations.services.inbound.messages import InboundText
from conversations.services.tenants import account_cache, api_keys
from tests import factories
from tests.among_others import AMONG_OTHERS

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Case:
    """A message, and what is different from the usual when it comes."""

    client: dict[str, Any] = field(default_factory=dict)
    contact: dict[str, Any] = field(default_factory=dict)
    conversation: dict[str, Any] = field(default_factory=dict)
    message: dict[str, Any] = field(default_factory=dict)
    channel: str = "sms"


OWED = {"reply_owed": True, "burst_began_at": NOW - 4 * SECOND, "reply_due_at": NOW - 2 * SECOND}
CASES = {
    "nothing is owed": Case(),
    "a reply is owed already": Case(conversation=OWED),
    "a reply is owed, and when that began is not known": Case(conversation={**OWED, "burst_began_at": None}),
    "a burst was answered before": Case(conversation={**OWED, "reply_owed": False}),
    "the client answers by hand": Case(client={"auto_reply": False}),
    "the client answers by hand, and a reply is owed": Case(client={"auto_reply": False}, conversation=OWED),
    "the person opted out of this channel": Case(contact={"opted_out": {"sms": {"word": "STOP"}}}),
    "the person opted out of another channel": Case(contact={"opted_out": {"whatsapp": {"word": "STOP"}}}),
    "a quiet window": Case(client={"quiet_windows": {"sms": 1.5}}),
    "a quiet window of another channel": Case(client={"quiet_windows": {"voice": 30}}),
    "a quiet window beyond the longest wait": Case(client={"quiet_windows": {"sms": 30}}),
    "a burst that has reached the longest wait": Case(client={"quiet_windows": {"sms": 5}}, conversation=OWED),
    "a message from before the newest one": Case(conversation={"last_message_at": NOW + 60 * SECOND}),
    "positions and sequences go on": Case(conversation={"last_position": 7, "inbound_sequence": 3}),
    "a guest": Case(contact={"is_guest": True, "phone": None}, conversation={"is_guest": True}),
    "no message id": Case(message={"message_id": ""}),
    "metadata": Case(message={"metadata": {"kind": "button", "n": [1, {"é": None}]}}),
    "a card number is removed": Case(message={"text": "Mine is 4111 1111 1111 1111"}),
    "a card number is kept": Case(client={"redact_cards": False}, message={"text": "Mine is 4111 1111 1111 1111"}),
    "a caller's words": Case(channel="voice"),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest, shop: Client) -> Case:
    """The shop with an active conversation, as the case wants it."""
    found: Case = request.param
    known = {"client": shop, "user_id": "ann", "phone": "+51999999999", "name": "Ann", "is_guest": False}
    contact = factories.ContactFactory(**{**known, **found.contact})
    ContactIdentity.objects.create(
        contact=contact, client=shop, channel=found.channel, kind="phone", address="51999999999"
    )
    usual = {"client": shop, "contact": contact, "channel": found.channel, "is_guest": False, "last_position": 2}
    times = {"started_at": NOW - 600 * SECOND, "last_message_at": NOW - 60 * SECOND}
    factories.ConversationFactory(**{**usual, **times, "channel_account": None, **found.conversation})
    Client.objects.filter(pk=shop.pk).update(**found.client)
    shop.refresh_from_db()
    return found


def message_of(case: Case, person: Person, **more: Any) -> InboundText:
    usual = {"channel": case.channel, "text": "Hello", "message_id": "m1", "at": NOW, "scope": "tests"}
    return InboundText(**{**usual, "person": person, **more, **case.message})


def left_by(act: Callable[[], Any]) -> dict[str, Any]:
    """The rows that `act` leaves, which are then undone; each field by its name."""
    with transaction.atomic():
        result = act()
        assert result, "this form did not append"
        conversation = Conversation.objects.values().get()
        chunk = Chunk.objects.values().get(position=conversation["last_position"])
        transaction.set_rollback(True)
    del chunk["id"]
    return {f"conversation.{name}": value for name, value in conversation.items()} | {
        f"chunk.{name}": value for name, value in chunk.items()
    }


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    differing = {name: (one[name], other[name]) for name in one if one[name] != other[name]}
    assert differing == {}, "(SQL form, general form)"


def test_our_own_json_is_appended_alike(case: Case, shop: Client, key: str) -> None:
    phone = Contact.objects.get().phone
    message = message_of(case, Person(user_id="ann", phone=phone, name="Ann"))
    redaction.remember_rules(shop)

    by_sql = left_by(lambda: finish(messages.settle_with_key(THIS_THREAD, message, api_keys.key_hash(key), shop.pk)))
    in_general = left_by(lambda: messages.settle(shop, message, is_new=True))

    # Our own JSON names no address, so the SQL form leaves the device alone; the general form finds the phone's.
    in_general["conversation.device_id"] = by_sql["conversation.device_id"]
    assert_same(by_sql, in_general)


def assert_alike(act: Callable[[Statements], Coroutine[Any, Any, Any]]) -> None:
    """Assert that a message alone and one of many leave the same rows."""
    assert_same(left_by(lambda: finish(act(THIS_THREAD))), left_by(lambda: finish(act(AMONG_OTHERS))))


def test_one_of_many_in_our_own_json_is_appended_as_if_it_were_alone(case: Case, shop: Client, key: str) -> None:
    message = message_of(case, Person(user_id="ann", phone=Contact.objects.get().phone, name="Ann"))
    redaction.remember_rules(shop)
    assert_alike(lambda where: messages.settle_with_key(where, message, api_keys.key_hash(key), shop.pk))


def test_one_of_many_from_a_provider_is_appended_as_if_it_were_alone(case: Case, shop: Client) -> None:
    account = ChannelAccount.objects.select_related("client").annotate(version=account_cache.VERSION)
    known: Any = account.get(client=shop, channel=case.channel)
    person = Person(address="51999999999", kind=AddressKind.PHONE, phone=Contact.objects.get().phone, name="Ann")
    message = message_of(case, person, account=known)
    assert_alike(lambda where: messages.append_from(where, known, known.version, message))


def test_a_provider_s_message_is_appended_alike(case: Case, shop: Client) -> None:
    account = ChannelAccount.objects.select_related("client").annotate(version=account_cache.VERSION)
    known: Any = account.get(client=shop, channel=case.channel)
    phone = Contact.objects.get().phone
    person = Person(address="51999999999", kind=AddressKind.PHONE, phone=phone, name="Ann")
    message = message_of(case, person, account=known)

    by_sql = left_by(lambda: finish(messages.append_from(THIS_THREAD, known, known.version, message)))
    in_general = left_by(lambda: messages.settle(shop, message, append_tried=True))

    assert_same(by_sql, in_general)


def test_both_results_name_the_same_place(shop: Client, key: str) -> None:
    contact = factories.ContactFactory(client=shop, user_id="ann", is_guest=False)
    factories.ConversationFactory(client=shop, contact=contact, channel="sms", last_position=2)
    message = message_of(Case(), Person(user_id="ann"))
    found = []
    for act in (
        lambda: (finish(messages.settle_with_key(THIS_THREAD, message, api_keys.key_hash(key), shop.pk)) or [None])[0],
        lambda: messages.settle(shop, message, is_new=True),
    ):
        with transaction.atomic():
            result = act()
            found.append({name: getattr(result, name) for name in result.__slots__ if name != "chunk_id"})
            transaction.set_rollback(True)
    assert found[0] == found[1]
    assert Contact.objects.count() == 1


@pytest.mark.parametrize(("status", "revives"), [("stale", True), ("active", False)])
def test_a_stale_conversation_becomes_active_and_the_ledger_says_by_what(shop, status, revives):
    contact = factories.ContactFactory(client=shop, user_id="ann", is_guest=False)
    found = factories.ConversationFactory(client=shop, contact=contact, status=status, last_position=2)
    messages.settle(shop, message_of(Case(), Person(user_id="ann")), is_new=True)
    found.refresh_from_db()
    assert (found.status, found.last_position) == ("active", 3)
    revived = found.events.filter(kind="revived").values_list("actor", "cause", "from_status", "to_status")
    assert list(revived) == [("contact", "message", "stale", "active")] * revives
