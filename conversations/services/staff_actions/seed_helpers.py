"""The helper functions that the seed's specification names: find, open, append, steps and purge."""

from __future__ import annotations

from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils import timezone

from channels_out.kinds import Channel
from conversations.models import Chunk, Client, Contact, Conversation, Role, Step
from conversations.services.contacts import contacts
from conversations.services.core.appending import (
    SPOKEN_BY_PEOPLE,
    NewChunk,
    note_inbound,
    write_chunks,
)
from conversations.services.core.errors import ConflictError, InvalidError, NotFoundError
from conversations.services.core.ledger import SYSTEM
from conversations.services.core.locking import editing
from conversations.services.core.opening import open_conversation
from conversations.services.retention.retention import purge_guests
from conversations.services.transitions import steps

TRIES = 5


def get_active_conversation(user_id: str, channel: str, client_id: UUID | str | None = None) -> Conversation | None:
    """Return the open conversation of a user on a channel, or None.

    Raises ConflictError (`ambiguous`) if several clients know the user id, or the channel has several threads open.
    """
    found = Conversation.objects.open().filter(contact__in=contacts.ids_by_user_id(user_id), channel=channel)
    if client_id:
        found = found.filter(client_id=client_id)
    first_two = list(found.select_related("contact")[:2])
    if len(first_two) > 1:
        raise ConflictError(
            "Several open conversations match. Name the client, and on voice and web the conversation itself.",
            code="ambiguous",
        )
    return first_two[0] if first_two else None


def create_conversation(
    client_id: UUID | str, user_id: str, channel: str, goal: str, summary: str | None = None
) -> Conversation:
    """Open a conversation of the user on the channel, with its system and memory chunks, and return it.

    Raises NotFoundError for an unknown client, InvalidError for an unknown channel, ConflictError (`already_open`) if
    the user has an open conversation there.
    """
    if channel not in set(Channel):
        raise InvalidError(f"There is no channel {channel!r}.", code="unknown_channel")
    client = Client.objects.filter(pk=client_id).first()
    if client is None:
        raise NotFoundError("There is no such client.")
    first = NewChunk(channel=channel, thread="", at=timezone.now(), text="")
    for _ in range(TRIES):
        try:
            with transaction.atomic():
                contact = contacts.find_by_user_id(client, user_id) or Contact.objects.create(
                    client=client, user_id=user_id
                )
                opened = open_conversation(client.pk, contact.pk, first, goal=goal, summary=summary or "", actor=SYSTEM)
            return Conversation.objects.get(client=client, pk=opened.conversation_id)
        except IntegrityError:
            # Either a conversation is open, or the contact was a guest whom a purge deleted meanwhile: then try again.
            open_ones = Conversation.objects.of(client).open().filter(channel=channel, thread="")
            if open_ones.filter(contact__in=contacts.ids_by_user_id(user_id, client)).exists():
                break
    raise ConflictError("This user has an open conversation on this channel already.", code="already_open")


def append_chunk(conversation_id: UUID | str, role: str, content: str) -> Chunk:
    """Append a chunk to the open conversation at its next position and return it; a person's chunk makes a reply due.

    Raises InvalidError for an unknown role, NotFoundError, or ConflictError (`ended`).
    """
    if role not in Role.values:
        raise InvalidError(f"A role is one of {', '.join(Role.values)}, not {role!r}.")
    now = timezone.now()
    with editing(conversation_id, if_open=True) as conversation:
        if role in SPOKEN_BY_PEOPLE:
            note_inbound(conversation, now)
        [chunk] = write_chunks(conversation, [(role, content)], now)
    return chunk


def add_step(conversation_id: UUID | str, description: str) -> Step:
    """Add a pending step to the open conversation and return it. Raises NotFoundError or ConflictError (`ended`)."""
    return steps.add_step(conversation_id, description, SYSTEM)


def update_step(step_id: int, status: str) -> Step:
    """Complete or cancel the step and return it.

    Raises NotFoundError, InvalidError, or ConflictError (`step_is_final`).
    """
    return steps.update_step(step_id, status, SYSTEM)


def delete_guest_expired() -> int:
    """Delete the expired conversations of guests with everything below them, and return how many there were."""
    return purge_guests(timezone.now())
