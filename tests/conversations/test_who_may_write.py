"""The client's own JSON counts only with a key that is valid now, and only for the key's own client.

Each fast statement checks the key, the client and the person again, so each case is tried where the message would be
appended, where it would open a conversation and where it was here before; in front of Django and behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from conversations.models import ApiKey, ChannelAccount, Chunk, Client, Contact, Conversation
from conversations.services.core.ledger import SYSTEM
from conversations.services.retention import erasure
from conversations.services.tenants import api_keys
from conversations.services.transitions import takeover
from convo_project import wsgi
from tests import factories
from tests.conftest import reply_to_all
from tests.conversations.conftest import close
from tests.routes import Answer, WebServer, assert_failure, written

pytestmark = pytest.mark.django_db


@dataclass
class Program:
    """The shop's program, which passes on what people write."""

    server: WebServer
    client_id: Any
    key: str
    bearer: bool = False

    def passes_on(self, message: str = "Hello again", *, channel: str = "sms", **more: Any) -> Answer:
        body = {"client_id": str(self.client_id), "user_id": "ann", "message": message, **more}
        return self.server.call("POST", f"/webhooks/{channel}/inbound", body, headers=self._headers())

    def says(self, message: str = "Hello again", **more: Any) -> Any:
        """The data of a message that is taken."""
        answer = self.passes_on(message, **more)
        assert answer.status == 200, answer.body
        return answer.json["data"]

    def reads(self, conversation_id: Any) -> Answer:
        return self.server.call("GET", f"/conversations/{conversation_id}", headers=self._headers())

    def _headers(self) -> dict[str, str]:
        if not self.key:
            return {}
        return {"Authorization": f"Bearer {self.key}"} if self.bearer else {"X-Service-API-Key": self.key}


@pytest.fixture(params=["in front", "view", "bearer"])
def program(request: pytest.FixtureRequest, shop: Client, key: str) -> Program:
    """The same program at each door."""
    behind = wsgi.django_application
    server = WebServer(application=behind) if request.param == "view" else WebServer()
    return Program(server, shop.pk, key, bearer=request.param == "bearer")


@pytest.fixture
def met(program: Program, neighbour: Client, neighbours_key: str) -> Program:
    """At the shop and at its neighbour's: ann is in a conversation, and eve was in one."""
    theirs = Program(WebServer(), neighbour.pk, neighbours_key)
    for each in (program, theirs):
        each.says("Hello", message_id="m1")
        close(each.says("Hello", user_id="eve", message_id="m1")["conversation_id"])
    return program


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


def revoke(key: str) -> None:
    [row] = ApiKey.objects.filter(key_hash=api_keys.key_hash(key))
    assert api_keys.revoke(row.pk)


def switch_off(client_id: Any) -> None:
    assert Client.objects.filter(pk=client_id).update(is_active=False) == 1


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


@pytest.mark.parametrize("user_id", ["ann", "eve"])
def test_who_was_merged_meanwhile_writes_as_the_contact_that_was_kept(
    met: Program, shop: Client, user_id: str
) -> None:
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


@pytest.mark.parametrize("user_id", ["ann", "eve"])
def test_a_message_of_a_purged_conversation_stays_away(met: Program, shop: Client, user_id: str) -> None:
    contact = Contact.objects.get(client=shop, user_id=user_id)
    erasure.begin(contact.pk, actor=SYSTEM, now=timezone.now())
    met.says("Hello, I am new", user_id=user_id)
    before = written()
    again = met.says("Hello", user_id=user_id, message_id="m1")
    assert (again["duplicate"], again["status"], again["position"]) == (True, "deleted", None)
    assert written() == before


# --- the account that a new conversation is on ------------------------------------------------------------------------
def account_of(data: Any) -> Any:
    return Conversation.objects.get(pk=data["conversation_id"]).channel_account_id


@pytest.mark.parametrize("user_id", ["eve", "bea"])
def test_a_conversation_opens_on_an_account_of_the_client_that_is_on(
    met: Program, shop: Client, user_id: str
) -> None:
    [first] = ChannelAccount.objects.filter(client=shop, channel="sms")
    second = factories.SandboxFactory(client=shop, channel="sms", address="second")
    assert account_of(data := met.says(user_id=user_id)) == first.pk, "the older one"
    close(data["conversation_id"])
    ChannelAccount.objects.filter(pk=first.pk).update(is_active=False)
    assert account_of(data := met.says(user_id=user_id)) == second.pk
    close(data["conversation_id"])
    ChannelAccount.objects.filter(pk=second.pk).update(is_simulated=True)
    assert account_of(data := met.says(user_id=user_id)) is None
    close(data["conversation_id"])
    ChannelAccount.objects.filter(pk=second.pk).update(is_simulated=False, is_active=False)
    assert account_of(met.says(user_id=user_id)) is None


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
