"""Outreach: conversations that the client begins, in which the assistant writes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils.translation import gettext

from channels_out.kinds import AddressKind, Channel
from channels_out.phones import REACHED_BY_PHONE, e164, phone_address
from conversations.models import Assistant, Client, Contact, Conversation
from conversations.services.contacts import contacts
from conversations.services.core import redaction
from conversations.services.core.appending import NewChunk
from conversations.services.core.errors import ConflictError, InvalidError, UnavailableError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing
from conversations.services.core.opening import open_conversation
from conversations.services.core.person import Person
from conversations.services.delivery import opt_outs, outbox, templates
from conversations.services.delivery.templates import WantedTemplate
from conversations.words import whole

TRIES = 5
CHANNELS = (Channel.WHATSAPP, Channel.SMS, Channel.MESSENGER, Channel.ORB)  # not calls and the web
MOST_VARIABLES = 50
LONGEST_NAME = 100  # characters of a variable's name
LONGEST_VALUE = 2_000


@dataclass(frozen=True, slots=True)
class Outreach:
    """A person to write to, and the subject.

    phone, user_id  the person: a phone number in E.164, or the client's own id of the person
    goal            what the conversation is for
    variables       values that the assistant knows, by name; numbers and booleans become text
    assistant       the key of the assistant that writes; '' for the client's default on the channel
    greet           whether the assistant writes first; if not, the conversation waits for `send`
    template        the template with which the conversation begins; the assistant then writes nothing of its own
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
    template: WantedTemplate | None = None


def start_outreach(client: Client, wanted: Outreach, *, actor: Actor, now: datetime) -> Conversation:
    """Open a conversation with the person and return it; the assistant's first message is written like any reply.

    Raises InvalidError, ConflictError (`already_open`, with the conversation's id in the details) if the person has an
    open conversation on the channel, or UnavailableError. With a template also what `send.send_template` raises; then
    nothing is opened.
    """
    if wanted.channel not in CHANNELS:
        raise InvalidError(
            gettext("A conversation can be opened on %(channels)s.") % {"channels": ", ".join(CHANNELS)},
            code="unknown_channel",
        )
    rules = redaction.rules_of(client)
    person, variables = _person(wanted), rules.clean_json(variables_as_text(wanted.variables))
    assistant = _assistant(client, wanted.assistant) if wanted.assistant else None
    first = NewChunk(channel=wanted.channel, thread="", at=now, text="")
    for _ in range(TRIES):
        try:
            with transaction.atomic():
                contact, device = contacts.find_or_create(client, wanted.channel, person)
                if wanted.name and contact.name != wanted.name:
                    Contact.objects.filter(client=client, pk=contact.pk).update(name=wanted.name)
                _refuse_second(contact, wanted.channel)
                opened = open_conversation(
                    client.pk,
                    contact.pk,
                    first,
                    goal=rules.clean(wanted.goal),
                    device_id=device.pk if device else None,
                    assistant_id=assistant.pk if assistant else None,
                    actor=actor,
                )
                greets = wanted.greet and wanted.template is None
                Conversation.objects.of(client).filter(pk=opened.conversation_id).update(
                    variables=variables,
                    metadata=rules.clean_json(dict(wanted.metadata)),
                    reply_owed=greets,
                    reply_due_at=now if greets else None,
                )
                if wanted.template:
                    _say_template(opened.conversation_id, client, wanted.template, actor, now)
            return Conversation.objects.of(client).select_related("contact").get(pk=opened.conversation_id)
        except IntegrityError:
            continue  # another process made the same contact or opened a conversation meanwhile: look again
    raise UnavailableError(gettext("This person's data changes too often at the moment. Send the request again."))


def _say_template(conversation_id: UUID, client: Client, wanted: WantedTemplate, actor: Actor, now: datetime) -> None:
    """Begin the new conversation with the template. Nothing is opened where it is refused, or the person opted out."""
    with editing(conversation_id, client) as conversation:
        opt_outs.check(conversation)
        chunk, _ = templates.say_template(conversation, wanted, now, author_id=actor.user_id)
        record(conversation, "sent", actor, chunk_id=chunk.pk)


def variables_as_text(variables: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables with all values as text, which is what Retell takes. Raises InvalidError."""
    if len(variables) > MOST_VARIABLES:
        raise InvalidError(
            gettext("There can be %(most)s variables.") % {"most": MOST_VARIABLES},
            details={"variables": ["too many"]},
        )
    return {_name(name): _text(name, value) for name, value in variables.items()}


def _name(name: str) -> str:
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable():
        problem = f"a name is 1 to {LONGEST_NAME} printable characters"
        sentence = gettext("variables: a name is 1 to %(most)s printable characters.") % {"most": LONGEST_NAME}
        raise InvalidError(sentence, details={"variables": [problem]})
    return name.strip()


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        value = str(value).lower()
    if isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str) or len(value) > LONGEST_VALUE:
        problem = f"must be text of at most {LONGEST_VALUE:,} characters, a number or a boolean"
        raise InvalidError(
            gettext("variables.%(name)s must be text of at most %(most)s characters, a number or a boolean.")
            % {"name": name[:LONGEST_NAME], "most": whole(LONGEST_VALUE)},
            details={"variables": [problem]},
        )
    return value


def _person(wanted: Outreach) -> Person:
    phone = e164(wanted.phone) if wanted.phone else None
    if wanted.phone and phone is None:
        problem = "must be a phone number with its country code, such as +51999999999"
        sentence = gettext("phone must be a phone number with its country code, such as +51999999999.")
        raise InvalidError(sentence, details={"phone": [problem]})
    if wanted.user_id:
        return Person(user_id=wanted.user_id, phone=phone, name=wanted.name)
    address = phone_address(wanted.channel, phone)
    if address is None:
        field_name = "phone" if wanted.channel in REACHED_BY_PHONE else "user_id"
        raise InvalidError(
            gettext("%(name)s is required on %(channel)s.") % {"name": field_name, "channel": wanted.channel},
            details={field_name: ["is required"]},
        )
    return Person(address=address, kind=AddressKind.PHONE, phone=phone, name=wanted.name)


def _assistant(client: Client, key: str) -> Assistant:
    found = Assistant.objects.filter(client=client, key=key).first()
    if found is None:
        details = {"assistant": ["is unknown"]}
        raise InvalidError(gettext("There is no such assistant."), code="unknown_assistant", details=details)
    return found


def _refuse_second(contact: Contact, channel: str) -> None:
    """Raise ConflictError if the person has an open conversation on the channel, over the account that would write."""
    account = outbox.default_account(contact.client_id, channel)
    over_it = Q(channel_account=account) if account else Q()
    there = Conversation.objects.of(contact.client_id).open().filter(Q(thread="") | over_it)
    there = there.filter(contact=contact, channel=channel)
    if found := there.values_list("pk", flat=True).first():
        sentence = gettext("This person has an open conversation on this channel already.")
        raise ConflictError(sentence, code="already_open", details={"conversation_id": [str(found)]})
