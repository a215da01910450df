"""A session of the copilot begins as every other conversation of the same person does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from channels_out.kinds import AddressKind
from conversations.models import ChannelAccount, Chunk, Client, Contact, ContactIdentity, Conversation
from conversations.services.core.person import Person
from conversations.services.inbound import messages
from tests import factories
from tests.copilot.reading import Browser

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("writer")]

NUMBER = "51999999999"
SUMMARIES = ["Wants a kettle.", "", "Her roof leaks: " + "drip " * 900, "雨" * 1_500, "Moved to Lima."]


@pytest.fixture
def known(ann: Browser, roofers: Client) -> Contact:
    """Ann, of whom the roofers know a name and a phone, who has written on WhatsApp before."""
    ann.ask("Hello")
    Conversation.objects.all()._raw_delete(using="default")
    contact = Contact.objects.get()
    Contact.objects.filter(pk=contact.pk).update(phone=f"+{NUMBER}", name="Ann  Lee")
    ContactIdentity.objects.create(
        contact=contact, client=roofers, channel="whatsapp", kind=AddressKind.PHONE, address=NUMBER
    )
    now = timezone.now()
    for days, summary in enumerate(SUMMARIES, 1):
        at = now - timedelta(days=days)
        ended: dict[str, Any] = {"status": "closed", "ended_by": "user", "ended_at": at, "started_at": at}
        factories.ConversationFactory(
            client=roofers, contact=contact, channel="whatsapp", thread="", summary=summary, last_message_at=at, **ended
        )
    contact.refresh_from_db()
    return contact


def memory_of(conversation_id: Any) -> Chunk:
    return Chunk.objects.get(conversation=conversation_id, position=2, role="memory")


def opened_on_whatsapp(client: Client) -> Chunk:
    account = factories.SandboxFactory(client=client, channel="whatsapp")
    person = Person(address=NUMBER, kind=AddressKind.PHONE, phone=f"+{NUMBER}")
    where = {"channel": "whatsapp", "scope": "tests", "account": ChannelAccount.objects.get(pk=account.pk)}
    message = messages.InboundText(person=person, text="Hello", message_id="m1", at=timezone.now(), **where)
    return memory_of(messages.settle(client, message).conversation_id)


def test_it_opens_with_the_memory_that_a_whatsapp_conversation_opens_with(
    ann: Browser, roofers: Client, known: Contact
) -> None:
    by_copilot = memory_of(ann.ask("Good morning")[0].data["session_id"])
    by_whatsapp = opened_on_whatsapp(roofers)
    assert by_copilot.content == by_whatsapp.content
    assert by_copilot.metadata == by_whatsapp.metadata
    assert "- Name: Ann Lee" in by_copilot.content
    assert "- Phone number: known" in by_copilot.content
    assert [each["why"] for each in by_copilot.metadata["recalled"]] == ["last summaries"] * 2
    assert "Wants a kettle." in by_copilot.content
    assert "Moved to Lima." not in by_copilot.content, "the long summaries have used the room"


def test_what_staff_say_is_known_stands_in_both(ann: Browser, roofers: Client, known: Contact) -> None:
    now = timezone.now()
    Contact.objects.filter(pk=known.pk).update(known="Prefers mornings.", known_at=now, known_until=now)
    by_copilot = memory_of(ann.ask("Good morning")[0].data["session_id"])
    by_whatsapp = opened_on_whatsapp(roofers)
    assert (
        by_copilot.content
        == by_whatsapp.content
        == (f"What staff say is known of this contact ({now:%Y-%m-%d}):\nPrefers mornings.")
    )


def test_the_system_chunk_and_the_ledger_say_who_opened_it(ann: Browser, roofers: Client) -> None:
    ann.ask("Hello", role="pm")
    conversation = Conversation.objects.get()
    system = Chunk.objects.get(conversation=conversation, position=1)
    assert (system.role, system.content) == ("system", "You help as Project manager.")
    opened = conversation.events.get(kind="opened")
    assert (opened.actor, opened.actor_name, opened.to_status) == ("contact", "ann", "active")
    assert conversation.thread == str(conversation.pk)
    assert conversation.goal == roofers.default_goal
