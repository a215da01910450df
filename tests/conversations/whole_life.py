"""Somebody of whom something is kept in every table that can hold anything of a person."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth import get_user_model
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.utils import timezone

from conversations.models import (
    Activity,
    AgentState,
    Attachment,
    CallAnswer,
    ChannelAccount,
    Contact,
    ContactIdentity,
    ContactMatch,
    Conversation,
    ConversationLabel,
    Correction,
    Delta,
    DeskState,
    Draft,
    EngineChat,
    Event,
    EventDelivery,
    EventEndpoint,
    EventNote,
    Feedback,
    IdempotencyKey,
    InboundEvent,
    Label,
    MailMark,
    Mention,
    OrderLink,
    PendingHandover,
    Presence,
    Proposal,
    Rating,
    RollingSummary,
    SavedView,
    SeenPosition,
    SendPause,
    SimulatedExchange,
    StaffAction,
    StaffMail,
    StaffNote,
    ToolCall,
    Turn,
)
from conversations.services.core.ledger import SYSTEM
from conversations.services.history import remember
from conversations.services.staff_actions import send
from conversations.services.transitions import closing
from tests import factories
from tests.conftest import reply_to_all, send_all

PHONE = "+51999000077"
WORDS = ("Zebulon", "Quagmire", PHONE.removeprefix("+"), "zeb-77")
REFERENCES = ("conversation_id", "contact_id", "chunk_id", "turn_id", "first_id")  # columns that name what is theirs


def a_life(door: Any) -> Contact:
    """Somebody with an ended and remembered session, an open one, steps, a reply, a raw payload and a trail."""
    who = {"user_id": "zeb-77", "phone": PHONE, "name": "Zebulon"}
    first = door.says("My Quagmire leaks", message_id="m1", **who)["conversation_id"]
    reply_to_all()
    send_all()
    door.call("POST", f"/conversations/{first}/steps", {"description": "Mend the Quagmire"}, **{"Idempotency-Key": "1"})
    closing.close(first, ended_by="system", actor=SYSTEM, now=timezone.now(), reason="Quagmire mended")
    remember.remember_ended()
    second = door.says("The Quagmire again", message_id="m2", **who)["conversation_id"]
    send.send(second, "Dear Zebulon", actor=SYSTEM, now=timezone.now())
    contact = Contact.objects.get(user_id="zeb-77")
    InboundEvent.objects.create(
        client=contact.client, provider="whatsapp", kind="reaction", reason="not_a_turn", raw={"from": PHONE[1:]}
    )
    return contact


def everything_else(contact: Contact) -> None:
    """Add a row to each table that `a_life` leaves empty."""
    client, now = contact.client, timezone.now()
    conversation = Conversation.objects.open().get(contact=contact)
    chunk = conversation.chunks.first()
    account = ChannelAccount.objects.get(client=client, channel="sms")
    turn = Turn.objects.create(conversation=conversation, attempt=1, inbound_sequence=1, lease_until=now, streamed=True)
    Delta.objects.create(turn=turn, attempt=1, start=0, text="Dear Zebulon")
    AgentState.objects.create(conversation=conversation, context={"about": "Quagmire"})
    OrderLink.objects.create(conversation=conversation, order_id="Quagmire 1")
    CallAnswer.objects.create(conversation=conversation, key="1", then="listen")
    Correction.objects.create(chunk=chunk, kind="correction", text="The Quagmire")
    Feedback.objects.create(chunk=chunk, conversation=conversation, rating="up", note="Quagmire")
    EngineChat.objects.create(chat_id="chat", conversation=conversation, agent_id="a", analysis={"about": "Quagmire"})
    RollingSummary.objects.create(conversation=conversation, upto=1)
    of_event = {"client": client, "kind": "message.in", "conversation_id": conversation.pk}
    endpoint = EventEndpoint.objects.create(client=client, url="https://example.com/events")
    at = {"source": "chunk", "source_id": 1, "private": False, "occurred_at": now}
    Event.objects.create(**of_event, **at, position=1)
    EventNote.objects.create(**of_event)
    EventDelivery.objects.create(**of_event, endpoint=endpoint, position=1)
    about = {"client": client, "conversation": conversation, "chunk": chunk}
    Activity.objects.create(**about, kind="edit", text="The Quagmire", occurred_at=now)
    Attachment.objects.create(**about, number=0, kind="document", name="Quagmire.pdf", source="1")
    ToolCall.objects.create(client=client, conversation=conversation, name="mend", key="k", status="waiting")
    alias = factories.ContactFactory(client=client, user_id="zeb-77 of old", is_guest=False, merged_into=contact)
    ContactIdentity.objects.create(contact=contact, client=client, channel="sms", kind="phone", address=PHONE + "1")
    other = factories.ContactFactory(client=client, user_id="somebody else")
    first, second = sorted((contact, other), key=lambda each: each.pk)
    ContactMatch.objects.create(client=client, first=first, second=second, evidence="same_phone")
    SendPause.objects.create(channel_account=account, to_address=PHONE, until=now)
    SimulatedExchange.objects.create(
        account=account, kind="message", method="POST", address="/", text="a Quagmire zeb-77"
    )
    expires_at = now + timedelta(hours=1)
    kept = {"client": client, "fingerprint": b"", "expires_at": expires_at}
    IdempotencyKey.objects.create(key="of zeb-77", **kept)
    IdempotencyKey.objects.create(key="2", answer='{"user_id": "zeb-77"}', **kept)
    IdempotencyKey.objects.create(key="3", conversation=conversation, answer='"Quagmire"', **kept)
    user = get_user_model().objects.create_user("mona of the shop")
    beside = {"client": client, "conversation": conversation}
    DeskState.objects.create(**beside, assignee=user, priority=1)
    ConversationLabel.objects.create(**beside, label=Label.objects.create(client=client, name="vip"))
    note = StaffNote.objects.create(**beside, author=user, author_name="mona", text="Zebulon called")
    Mention.objects.create(**beside, note=note, user=user)
    Draft.objects.create(**beside, user=user, text="Dear Zebulon")
    SeenPosition.objects.create(**beside, user=user, position=1)
    Presence.objects.create(**beside, user=user, seen_at=now)
    SavedView.objects.create(client=client, owner=user, name="Leaks", filters={"q": "zebulon"})
    PendingHandover.objects.create(**beside, due_at=now, reason="the Quagmire", actor="system")
    mail = StaffMail.objects.create(client=client, user=user, kind="waiting", due_at=now)
    MailMark.objects.create(**beside, user=user, mail=mail, since=now)
    Rating.objects.create(**beside, scale="five", asked_at=now, rated_at=now, score=2)
    Proposal.objects.create(**beside, text="Dear Zebulon", inbound_sequence=1)
    Contact.objects.filter(client=client, pk=contact.pk).update(
        staff_name="Zebulon Quagmire", email="zeb-77@example.com", attributes={"Of": "Quagmire"}
    )
    for each in (contact, alias):
        StaffAction.objects.create(
            client=client,
            user_name="mona",
            verb="changed",
            object_type="contact",
            object_id=str(each.pk),
            object_name=str(each),
            changes={"name": ["", "Zebulon"]},
        )
        LogEntry.objects.create(
            user=user,
            content_type=ContentType.objects.get_for_model(Contact),
            object_id=str(each.pk),
            object_repr=str(each),
            action_flag=CHANGE,
            change_message="Zebulon",
        )


def tables_of_a_person() -> list[str]:
    """Return the tables with a column that names a contact, a conversation or what is below one."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT table_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND column_name = ANY(%s) ORDER BY 1",
            [list(REFERENCES)],
        )
        return [table for (table,) in cursor.fetchall()]


def traces(words: tuple[str, ...] = WORDS) -> dict[str, list[str]]:
    """Return the rows that hold one of the words, by their table."""
    found = {}
    with connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{table}" t WHERE t::text ~* %s', ["|".join(words)])
            if rows := [row for (row,) in cursor.fetchall()]:
                found[table] = rows
    return found
