"""The door for Convo's own JSON: whose message it is, which session it goes to, and what is answered."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from conversations.models import (
    Assistant,
    ChannelAccount,
    Chunk,
    Client,
    Contact,
    ContactIdentity,
    Conversation,
    ConversationEvent,
)
from conversations.services.core import opening
from conversations.services.jobs import sweep
from tests import factories
from tests.conftest import Door
from tests.conversations.conftest import close

pytestmark = pytest.mark.django_db

CHANNELS = ["messenger", "whatsapp", "sms", "orb", "voice"]
KEYS = {"conversation_id", "chunk_id", "position", "created", "duplicate", "is_guest", "status"}


def chunks(conversation_id: str) -> list[tuple[int, str, str]]:
    return list(Chunk.objects.filter(conversation=conversation_id).values_list("position", "role", "content"))


# --- what is answered -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("channel", CHANNELS)
def test_every_channel_answers_alike(channel: str, door: Door) -> None:
    first = door.says("Hello", channel=channel, message_id="m1")
    second = door.says("Anybody?", channel=channel, message_id="m2")
    again = door.says("Hello", channel=channel, message_id="m1")

    chunk_ids = list(Chunk.objects.filter(position__gte=3).values_list("id", flat=True))
    session = {"conversation_id": first["conversation_id"], "is_guest": True, "status": "active"}
    assert first == {**session, "chunk_id": chunk_ids[0], "position": 3, "created": True, "duplicate": False}
    assert second == {**session, "chunk_id": chunk_ids[1], "position": 4, "created": False, "duplicate": False}
    assert again == {**session, "chunk_id": chunk_ids[0], "position": 3, "created": False, "duplicate": True}
    assert first.keys() == KEYS
    UUID(first["conversation_id"])
    conversation = Conversation.objects.get()
    assert (conversation.channel, conversation.thread) == (channel, "")
    assert conversation.channel_account == ChannelAccount.objects.get(channel=channel)


def test_what_was_sent_is_what_is_stored(door: Door) -> None:
    text = "  ¿Dónde está?\n\tمرحبا 👩‍👩‍👧‍👦 \ud83d\ude00 <b>&amp;  ".encode("utf-16", "surrogatepass").decode("utf-16")
    metadata = {"a": [1, 2.5, None, True, {"ü": "\u2028"}], "": {}}
    answer = door.says(text, message_id="m/1 ✓", metadata=metadata)
    chunk = Chunk.objects.get(pk=answer["chunk_id"])
    assert (chunk.content, chunk.message_id, chunk.metadata) == (text, "m/1 ✓", metadata)
    shown = door.get(f"/conversations/{answer['conversation_id']}")["chunks"][-1]
    assert (shown["content"], shown["metadata"]) == (text, metadata)


def test_the_longest_message_is_taken_whole(door: Door) -> None:
    answer = door.says("é" * 500_000)
    assert Chunk.objects.get(pk=answer["chunk_id"]).content == "é" * 500_000


def test_a_body_with_too_many_values_is_refused_and_signs_in_a_text_are_none(door: Door) -> None:
    assert door.says(',[{"' * 100_000)["position"] == 3
    body = {"client_id": "x", "user_id": "ann", "message": "Hello", "metadata": {"many": [0] * 60_000}}
    status, envelope = door.call("POST", "/webhooks/sms/inbound", body)
    assert (status, envelope["code"]) == (400, "malformed")
    assert "50,000 values" in envelope["error"]


def test_every_message_moves_the_session_s_last_message(door: Door) -> None:
    door.says("Hello")
    yesterday = timezone.now() - timedelta(days=1)
    for more in ({}, {"name": "Ann"}):
        Conversation.objects.update(last_message_at=yesterday)
        door.says("Anybody?", **more)
        assert Conversation.objects.get().last_message_at > yesterday


def test_both_headers_carry_a_key(door: Door, shop: Client) -> None:
    body = {"client_id": str(shop.pk), "user_id": "ann", "message": "Hello"}
    key, door.key = door.key, ""
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"bearer  {key} "},
        {"X-Service-API-Key": key},
    ):
        assert door.call("POST", "/webhooks/sms/inbound", body, **headers)[0] == 200
    both = {"X-Service-API-Key": key, "Authorization": "Bearer convo_wrong"}
    assert door.call("POST", "/webhooks/sms/inbound", body, **both)[0] == 200, "the header of our own counts"


def test_a_client_s_id_is_taken_however_it_is_written(door: Door, shop: Client) -> None:
    for client_id in (str(shop.pk).upper(), shop.pk.hex, f"{{{shop.pk}}}"):
        door.says("Hello", client_id=client_id, message_id="m1")
    assert Chunk.objects.filter(role="user").count() == 1, "and it is one client still"


# --- guests -----------------------------------------------------------------------------------------------------------
def test_who_has_no_phone_is_a_guest(door: Door) -> None:
    assert door.says("Hello")["is_guest"] is True
    assert Contact.objects.get().is_guest is True
    assert Conversation.objects.get().is_guest is True


def test_who_begins_with_a_phone_is_no_guest(door: Door) -> None:
    assert door.says("Hello", phone="+51 999 999 999", name="Ann")["is_guest"] is False
    contact = Contact.objects.get()
    assert (contact.phone, contact.name, contact.is_guest) == ("+51999999999", "Ann", False)
    assert Conversation.objects.get().is_guest is False


def test_a_phone_captured_later_makes_a_guest_none_in_every_session(door: Door) -> None:
    on_sms = door.says("Hello")["conversation_id"]
    door.says("Hello", channel="orb")
    close(door.says("Hello", channel="voice")["conversation_id"])

    answer = door.says("My number", phone="0051 999-999-999")

    assert (answer["conversation_id"], answer["is_guest"], answer["position"]) == (on_sms, False, 4)
    assert Contact.objects.get().phone == "+51999999999"
    assert list(Conversation.objects.values_list("is_guest", flat=True)) == [False] * 3
    assert door.says("Thanks")["is_guest"] is False, "also when it is not said again"
    assert door.says("Hello", channel="messenger")["is_guest"] is False


@pytest.mark.parametrize(
    "written", ["+51999999999", "+51 999 999 999", "0051999999999", "51999999999", "+51 (999) 999-999"]
)
def test_a_phone_is_one_however_it_is_written(written: str, door: Door) -> None:
    door.says("Hello", phone="+51999999999")
    answer = door.says("Again", phone=written)
    assert answer["position"] == 4
    assert Contact.objects.get().phone == "+51999999999"


def test_the_newest_phone_and_name_count(door: Door) -> None:
    door.says("Hello", phone="+51999999999", name="Ann")
    door.says("I moved", phone="+51988888888", name="Ann Smith")
    door.says("Bye", phone="", name="")
    door.says("Bye", phone=None, name=None)
    contact = Contact.objects.get()
    assert (contact.phone, contact.name) == ("+51988888888", "Ann Smith")
    assert Conversation.objects.get().last_position == 6


def test_a_phone_is_an_address_where_the_channel_is_reached_by_one(door: Door) -> None:
    door.says("Hello", channel="whatsapp", phone="+51999999999")
    door.says("Hello", channel="messenger", phone="+51999999999")
    identity = ContactIdentity.objects.get()
    assert (identity.channel, identity.kind, identity.address) == ("whatsapp", "phone", "51999999999")
    assert door.get("/conversations?channel=whatsapp")["items"][0]["user_id"] == "ann"
    assert Conversation.objects.get(channel="whatsapp").device == identity
    assert Conversation.objects.get(channel="messenger").device is None


# --- voice ------------------------------------------------------------------------------------------------------------
def test_a_caller_s_words_are_voice_chunks_of_the_call(door: Door) -> None:
    one = door.says("Hello?", channel="voice", thread="call-1", message_id="1")
    other = door.says("Hello?", channel="voice", thread="call-2", message_id="2")
    more = door.says("Can you hear me?", channel="voice", thread="call-1", message_id="3")
    assert one["conversation_id"] == more["conversation_id"] != other["conversation_id"]
    assert [role for _, role, _ in chunks(one["conversation_id"])] == ["system", "memory", "voice", "voice"]
    assert set(Conversation.objects.values_list("thread", flat=True)) == {"call-1", "call-2"}


def test_a_thread_means_nothing_on_a_text_channel(door: Door) -> None:
    assert door.says("Hello", thread="x")["conversation_id"] == door.says("Hello", thread="y")["conversation_id"]
    assert Conversation.objects.get().thread == ""


# --- sessions ---------------------------------------------------------------------------------------------------------
def test_channels_and_people_have_sessions_of_their_own(door: Door) -> None:
    for user_id in ("ann", "bob"):
        for channel in CHANNELS:
            assert door.says("Hello", channel=channel, user_id=user_id)["created"] is True
    assert Contact.objects.count() == 2
    assert Conversation.objects.count() == 10


def test_a_message_revives_a_stale_session(door: Door) -> None:
    opened = door.says("Hello", phone="+51999999999")
    sweep.sweep(timezone.now() + timedelta(minutes=11))
    assert Conversation.objects.get().status == "stale"

    answer = door.says("Still there?")

    assert answer == {**answer, "conversation_id": opened["conversation_id"], "created": False, "status": "active"}
    assert Conversation.objects.get().status == "active"
    revived = ConversationEvent.objects.get(kind="revived")
    assert (revived.from_status, revived.to_status, revived.actor) == ("stale", "active", "contact")


@pytest.mark.parametrize("end", ["closed", "expired"])
def test_nothing_revives_an_ended_session(end: str, door: Door) -> None:
    ended = door.says("Hello", phone="+51999999999")["conversation_id"]
    if end == "closed":
        close(ended)
    else:
        sweep.sweep(timezone.now() + timedelta(hours=25))
    answer = door.says("Hello again")
    assert (answer["created"], answer["position"]) == (True, 3)
    assert Conversation.objects.get(pk=ended).status == end


# --- the same message again -------------------------------------------------------------------------------------------
def test_a_message_seen_before_changes_nothing(door: Door) -> None:
    first = door.says("Hello", message_id="m1")
    door.says("More", message_id="m2")
    before = Conversation.objects.values().get()
    for words in ("Hello", "other words"):
        again = door.says(words, message_id="m1", phone="+51999999999", name="Ann")
        assert again == {**first, "created": False, "duplicate": True}
    assert Conversation.objects.values().get() == before
    assert (Chunk.objects.count(), Contact.objects.get().phone) == (4, None)


def test_a_message_seen_before_opens_nothing_after_its_session_s_end(door: Door) -> None:
    first = door.says("Hello", message_id="m1")
    close(first["conversation_id"])
    assert door.says("Hello", message_id="m1") == {**first, "created": False, "duplicate": True, "status": "closed"}
    second = door.says("Hello", message_id="m2")
    assert second["created"] is True
    assert door.says("Hello", message_id="m1")["conversation_id"] == first["conversation_id"]
    assert Conversation.objects.count() == 2


def test_a_message_id_is_one_person_s_on_one_channel(door: Door) -> None:
    told_apart = [
        door.says("Hello", message_id="m1"),
        door.says("Hello", message_id="m1", channel="whatsapp"),
        door.says("Hello", message_id="m1", user_id="bob"),
        door.says("Hello", message_id="M1"),
        door.says("Hello", message_id=" m1"),
    ]
    assert [each["duplicate"] for each in told_apart] == [False] * 5
    assert len({each["chunk_id"] for each in told_apart}) == 5


@pytest.mark.parametrize("without", [{}, {"message_id": None}, {"message_id": ""}])
def test_without_an_id_the_same_words_are_two_messages(without: dict[str, Any], door: Door) -> None:
    assert [door.says("Yes", **without)["position"] for _ in range(3)] == [3, 4, 5]


# --- how a session begins ---------------------------------------------------------------------------------------------
def test_a_session_begins_with_the_client_s_goal_and_the_default_assistant_s_prompt(door: Door, shop: Client) -> None:
    Client.objects.filter(pk=shop.pk).update(default_goal="Sell hats")
    factories.AssistantFactory(client=shop, key="bea", system_prompt="You are Bea.", is_default=False)
    answer = door.says("Hello")
    seen = door.get(f"/conversations/{answer['conversation_id']}")
    assert (seen["goal"], seen["assistant"]) == ("Sell hats", "ada")
    assert chunks(answer["conversation_id"])[0] == (1, "system", "You are Ada, of the shop.")


def test_the_account_s_own_assistant_goes_first(door: Door, shop: Client) -> None:
    bea = factories.AssistantFactory(client=shop, key="bea", system_prompt="You are Bea.", is_default=False)
    ChannelAccount.objects.filter(channel="orb").update(assistant=bea)
    assert chunks(door.says("Hello", channel="orb")["conversation_id"])[0][2] == "You are Bea."
    assert chunks(door.says("Hello", channel="sms")["conversation_id"])[0][2] == "You are Ada, of the shop."


def test_a_client_without_an_assistant_has_a_session_all_the_same(door: Door) -> None:
    Assistant.objects.all().delete()
    assert chunks(door.says("Hello")["conversation_id"])[0][2] == opening.DEFAULT_SYSTEM_PROMPT


def test_a_session_begins_with_what_earlier_ones_were_about(door: Door) -> None:
    for channel, summary in [("sms", "Ann lost a parcel."), ("orb", "Ann found it."), ("voice", "")]:
        close(door.says("Hello", channel=channel, phone="+51999999999")["conversation_id"], summary)
    still_open = door.says("Hello", channel="messenger")["conversation_id"]
    Conversation.objects.filter(pk=still_open).update(summary="not over yet")

    begun = chunks(door.says("Hello again")["conversation_id"])

    day = f"{Conversation.objects.get(summary='Ann found it.').started_at:%Y-%m-%d}"
    assert begun[1][:2] == (2, "memory")
    assert begun[1][2].splitlines() == [
        "What is known of this contact:",
        "- Phone number: known",
        "",
        "From earlier sessions with this contact:",
        f"- {day}: Ann found it.",
        f"- {day}: Ann lost a parcel.",
    ]


def test_of_a_stranger_nothing_is_known(door: Door) -> None:
    close(door.says("Hello", user_id="bob", phone="+51999999999")["conversation_id"], "Bob lost a parcel.")
    assert chunks(door.says("Hello")["conversation_id"])[1] == (2, "memory", opening.NOTHING_KNOWN)


# --- who owes a reply -------------------------------------------------------------------------------------------------
def test_every_message_makes_a_reply_due(door: Door) -> None:
    door.says("Hello")
    first = Conversation.objects.get()
    Conversation.objects.update(reply_owed=False, reply_due_at=None)
    door.says("Anybody?")
    second = Conversation.objects.get()
    assert (first.reply_owed, second.reply_owed) == (True, True)
    assert first.reply_due_at is not None
    assert second.reply_due_at is not None
    assert (first.inbound_sequence, second.inbound_sequence) == (1, 2)


def test_a_client_that_answers_by_itself_owes_none(door: Door, shop: Client) -> None:
    Client.objects.filter(pk=shop.pk).update(auto_reply=False)
    for _ in range(2):
        door.says("Hello")
    door.says("Hello", phone="+51999999999")
    conversation = Conversation.objects.get()
    assert (conversation.reply_owed, conversation.inbound_sequence) == (False, 3)
