"""A person's message is stored once, in the conversation where it belongs, and its place is told each time it comes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from conversations.models import ChannelAccount, Chunk, Client, Contact, Conversation, MessageTombstone
from conversations.services.core.dedupe import dedupe_key
from conversations.services.core.ledger import SYSTEM
from conversations.services.core.person import Person
from conversations.services.core.statements import THIS_THREAD, finish
from conversations.services.inbound import messages
from conversations.services.inbound.messages import InboundResult, InboundText
from conversations.services.tenants import api_keys
from conversations.services.transitions import closing

pytestmark = pytest.mark.django_db

NOW = timezone.now()


def message(text: str = "Hello", message_id: str = "m1", **more: Any) -> InboundText:
    """A message of Ann's."""
    values: dict[str, Any] = {"channel": "sms", "person": Person(user_id="ann"), "at": NOW, "scope": "shop"}
    return InboundText(text=text, message_id=message_id, **{**values, **more})


def settle(client: Client, *given: Any, **more: Any) -> InboundResult:
    return messages.settle(client, message(*given), **more)


@pytest.mark.parametrize("is_new", [False, True])
def test_a_message_that_comes_again_stays_where_it_is(shop: Client, is_new: bool) -> None:
    first, second = settle(shop), settle(shop, "More", "m2")
    assert (first.created, first.duplicate, first.position, first.status) == (True, False, 3, "active")
    assert (second.created, second.duplicate, second.position) == (False, False, 4)
    again = settle(shop, "Hello, in other words", "m1", is_new=is_new)
    assert again == InboundResult(first.conversation_id, first.chunk_id, 3, False, True, first.is_guest, "active")
    assert messages.is_stored(shop.pk, message())
    closing.close(first.conversation_id, ended_by="user", actor=SYSTEM, now=NOW)
    assert settle(shop).status == "closed"
    assert list(Chunk.objects.filter(role="user").values_list("content", flat=True)) == ["Hello", "More"]


def test_a_message_that_was_deleted_since_is_not_stored_again(shop: Client) -> None:
    key = dedupe_key("shop", "m1")
    MessageTombstone.objects.create(client=shop, dedupe_key=key, expires_at=NOW + timedelta(days=1))
    assert settle(shop) == InboundResult(None, None, None, False, True, True, "deleted")
    assert (messages.is_stored(shop.pk, message()), messages.is_stored(shop.pk, message(message_id="m2"))) == (
        True,
        False,
    )
    assert not Conversation.objects.exists()
    assert settle(shop, "Hello", "m2").created


def test_the_place_of_a_message_that_comes_again_is_told_to_its_client_s_key_alone(
    shop: Client, key: str, neighbours_key: str
) -> None:
    first = settle(shop)

    def told(key: str) -> InboundResult | None:
        found = finish(messages.settle_with_key(THIS_THREAD, message(), api_keys.key_hash(key), shop.pk))
        return found[0] if found else None

    place = told(key)
    assert place
    assert (place.chunk_id, place.duplicate) == (first.chunk_id, True)
    assert told(neighbours_key) is None
    assert told("convo_unknown") is None
    Client.objects.filter(pk=shop.pk).update(is_active=False)
    assert told(key) is None


def test_a_message_without_an_id_is_a_new_one_each_time(shop: Client) -> None:
    assert [settle(shop, "Hello", "").position for _ in range(2)] == [3, 4]
    assert not messages.is_stored(shop.pk, message(message_id=""))


@pytest.mark.parametrize(
    "other",
    [{"channel": "sms"}, {"channel": "web", "thread": "second"}, {"channel": "web", "person": Person(user_id="bea")}],
    ids=str,
)
def test_a_message_of_another_channel_thread_or_person_opens_its_own_conversation(
    shop: Client, other: dict[str, Any]
) -> None:
    first = messages.settle(shop, message(channel="web"))
    elsewhere = messages.settle(shop, message("Hi", "m2", **other))
    assert elsewhere.created
    assert elsewhere.conversation_id != first.conversation_id
    assert messages.settle(shop, message("More", "m3", channel="web")).conversation_id == first.conversation_id


def test_a_message_after_the_end_opens_the_next_conversation(shop: Client) -> None:
    first = settle(shop)
    closing.close(first.conversation_id, ended_by="user", actor=SYSTEM, now=NOW)
    second = settle(shop, "Hello again", "m2")
    assert second.created
    assert second.conversation_id != first.conversation_id


@pytest.mark.parametrize("append_tried", [True, False])
def test_an_account_s_message_is_noted_as_its_own(shop: Client, append_tried: bool) -> None:
    old = ChannelAccount.objects.get(client=shop, channel="sms")
    new = ChannelAccount.objects.create(client=shop, channel="sms", provider="sandbox", address="second")
    person = Person(address="+51999999999", kind="phone", phone="+51999999999", name="Ann")
    for number, account in enumerate([old, new, old]):
        given = message(f"Hello {number}", f"m{number}", person=person, account=account)
        messages.settle(shop, given, append_tried=append_tried)
        assert Conversation.objects.get().channel_account == account
    assert Chunk.objects.filter(role="user").count() == 3


def test_an_opt_out_that_comes_again_takes_back_no_opt_in(shop: Client) -> None:
    settle(shop)
    for text, message_id, is_out in (("STOP", "m2", True), ("START", "m3", False), ("STOP", "m2", False)):
        settle(shop, text, message_id)
        assert ("sms" in Contact.objects.get().opted_out) is is_out, message_id


def test_what_a_lost_statement_wrote_is_found_or_was_not_written(shop: Client) -> None:
    first, second = settle(shop), settle(shop, "More", "m2")
    for there in (first, second):
        returned = (there.conversation_id, there.chunk_id, there.position, there.is_guest)
        assert messages.confirmed(shop.pk, returned) == there
    assert messages.confirmed(shop.pk, (uuid4(), 0, 3, True)) is None


def test_text_and_metadata_are_stored_without_what_the_rules_remove(shop: Client) -> None:
    shop.redaction_patterns = ["secret"]
    shop.save()
    settled = messages.settle(shop, message("My secret", metadata={"note": "secret", "id": "secret"}))
    chunk = Chunk.objects.get(pk=settled.chunk_id)
    assert (chunk.content, chunk.metadata) == ("My [redacted]", {"note": "[redacted]", "id": "secret"})
