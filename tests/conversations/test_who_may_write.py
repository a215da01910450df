"""The client's own JSON counts only with a key that is valid now, for the key's own client, and by its current rules.

Each fast statement checks the key, the client and the person again, so each case is tried where the message would be
appended, where it would open a conversation and where it was here before; in front of Django and behind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from conversations.models import Chunk, Client, Conversation
from conversations.services.tenants import api_keys
from tests import factories
from tests.conversations.own_json import Program, revoke, switch_off
from tests.routes import assert_failure, written

pytestmark = pytest.mark.django_db


# A message that takes each way: appended, opens a conversation, was here before, in general.
WAYS: dict[str, dict[str, Any]] = {
    "in a conversation": {},
    "a conversation of somebody known": {"user_id": "eve"},
    "a conversation of somebody new": {"user_id": "bea"},
    "delivered again": {"message_id": "m1", "message": "Hello"},
    "delivered again after the end": {"message_id": "m1", "message": "Hello", "user_id": "eve"},
    "a new phone": {"phone": "+51999999999"},
    "an opt-out": {"message": "STOP"},
    "not readable": {"user_id": None},
}
TAKEN = {name: message for name, message in WAYS.items() if name != "not readable"}


@pytest.mark.parametrize("message", TAKEN.values(), ids=TAKEN)
def test_a_message_with_a_valid_key_is_taken(met: Program, message: dict[str, Any]) -> None:
    placed = Conversation.objects.get(pk=met.says(**message)["conversation_id"])
    assert (placed.client_id, placed.contact.user_id) == (met.client_id, message.get("user_id", "ann"))


@pytest.mark.parametrize("message", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("change", ["revoked", "switched off", "unknown", "none"])
def test_a_key_that_is_valid_no_more_is_refused(met: Program, change: str, message: dict[str, Any]) -> None:
    if change == "revoked":
        revoke(met.key)
    elif change == "switched off":
        switch_off(met.client_id)
    else:
        met.key = "convo_unknown" if change == "unknown" else ""
    before = written()
    code = "not_authenticated" if change == "none" else "authentication_failed"
    assert_failure(met.passes_on(**message), 401, code=code)
    assert written() == before


def test_another_key_of_the_client_goes_on_when_one_is_revoked(met: Program, shop: Client) -> None:
    _, other = api_keys.create_api_key(shop, "other")
    revoke(met.key)
    met.key = other
    for message in TAKEN.values():
        met.says(**message)


def test_a_client_that_is_switched_on_again_is_served_again(met: Program) -> None:
    switch_off(met.client_id)
    assert_failure(met.passes_on(), 401)
    Client.objects.update(is_active=True)
    assert met.says("And again")["position"] == 4


@pytest.mark.parametrize("message", TAKEN.values(), ids=TAKEN)
def test_the_key_that_was_used_says_when(met: Program, shop: Client, message: dict[str, Any]) -> None:
    used, met.key = api_keys.create_api_key(shop, "used")
    unused, _ = api_keys.create_api_key(shop, "unused")
    met.says(**message)
    used.refresh_from_db()
    unused.refresh_from_db()
    assert used.last_used_at
    assert unused.last_used_at is None


@pytest.mark.parametrize("message", TAKEN.values(), ids=TAKEN)
def test_another_client_s_key_writes_nothing(met: Program, neighbours_key: str, message: dict[str, Any]) -> None:
    met.key = neighbours_key
    before = written()
    refused = met.passes_on(**message)
    assert_failure(refused, 404, code="client_not_found")
    met.client_id = uuid4()
    assert met.passes_on(**message).body == refused.body, "as for a client that never was"
    assert written() == before


@pytest.mark.parametrize("message", TAKEN.values(), ids=TAKEN)
def test_the_key_writes_nothing_to_a_client_that_is_another_s(
    met: Program, neighbour: Client, message: dict[str, Any]
) -> None:
    met.client_id = neighbour.pk
    before = written()
    assert_failure(met.passes_on(**message), 404, code="client_not_found")
    assert written() == before


# --- reading ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("change", ["revoked", "switched off", "unknown", "none"])
def test_a_key_that_is_valid_no_more_reads_nothing(met: Program, change: str) -> None:
    conversation_id = met.says("A secret")["conversation_id"]
    assert met.reads(conversation_id).status == 200
    if change == "revoked":
        revoke(met.key)
    elif change == "switched off":
        switch_off(met.client_id)
    else:
        met.key = "convo_unknown" if change == "unknown" else ""
    refused = met.reads(conversation_id)
    assert_failure(refused, 401, code="not_authenticated" if change == "none" else "authentication_failed")
    assert b"secret" not in refused.body


def test_another_client_s_conversation_reads_as_one_that_never_was(met: Program, neighbours_key: str) -> None:
    conversation_id = met.says("A secret")["conversation_id"]
    met.key = neighbours_key
    refused = met.reads(conversation_id)
    assert_failure(refused, 404)
    assert refused.body == met.reads(uuid4()).body


def test_what_is_read_is_of_this_conversation_alone(met: Program, shop: Client, neighbour: Client) -> None:
    for conversation in Conversation.objects.select_related("contact"):
        name = f"{conversation.client.name} {conversation.contact.user_id}"
        Chunk.objects.filter(conversation=conversation, role="user").update(content=name)
        factories.StepFactory(conversation=conversation, description=name)
        Conversation.objects.filter(pk=conversation.pk).update(
            assistant=factories.AssistantFactory(
                client=conversation.client, key=f"of-{conversation.contact.user_id}", is_default=False
            ),
            device=conversation.contact.identities.create(
                client=conversation.client, channel="sms", kind="phone", address=name
            ),
        )
    for user_id in ("ann", "eve"):
        conversation = Conversation.objects.get(client=shop, contact__user_id=user_id)
        seen = met.reads(conversation.pk).json["data"]
        name = f"Shop {user_id}"
        assert (seen["id"], seen["client_id"], seen["contact_id"]) == (
            str(conversation.pk),
            str(shop.pk),
            str(conversation.contact_id),
        )
        assert (seen["user_id"], seen["device"], seen["assistant"]) == (user_id, name, f"of-{user_id}")
        assert [each["content"] for each in seen["chunks"]][2:] == [name]
        assert len(seen["chunks"]) == 3
        assert [each["description"] for each in seen["steps"]] == [name]


@pytest.mark.parametrize("chunks", [10, 3])
def test_the_newest_chunks_are_read_and_no_more_than_asked_for(met: Program, chunks: int) -> None:
    data = [met.says(f"Number {number}") for number in range(12)][-1]
    query = "" if chunks == 10 else f"?chunks={chunks}"
    seen = met.reads(f"{data['conversation_id']}{query}").json["data"]["chunks"]
    assert [each["content"] for each in seen] == [f"Number {number}" for number in range(12)][-chunks:]


def test_both_doors_count_requests_alike(met: Program, settings: Any) -> None:
    conversation_id = met.says()["conversation_id"]
    settings.API_REQUESTS_PER_MINUTE = 2
    assert [met.reads(conversation_id).status for _ in range(3)] == [200, 200, 429]


# --- the client's redaction rules -------------------------------------------------------------------------------------
SECRETS = "Card 4111 1111 1111 1111, code 123, pin 456"
# What the rules were, what they are now, and what is left of SECRETS.
RULES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "a pattern is added": (
        {},
        {"redaction_patterns": [r"code \d+"]},
        "Card [card number removed], [redacted], pin 456",
    ),
    "a pattern is changed": (
        {"redaction_patterns": [r"code \d+"]},
        {"redaction_patterns": [r"pin \d+"]},
        "Card [card number removed], code 123, [redacted]",
    ),
    "a pattern is removed": (
        {"redaction_patterns": [r"code \d+", r"pin \d+"]},
        {"redaction_patterns": [r"pin \d+"]},
        "Card [card number removed], code 123, [redacted]",
    ),
    "all patterns are removed": (
        {"redaction_patterns": [r"code \d+"]},
        {"redaction_patterns": []},
        "Card [card number removed], code 123, pin 456",
    ),
    "cards are kept from now on": ({}, {"redact_cards": False}, SECRETS),
    "cards are removed again": (
        {"redact_cards": False},
        {"redact_cards": True},
        "Card [card number removed], code 123, pin 456",
    ),
}


@pytest.mark.parametrize("user_id", ["ann", "eve", "bea"])
@pytest.mark.parametrize("case", RULES.values(), ids=RULES)
def test_rules_of_redaction_that_another_process_changed_hold_from_the_next_message_on(
    met: Program, shop: Client, user_id: str, case: tuple[dict[str, Any], dict[str, Any], str]
) -> None:
    before, now, left = case
    change: Callable[..., int] = Client.objects.filter(pk=shop.pk).update
    if before:
        change(**before)
        met.says("This process knows the rules")
    change(**now)
    for number in (1, 2):
        data = met.says(SECRETS, user_id=user_id, metadata={"note": SECRETS})
        chunk = Chunk.objects.get(conversation=data["conversation_id"], position=data["position"])
        assert (chunk.content, chunk.metadata["note"]) == (left, left), f"message {number}"
