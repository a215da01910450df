"""A message in the client's own JSON goes to the person, the conversation and the account that are right now.

Each may have changed since the last message. Every case is tried in front of Django and behind.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.utils import timezone

from conversations.models import ChannelAccount, Chunk, Client, Contact, ContactMatch, Conversation
from conversations.services.core.ledger import SYSTEM
from conversations.services.retention import erasure
from conversations.services.transitions import takeover
from tests import factories
from tests.conftest import reply_to_all
from tests.conversations.conftest import close
from tests.conversations.own_json import Program
from tests.routes import WebServer, written

pytestmark = pytest.mark.django_db


# --- the person -------------------------------------------------------------------------------------------------------
def test_another_client_s_person_of_the_same_user_id_is_somebody_else(
    program: Program, neighbour: Client, neighbours_key: str
) -> None:
    theirs = Program(WebServer(), neighbour.pk, neighbours_key)
    theirs.says("Hello", user_id="ann")
    close(theirs.says("Hello", user_id="eve")["conversation_id"], summary="Eve is ill.")
    Contact.objects.filter(client=neighbour).update(known="Owes money.", opted_out={"sms": {"word": "STOP"}})
    before = Chunk.objects.filter(conversation__client=neighbour).count()
    for user_id in ("ann", "eve"):
        for _ in range(2):
            data = program.says(user_id=user_id)
            placed = Conversation.objects.select_related("contact").get(pk=data["conversation_id"])
            assert (placed.client_id, placed.contact.client_id) == (program.client_id, program.client_id)
            assert placed.reply_owed
        memory = placed.chunks.get(role="memory").content
        assert "ill" not in memory
        assert "money" not in memory
    assert Chunk.objects.filter(conversation__client=neighbour).count() == before


def test_two_people_of_one_client_have_conversations_of_their_own(met: Program) -> None:
    bea = met.says("I am Bea", user_id="bea")["conversation_id"]
    ann = met.says("I am Ann")["conversation_id"]
    assert ann != bea
    assert met.says("Bea again", user_id="bea")["conversation_id"] == bea
    said = Chunk.objects.filter(conversation=bea, role="user").values_list("content", flat=True)
    assert sorted(said) == ["Bea again", "I am Bea"]


def test_a_conversation_is_of_its_channel_and_call(met: Program) -> None:
    """A message elsewhere opens a conversation there, and each goes on where it was."""
    where = [
        {"channel": "sms"},
        {"channel": "whatsapp"},
        {"channel": "voice", "thread": "call-1"},
        {"channel": "voice", "thread": "call-2"},
    ]
    first = [met.says(**each)["conversation_id"] for each in where]
    assert len(set(first)) == 4
    assert [met.says("And again", **each)["conversation_id"] for each in where] == first
    assert Conversation.objects.filter(pk__in=first).values_list("contact", flat=True).distinct().count() == 1


OPT_OUT = {"word": "STOP"}


@pytest.mark.parametrize("message", [{}, {"user_id": "eve"}], ids=["in a conversation", "opens one"])
def test_who_opted_out_meanwhile_is_heard_and_not_answered(met: Program, message: dict[str, Any]) -> None:
    Contact.objects.filter(client=met.client_id).update(opted_out={"sms": OPT_OUT})
    Conversation.objects.update(reply_owed=False)
    data = met.says("Where is it?", **message)
    conversation = Conversation.objects.get(pk=data["conversation_id"])
    assert conversation.chunks.get(position=data["position"]).content == "Where is it?"
    assert not conversation.reply_owed
    elsewhere = Conversation.objects.get(pk=met.says("And here?", channel="whatsapp", **message)["conversation_id"])
    assert elsewhere.reply_owed, "the opt-out is of one channel"


@pytest.mark.parametrize("user_id", ["ann", "eve", "bea"])
def test_a_wish_is_followed_wherever_it_is_told(met: Program, shop: Client, user_id: str) -> None:
    for word, wanted in (("STOP", ["sms"]), ("START", [])):
        data = met.says(word, user_id=user_id)
        conversation = Conversation.objects.select_related("contact").get(pk=data["conversation_id"])
        assert conversation.chunks.get(position=data["position"]).content == word
        assert list(conversation.contact.opted_out) == wanted
        if user_id != "ann":
            close(conversation.pk)


@pytest.mark.parametrize("message", [{}, {"user_id": "eve"}, {"user_id": "bea"}], ids=["appended", "known", "new"])
def test_a_client_that_answers_by_hand_owes_no_reply(met: Program, message: dict[str, Any]) -> None:
    Client.objects.filter(pk=met.client_id).update(auto_reply=False)
    Conversation.objects.update(reply_owed=False)
    assert not Conversation.objects.get(pk=met.says(**message)["conversation_id"]).reply_owed


@pytest.mark.parametrize("user_id", ["ann", "eve"])
def test_who_was_erased_meanwhile_begins_anew(met: Program, shop: Client, user_id: str) -> None:
    before = Contact.objects.get(client=shop, user_id=user_id)
    Contact.objects.filter(pk=before.pk).update(known="Prefers mornings.", name="Ann")
    erasure.begin(before.pk, actor=SYSTEM, now=timezone.now())

    again = met.says("Hello", user_id=user_id, message_id="m1")
    assert (again["duplicate"], again["status"], again["conversation_id"]) == (True, "deleted", None)
    assert not Conversation.objects.filter(client=shop, contact__user_id=user_id).exists()
    data = met.says("Hello, I am new", user_id=user_id)
    assert data["created"]
    conversation = Conversation.objects.get(pk=data["conversation_id"])
    assert conversation.contact_id != before.pk
    assert "mornings" not in conversation.chunks.get(role="memory").content


@pytest.mark.parametrize("told", [{}, {"name": "Ann Lee"}, {"message": "STOP"}], ids=["usual", "a new name", "opt-out"])
def test_that_somebody_was_erased_is_nothing_to_others(met: Program, shop: Client, told: dict[str, Any]) -> None:
    eve = Contact.objects.get(client=shop, user_id="eve")
    erasure.begin(eve.pk, actor=SYSTEM, now=timezone.now())
    said = met.says(**{"message": "Still here", "message_id": "m2", **told})
    assert (said["duplicate"], said["status"], said["position"]) == (False, "active", 4)


@pytest.mark.parametrize("user_id", ["ann", "eve"])
def test_who_was_merged_meanwhile_writes_as_the_contact_that_was_kept(met: Program, shop: Client, user_id: str) -> None:
    kept = factories.ContactFactory(client=shop, user_id="kept", name="Kept")
    Conversation.objects.filter(client=shop, contact__user_id=user_id).update(contact=kept)
    Contact.objects.filter(client=shop, user_id=user_id).update(merged_into=kept, is_guest=False)
    for _ in range(2):
        assert Conversation.objects.get(pk=met.says(user_id=user_id)["conversation_id"]).contact_id == kept.pk


def test_a_hold_keeps_what_is_there_and_what_comes(met: Program) -> None:
    Contact.objects.filter(client=met.client_id).update(hold_reason="Lawsuit")
    Conversation.objects.filter(client=met.client_id).update(hold_reason="Lawsuit")
    assert not met.says()["created"]
    assert met.says(user_id="eve")["created"]
    assert set(Contact.objects.filter(client=met.client_id).values_list("hold_reason", flat=True)) == {"Lawsuit"}


@pytest.mark.parametrize("message", [{}, {"user_id": "eve"}], ids=["in a conversation", "opens one"])
def test_a_new_name_or_phone_of_the_person_is_learnt(met: Program, shop: Client, message: dict[str, Any]) -> None:
    user_id = message.get("user_id", "ann")
    for told in (
        {"name": "Ann"},
        {"name": "Ann Lee"},
        {"phone": "+51999999991"},
        {"phone": "+51999999992", "name": "Ann Lee"},
    ):
        close(met.says(user_id="eve")["conversation_id"])
        met.says(**message, **told)
        contact = Contact.objects.get(client=shop, user_id=user_id)
        assert {name: getattr(contact, name) for name in told} == told


def test_somebody_new_with_a_known_phone_is_noted_for_staff(met: Program, shop: Client) -> None:
    met.says(phone="+51999999999")
    conversation_id = met.says(user_id="bea", phone="+51999999999")["conversation_id"]
    assert Conversation.objects.get(pk=conversation_id).contact.user_id == "bea"
    pair = ContactMatch.objects.get(client=shop)
    assert {pair.first.user_id, pair.second.user_id} == {"ann", "bea"}


# --- the conversation -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("status", ["expired", "closed", "archived"])
def test_a_conversation_that_ended_a_moment_ago_takes_no_message(met: Program, shop: Client, status: str) -> None:
    ended = Conversation.objects.get(client=shop, contact__user_id="ann")
    by = {"closed": "user", "expired": "timeout", "archived": "timeout"}[status]
    Conversation.objects.filter(pk=ended.pk).update(
        status=status, ended_at=timezone.now(), ended_by=by, reply_owed=False, reply_due_at=None, burst_began_at=None
    )
    data = met.says()
    assert data["created"]
    assert data["conversation_id"] != str(ended.pk)
    assert ended.chunks.filter(role="user").count() == 1


def test_a_stale_conversation_becomes_active_again(met: Program, shop: Client) -> None:
    stale = Conversation.objects.get(client=shop, contact__user_id="ann")
    Conversation.objects.filter(pk=stale.pk).update(status="stale")
    assert met.says()["conversation_id"] == str(stale.pk)
    stale.refresh_from_db()
    assert stale.status == "active"
    assert stale.events.filter(kind="revived").count() == 1


def test_a_conversation_that_a_colleague_took_a_moment_ago_takes_the_message_and_is_not_answered(
    met: Program, shop: Client
) -> None:
    conversation = Conversation.objects.get(client=shop, contact__user_id="ann")
    takeover.take_over(conversation.pk, actor=SYSTEM, now=timezone.now(), name="Maria")
    assert met.says("Anybody?")["conversation_id"] == str(conversation.pk)
    reply_to_all()
    newest = conversation.chunks.order_by("-position").first()
    assert newest is not None
    assert newest.content == "Anybody?"


@pytest.mark.parametrize("words", ["Hello", "STOP"])
@pytest.mark.parametrize("user_id", ["ann", "eve"])
def test_a_message_of_a_purged_conversation_stays_away(met: Program, shop: Client, user_id: str, words: str) -> None:
    met.says(words, user_id=user_id, message_id="m2")
    contact = Contact.objects.get(client=shop, user_id=user_id)
    erasure.begin(contact.pk, actor=SYSTEM, now=timezone.now())
    met.says("Hello, I am new", user_id=user_id)
    before = written()
    again = met.says(words, user_id=user_id, message_id="m2")
    assert (again["duplicate"], again["status"], again["position"]) == (True, "deleted", None)
    assert written() == before


# --- the account that a new conversation is on ------------------------------------------------------------------------
@pytest.mark.parametrize("user_id", ["eve", "bea"])
def test_a_conversation_opens_on_an_account_of_the_client_that_is_on(met: Program, shop: Client, user_id: str) -> None:
    def opened_on() -> Any:
        data = met.says(user_id=user_id)
        close(data["conversation_id"])
        return Conversation.objects.get(pk=data["conversation_id"]).channel_account_id

    [first] = ChannelAccount.objects.filter(client=shop, channel="sms")
    second = factories.SandboxFactory(client=shop, channel="sms", address="second")
    assert opened_on() == first.pk, "the older one"
    ChannelAccount.objects.filter(pk=first.pk).update(is_active=False)
    assert opened_on() == second.pk
    ChannelAccount.objects.filter(pk=second.pk).update(is_simulated=True)
    assert opened_on() is None
    ChannelAccount.objects.filter(pk=second.pk).update(is_simulated=False, is_active=False)
    assert opened_on() is None


@pytest.mark.parametrize("user_id", ["eve", "bea"])
def test_a_conversation_is_answered_by_its_account_s_assistant_else_by_the_client_s(
    met: Program, shop: Client, user_id: str
) -> None:
    def prompt() -> str:
        data = met.says(user_id=user_id)
        close(data["conversation_id"])
        return str(Chunk.objects.get(conversation=data["conversation_id"], position=1).content)

    factories.AssistantFactory(client=shop, key="other", is_default=False, system_prompt="You are another.")
    special = factories.AssistantFactory(client=shop, key="special", is_default=False, system_prompt="You are Special.")
    assert prompt() == "You are Ada, of the shop."
    ChannelAccount.objects.filter(client=shop, channel="sms").update(assistant=special)
    assert prompt() == "You are Special."
    ChannelAccount.objects.filter(client=shop, channel="sms").update(assistant=None)
    shop.assistants.update(is_default=False)
    assert "Ada" not in prompt(), "none is the default, and the neighbour's is not ours"
