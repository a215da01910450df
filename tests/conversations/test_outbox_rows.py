"""Whose messages the outbox queues, cancels and lets go, over which account, and in how many parts."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from conversations.models import ChannelAccount, Chunk, Client, Contact, Conversation, Message, Turn
from conversations.services.core.ledger import SYSTEM, Actor
from conversations.services.delivery import opt_outs, outbox
from conversations.services.staff_actions import send
from conversations.services.transitions import closing, takeover
from tests import factories
from tests.conversations.test_retention_rules import turn_of

pytestmark = pytest.mark.django_db

GRACE = Actor("staff", "grace")
STATUSES = ("queued", "claimed", "sending", "unknown", "sent", "delivered", "read", "failed", "cancelled")


def said(conversation: Conversation, text: str = "Hello") -> Chunk:
    position = conversation.chunks.count() + 1
    return Chunk.objects.create(conversation=conversation, position=position, role="ai", content=text)


def message_of(conversation: Conversation, *, by_assistant: bool = True, **more: Any) -> Message:
    """A message in the outbox that the assistant or a colleague wrote."""
    chunk = said(conversation)
    if by_assistant:
        turn_of(conversation, chunk=chunk)
    return Message.objects.create(
        **{
            "conversation": conversation,
            "chunk": chunk,
            "channel_account": conversation.channel_account,
            "to_address": "1",
            "to_kind": "user",
            "text": "Hello",
            **more,
        }
    )


def unsettled(*messages: Message) -> dict[Any, Any]:
    """The status, code and whether it is unconditional, of each of the messages."""
    rows = Message.objects.filter(pk__in=[each.pk for each in messages])
    found = {row.pk: (row.status, row.code, row.unconditional) for row in rows}
    return {each.pk: found[each.pk] for each in messages}


@pytest.fixture
def conversation(shop: Client) -> Conversation:
    return factories.ConversationFactory(client=shop)


@pytest.fixture
def other(shop: Client) -> Conversation:
    """A conversation of somebody else."""
    return factories.ConversationFactory(client=shop)


# --- parts ------------------------------------------------------------------------------------------------------------
def test_the_parts_of_a_long_text_are_numbered_and_the_first_one_quotes(conversation):
    now = timezone.now()
    outbox.queue(conversation, said(conversation, "x" * 9000), now, reply_to="SM1")
    parts = list(Message.objects.order_by("part"))
    assert len(parts) > 2
    assert [part.part for part in parts] == list(range(1, len(parts) + 1))
    assert {part.parts for part in parts} == {len(parts)}
    assert [part.reply_to for part in parts] == ["SM1"] + [""] * (len(parts) - 1)
    assert {(part.status, part.due_at, part.created_at, part.unconditional) for part in parts} == {
        ("queued", now, now, False)
    }
    assert "".join(part.text for part in parts) == "x" * 9000


@pytest.mark.parametrize("unconditional", [True, False])
def test_a_message_is_unconditional_if_asked(conversation, unconditional):
    outbox.queue(conversation, said(conversation), timezone.now(), unconditional=unconditional)
    assert Message.objects.get().unconditional is unconditional


def test_nothing_is_queued_on_the_web_nor_in_a_call_whose_provider_fetches_it(shop):
    for channel in ("web", "voice"):
        each = factories.ConversationFactory(client=shop, channel=channel, thread="1")
        if channel == "voice":
            ChannelAccount.objects.filter(pk=each.channel_account_id).update(provider="plivo")
            each.refresh_from_db()
        assert outbox.queue(each, said(each), timezone.now()) == []
    assert not Message.objects.exists()


# --- the account ------------------------------------------------------------------------------------------------------
def test_a_conversation_without_an_account_gets_its_client_s_oldest_that_can_send(shop, neighbour):
    ChannelAccount.objects.filter(client=shop).delete()
    ago = timezone.now() - timedelta(days=9)

    def account(days: int, client: Client = shop, **more: Any) -> ChannelAccount:
        made = factories.SandboxFactory(client=client, **{"channel": "sms", "address": f"{days} days", **more})
        ChannelAccount.objects.filter(pk=made.pk).update(created_at=ago + timedelta(days=days))
        return made

    account(1, neighbour)
    account(2, channel="whatsapp")
    account(3, is_active=False)
    account(4, is_simulated=True)
    oldest = account(5)
    account(6)
    conversation = factories.ConversationFactory(client=shop, channel_account=None)
    [message] = send.send(conversation.pk, "Hello", actor=GRACE, now=timezone.now())[1]
    conversation.refresh_from_db()
    assert (message.channel_account_id, conversation.channel_account_id) == (oldest.pk, oldest.pk)


def test_a_conversation_keeps_its_account(shop):
    second = factories.SandboxFactory(client=shop, channel="sms", address="second")
    conversation = factories.ConversationFactory(client=shop, channel_account=second)
    [message] = send.send(conversation.pk, "Hello", actor=GRACE, now=timezone.now())[1]
    assert message.channel_account_id == second.pk


def test_without_an_account_the_message_fails_and_says_what_to_do(shop):
    ChannelAccount.objects.filter(client=shop).delete()
    conversation = factories.ConversationFactory(client=shop, channel_account=None)
    now = timezone.now()
    [message] = send.send(conversation.pk, "x" * 4000, actor=GRACE, now=now)[1]
    assert (message.status, message.code, message.failed_at, message.parts) == ("failed", "no_account", now, 1)
    assert "create_channel_account" in message.reason
    assert conversation.events.filter(kind="message_failed", cause="no_account").count() == 1


# --- who opted out ----------------------------------------------------------------------------------------------------
def test_who_opted_out_is_one_person_on_one_channel(shop, conversation, other):
    opt_outs.opt_out(other.contact_id, "sms", reason="told us", actor=GRACE, now=timezone.now())
    opt_outs.opt_out(conversation.contact_id, "whatsapp", reason="told us", actor=GRACE, now=timezone.now())
    assert [outbox.is_opted_out(each) for each in (conversation, other)] == [False, True]
    assert set(Contact.objects.get(pk=conversation.contact_id).opted_out) == {"whatsapp"}


def test_an_opt_out_cancels_what_waits_for_that_person_on_that_channel(shop, conversation, other):
    ended = factories.ConversationFactory(
        client=shop, contact=conversation.contact, status="closed", ended_by="user", ended_at=timezone.now()
    )
    elsewhere = factories.ConversationFactory(client=shop, contact=conversation.contact, channel="whatsapp")
    waiting = [message_of(each, status=status) for each in (conversation, ended) for status in ("queued", "claimed")]
    settled = [message_of(conversation, status=status) for status in set(STATUSES) - {"queued", "claimed"}]
    spared = [*settled, message_of(other), message_of(elsewhere)]
    before = unsettled(*spared)
    cancelled = opt_outs.opt_out(conversation.contact_id, "sms", reason="told us", actor=GRACE, now=timezone.now())
    assert cancelled == 4
    assert set(unsettled(*waiting).values()) == {("cancelled", "opted_out", False)}
    assert unsettled(*spared) == before


# --- ends and takeovers -----------------------------------------------------------------------------------------------
def test_a_close_cancels_what_waits_in_that_conversation(conversation, other):
    waiting = [message_of(conversation, status=status) for status in ("queued", "claimed")]
    Message.objects.update(lease_token=conversation.pk, lease_until=timezone.now())
    settled = [message_of(conversation, status=status) for status in set(STATUSES) - {"queued", "claimed", "sending"}]
    spared = [*settled, message_of(other), message_of(other, status="sending", unconditional=True)]
    before = unsettled(*spared)
    leaving = message_of(conversation, status="sending", unconditional=True)
    closing.close(conversation.pk, ended_by="staff", actor=SYSTEM, now=timezone.now())
    assert set(unsettled(*waiting).values()) == {("cancelled", "closed", False)}
    assert set(Message.objects.values_list("lease_token", "lease_until")) == {(None, None)}
    assert unsettled(*spared) == before
    assert unsettled(leaving)[leaving.pk] == ("sending", "", False), "it is not tried again"


def test_a_close_lets_settled_last_words_keep_what_they_were(conversation):
    last = message_of(conversation, status="sent", unconditional=True)
    closing.close(conversation.pk, ended_by="staff", actor=SYSTEM, now=timezone.now())
    assert unsettled(last)[last.pk] == ("sent", "", True)


def test_a_takeover_cancels_what_the_assistant_has_still_to_say_there(conversation, other):
    turn_of(conversation)  # one that said nothing
    waiting = [message_of(conversation, status=status) for status in ("queued", "claimed")]
    spared = [
        message_of(conversation, by_assistant=False),
        message_of(conversation, unconditional=True),
        *(message_of(conversation, status=status) for status in set(STATUSES) - {"queued", "claimed"}),
        message_of(other),
    ]
    before = unsettled(*spared)
    takeover.take_over(conversation.pk, actor=GRACE, now=timezone.now())
    assert set(unsettled(*waiting).values()) == {("cancelled", "taken_over", False)}
    assert unsettled(*spared) == before


def test_what_is_let_go_is_what_waits_in_that_conversation(conversation, other):
    waiting = [message_of(conversation, status=status) for status in ("queued", "claimed")]
    spared = [*(message_of(conversation, status=status) for status in ("sending", "sent")), message_of(other)]
    outbox.allow_sending(conversation)
    assert {each[2] for each in unsettled(*waiting).values()} == {True}
    assert {each[2] for each in unsettled(*spared).values()} == {False}


def code(message: Message) -> str:
    return outbox.cancel_code(message, Conversation.objects.select_related("contact").get(pk=message.conversation_id))


def test_a_message_of_a_conversation_that_is_gone_may_not_be_sent(conversation):
    assert outbox.cancel_code(message_of(conversation), None) == "deleted"


@pytest.mark.parametrize("by_assistant", [True, False])
def test_during_a_takeover_a_colleague_s_message_goes_and_the_assistant_s_does_not(conversation, other, by_assistant):
    message = message_of(conversation, by_assistant=by_assistant)
    message_of(other)  # somebody's assistant wrote
    assert code(message) == ""
    now = timezone.now()
    Conversation.objects.update(taken_over_at=now, taken_over_name="grace", taken_over_until=now)
    assert code(message) == ("taken_over" if by_assistant else "")
    Message.objects.update(unconditional=True)
    message.refresh_from_db()
    assert code(message) == ""


def test_after_a_stop_nothing_goes_but_its_own_confirmation(conversation, other):
    message, confirmation = message_of(conversation), message_of(conversation, by_assistant=False)
    Chunk.objects.filter(pk=confirmation.chunk_id).update(metadata={"notice": "opt_out"})
    for channels, codes in (({"whatsapp": {}}, ("", "")), ({"sms": {}}, ("opted_out", ""))):
        Contact.objects.filter(pk=conversation.contact_id).update(opted_out=channels)
        assert (code(message), code(confirmation)) == codes
    Message.objects.update(unconditional=True)
    message.refresh_from_db()
    assert code(message) == "opted_out", "not even last words"


def test_a_turn_that_said_nothing_is_nobody_s_message(conversation):
    turn_of(conversation)
    colleague_s = message_of(conversation, by_assistant=False)
    assert outbox.silence(conversation) == 0
    assert unsettled(colleague_s)[colleague_s.pk][0] == "queued"
    assert Turn.objects.get().chunk_id is None
