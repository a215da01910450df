"""The messages of a person that open the reply window, and the template that is sent outside it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from channels_out import registry
from channels_out.contract import Adapter
from channels_out.errors import SendError
from conversations.models import Assistant, ChannelAccount, Chunk, Client, Conversation, Message
from conversations.services.delivery import claiming, outbox, reply_window, sending
from conversations.services.delivery.reply_window import SENT_AT
from tests import factories
from tests.conversations.test_outbox_rows import message_of

pytestmark = pytest.mark.django_db

DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)
WHATSAPP: Adapter = registry.adapter_for("whatsapp", "whatsapp")


@pytest.fixture
def now() -> datetime:
    """A whole second: the time that a provider gives has no fraction."""
    return timezone.now().replace(microsecond=0)


@pytest.fixture
def account(shop: Client) -> ChannelAccount:
    return ChannelAccount.objects.get(client=shop, channel="whatsapp")


@pytest.fixture
def conversation(shop: Client, account: ChannelAccount) -> Conversation:
    """An open conversation in which nobody has written for a week."""
    return factories.ConversationFactory(client=shop, channel="whatsapp", channel_account=account, aged=7 * DAY)


@pytest.fixture
def message(conversation: Conversation) -> Message:
    return message_of(conversation)


def wrote(conversation: Conversation, at: datetime, role: str = "user", **more: Any) -> None:
    """Somebody wrote in the conversation then."""
    position = 1 + max(conversation.chunks.values_list("position", flat=True), default=0)
    chunk = Chunk.objects.create(conversation=conversation, position=position, role=role, content="Hello", **more)
    Chunk.objects.filter(pk=chunk.pk).update(created_at=at)
    Conversation.objects.filter(pk=conversation.pk, last_message_at__lt=at).update(last_message_at=at)


def is_open(message: Message, now: datetime) -> bool:
    return reply_window.is_open(message, WHATSAPP, now)


# --- when it is open --------------------------------------------------------------------------------------------------
def test_it_is_open_for_a_day_to_the_instant(conversation, message, now):
    wrote(conversation, now)
    assert is_open(message, now + DAY)
    assert not is_open(message, now + DAY + TICK)


def test_what_came_late_counts_from_when_it_was_written(conversation, message, now):
    wrote(conversation, now + 20 * MINUTE, metadata={"sent_at": now.strftime(SENT_AT)})
    assert is_open(message, now + DAY)
    assert not is_open(message, now + DAY + timedelta(seconds=1))


@pytest.mark.parametrize("role", ["ai", "memory"])
def test_what_others_write_does_not_open_it(conversation, message, now, role):
    wrote(conversation, now, role)
    assert not is_open(message, now)


def test_what_they_said_opens_it_too(conversation, message, now):
    wrote(conversation, now, "voice")
    assert is_open(message, now)


def ended(like: Conversation, now: datetime, **more: Any) -> Conversation:
    """An ended conversation with the same person, on the same channel and over the same account, but for `more`."""
    given = {
        "client": like.client,
        "contact": like.contact,
        "channel": like.channel,
        "channel_account": like.channel_account,
        "status": "closed",
        "ended_by": "user",
        "ended_at": now,
        "last_message_at": now - 7 * DAY,
    }
    return factories.ConversationFactory(**{**given, **more})


def test_another_conversation_of_theirs_over_the_same_account_opens_it(conversation, message, now):
    wrote(ended(conversation, now), now)
    assert is_open(message, now)


@pytest.mark.parametrize("what", ["person", "account", "channel"])
def test_a_conversation_with_another_person_or_over_another_account_does_not(shop, conversation, message, now, what):
    second = factories.SandboxFactory(client=shop, channel="whatsapp", address="second")
    more: dict[str, Any] = {
        "person": {"contact": factories.ContactFactory(client=shop)},
        "account": {"channel_account": second},
        "channel": {"channel": "messenger"},
    }[what]
    wrote(ended(conversation, now, **more), now)
    assert not is_open(message, now)


def test_its_own_conversation_opens_it_though_it_has_another_account_now(shop, conversation, message, now):
    second = factories.SandboxFactory(client=shop, channel="whatsapp", address="second")
    Conversation.objects.filter(pk=conversation.pk).update(channel_account=second)
    wrote(conversation, now)
    assert is_open(message, now)


def test_the_newest_five_of_their_messages_are_looked_at(conversation, message, now):
    """A message that comes late stands last, though it was written before."""
    wrote(conversation, now)
    late = (now - 2 * DAY).strftime(SENT_AT)
    for _ in range(4):
        wrote(conversation, now, metadata={"sent_at": late})
        wrote(conversation, now, "ai")
    assert is_open(message, now)
    wrote(conversation, now, metadata={"sent_at": late})
    assert not is_open(message, now)


def test_a_channel_without_a_window_is_always_open(shop, now):
    sms = factories.ConversationFactory(client=shop, aged=7 * DAY)
    assert reply_window.is_open(message_of(sms), registry.adapter_for("sandbox", "sms"), now)


def test_a_provider_s_word_that_it_is_too_late_is_told_where_we_know_of_no_window(shop):
    message = message_of(factories.ConversationFactory(client=shop))
    token, _ = claiming.claim(timezone.now(), 10)
    begun = sending.begin(claiming.ClaimedMessage(message.client_id, message.pk), token, timezone.now())
    assert begun
    too_late = SendError("Too late.", code="470", outside_window=True)
    sending.record_failed(begun, too_late, timezone.now())
    message.refresh_from_db()
    assert (message.status, message.code) == ("failed", "outside_window")
    assert message.reason.startswith("More than 24 hours have passed since the person last wrote")
    assert message.reason.endswith("until they write again.")


# --- the template -----------------------------------------------------------------------------------------------------
def template(message: Message) -> str:
    """The name of the template that is sent in place of the message, or the reason that there is none."""
    conversation = Conversation.objects.get(pk=message.conversation_id)
    found = reply_window.template_for(conversation, message, WHATSAPP)
    return found if isinstance(found, str) else outbox.template_to_text(found[0])


@pytest.fixture
def assistants(shop: Client, neighbour: Client) -> None:
    """Assistants that each have a template: the shop's default one, another of the shop, and a neighbour's."""
    Assistant.objects.update(template_name="theirs", template_language="es")
    factories.AssistantFactory(client=shop, is_default=False, template_name="other", template_language="en")
    Assistant.objects.filter(client=shop, is_default=True).update(template_name="ours", template_language="es_PE")


@pytest.mark.usefixtures("assistants")
def test_the_template_is_the_conversation_s_assistant_s_else_the_default_one_s(shop, conversation, message):
    assert template(message) == "ours es_PE"
    other = Assistant.objects.get(client=shop, is_default=False)
    Conversation.objects.filter(pk=conversation.pk).update(assistant=other)
    assert template(message) == "other en"


@pytest.mark.usefixtures("assistants")
@pytest.mark.parametrize("without", ["a template", "an assistant"])
def test_no_other_assistant_s_template_is_sent(shop, message, without):
    theirs = Assistant.objects.filter(client=shop, is_default=True)
    if without == "a template":
        theirs.update(template_name="")
    else:
        theirs.delete()
    assert template(message).endswith(
        "24 hours have passed since the person last wrote, so the channel takes no free "
        "text, and the assistant has no template to send instead."
    )


@pytest.mark.usefixtures("assistants")
class TestOneTemplate:
    """A person gets one template until they write again."""

    @pytest.mark.parametrize("status", ["queued", "claimed", "sending", "unknown", "sent", "delivered", "read"])
    def test_one_that_was_sent_is_enough(self, conversation, message, now, status):
        wrote(conversation, now)
        message_of(conversation, template="ours es_PE", status=status)
        assert template(message).endswith("they have not answered the assistant's template that was sent since.")

    @pytest.mark.parametrize("status", ["failed", "cancelled"])
    def test_one_that_did_not_arrive_is_not(self, conversation, message, status):
        message_of(conversation, template="ours es_PE", status=status)
        assert template(message) == "ours es_PE"

    def test_one_that_the_message_itself_is_does_not_count(self, conversation, message):
        Message.objects.update(template="ours es_PE", status="queued")
        assert template(message) == "ours es_PE"

    def test_a_text_is_no_template(self, conversation, message):
        message_of(conversation, status="sent")
        assert template(message) == "ours es_PE"

    def test_one_to_somebody_else_does_not_count(self, shop, message, now):
        stranger = factories.ConversationFactory(client=shop, channel="whatsapp")
        message_of(stranger, template="ours es_PE", status="sent")
        assert template(message) == "ours es_PE"

    def test_one_from_before_they_wrote_does_not_count(self, conversation, message, now):
        message_of(conversation, template="ours es_PE", status="sent")
        wrote(conversation, now)
        assert template(message) == "ours es_PE"

    @pytest.mark.parametrize("by", ["the assistant", "somebody else"])
    def test_what_others_write_is_no_answer_of_theirs(self, shop, conversation, message, now, by):
        message_of(conversation, template="ours es_PE", status="sent")
        if by == "the assistant":
            wrote(conversation, now, "ai")
        else:
            wrote(factories.ConversationFactory(client=shop, channel="whatsapp"), now)
        assert "have not answered" in template(message)
