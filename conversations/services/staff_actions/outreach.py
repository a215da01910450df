"""Sessions that begin on our side: whom we write to, what about, and the assistant's first words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import IntegrityError, transaction

from channels_out.kinds import AddressKind, Channel
from channels_out.phones import REACHED_BY_PHONE, e164, phone_address
from conversations.models import Assistant, Client, Contact, Conversation
from conversations.services.contacts import contacts
from conversations.services.core import redaction
from conversations.services.core.appending import NewChunk
from conversations.services.core.errors import ConflictError, InvalidError, UnavailableError
from conversations.services.core.ledger import Actor
from conversations.services.core.opening import open_conversation
from conversations.services.core.person import Person

TRIES = 5
CHANNELS = (Channel.WHATSAPP, Channel.SMS, Channel.MESSENGER, Channel.ORB)  # calls and web sessions begin elsewhere
MOST_VARIABLES = 50
LONGEST_NAME = 100  # characters of a variable's name
LONGEST_VALUE = 2_000


@dataclass(frozen=True, slots=True)
class Outreach:
    """Whom to write to, by `phone` or by `user_id` (the client's own id of the person), and what about.

    variables   what the assistant is to know, by name; numbers and booleans become text
    assistant   the key of the one who writes; '' for the client's usual one on the channel
    greet       whether the assistant speaks first; without it the session waits for a `send`
    """

    channel: str
    phone: str = ""
    user_id: str = ""
    name: str = ""
    goal: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    assistant: str = ""
    greet: bool = True


def begin(client: Client, wanted: Outreach, *, actor: Actor, now: datetime) -> Conversation:
    """The person has a new open session on the channel, and, where wanted, the assistant owes it its first words: they
    are written and sent like any reply.

    Raises InvalidError, ConflictError (`already_open`, whose details name the session) where the person has one on the
    channel, UnavailableError.
    """
    if wanted.channel not in CHANNELS:
        raise InvalidError(f"A session can be opened on {', '.join(CHANNELS)}.", code="unknown_channel")
    rules = redaction.rules_of(client)
    person, variables = _person(wanted), rules.clean_json(as_text(wanted.variables))
    assistant = _assistant(client, wanted.assistant) if wanted.assistant else None
    said = NewChunk(channel=wanted.channel, thread="", at=now, text="")
    for _ in range(TRIES):
        try:
            with transaction.atomic():
                contact, device = contacts.find_or_create(client, wanted.channel, person)
                if wanted.name and contact.name != wanted.name:
                    Contact.objects.filter(pk=contact.pk).update(name=wanted.name)
                _refuse_second(contact, wanted.channel)
                opened = open_conversation(
                    client.pk,
                    contact.pk,
                    said,
                    goal=rules.clean(wanted.goal),
                    device_id=device.pk if device else None,
                    assistant_id=assistant.pk if assistant else None,
                    actor=actor,
                )
                Conversation.objects.filter(pk=opened.conversation_id).update(
                    variables=variables,
                    metadata=rules.clean_json(dict(wanted.metadata)),
                    reply_owed=wanted.greet,
                    reply_due_at=now if wanted.greet else None,
                )
            return Conversation.objects.select_related("contact").get(pk=opened.conversation_id)
        except IntegrityError:
            continue  # somebody else was first: the same new contact, or a session. Look again.
    raise UnavailableError("Too much happens with this person at once; send it again.")


def as_text(variables: Mapping[str, Any]) -> dict[str, str]:
    """The variables as Retell takes them: all of them text. Raises InvalidError."""
    if len(variables) > MOST_VARIABLES:
        raise InvalidError(f"There can be {MOST_VARIABLES} variables.", details={"variables": ["too many"]})
    return {_name(name): _text(name, value) for name, value in variables.items()}


def _name(name: str) -> str:
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        problem = f"a name is 1 to {LONGEST_NAME} printable characters"
        raise InvalidError(f"variables: {problem}.", details={"variables": [problem]})
    return name.strip()


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str) or len(value) > LONGEST_VALUE:
        problem = f"must be text of at most {LONGEST_VALUE:,} characters, a number or a boolean"
        raise InvalidError(f"variables.{name[:LONGEST_NAME]} {problem}.", details={"variables": [problem]})
    return value


def _person(wanted: Outreach) -> Person:
    phone = e164(wanted.phone) if wanted.phone else None
    if wanted.phone and phone is None:
        problem = "must be a phone number with its country code, such as +51999999999"
        raise InvalidError(f"phone {problem}.", details={"phone": [problem]})
    if wanted.user_id:
        return Person(user_id=wanted.user_id, phone=phone, name=wanted.name)
    address = phone_address(wanted.channel, phone)
    if address is None:
        field_name = "phone" if wanted.channel in REACHED_BY_PHONE else "user_id"
        raise InvalidError(f"{field_name} is required on {wanted.channel}.", details={field_name: ["is required"]})
    return Person(address=address, kind=AddressKind.PHONE, phone=phone, name=wanted.name)


def _assistant(client: Client, key: str) -> Assistant:
    found = Assistant.objects.filter(client=client, key=key).first()
    if found is None:
        details = {"assistant": ["is unknown"]}
        raise InvalidError("There is no such assistant.", code="unknown_assistant", details=details)
    return found


def _refuse_second(contact: Contact, channel: str) -> None:
    """Raises ConflictError where the person has an open session there."""
    there = Conversation.objects.open().filter(contact=contact, channel=channel, thread="")
    if found := there.values_list("pk", flat=True).first():
        sentence = "This person has an open session on this channel already."
        raise ConflictError(sentence, code="already_open", details={"conversation_id": [str(found)]})
