"""Private notes of staff in a conversation, and the colleagues whom they mention."""

from __future__ import annotations

import re
from datetime import datetime
from uuid import UUID

from django.db import transaction
from django.utils.translation import gettext

from conversations.models import Client, Mention, StaffNote
from conversations.models.desk import LONGEST_NOTE
from conversations.services.core.errors import InvalidError
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import lock
from conversations.services.desk.states import colleagues
from conversations.words import whole

MOST_MENTIONS = 20  # of a note
_MENTION = re.compile(r"(?<![\w@])@([\w.+-]+(?:@[\w.-]+)?)")  # @ and a user name, which may be an address


def add_note(conversation_id: UUID, text: str, *, actor: Actor, now: datetime, client: Client) -> StaffNote:
    """Add a note to the conversation, open or ended, and return it. `@name` mentions a colleague.

    Raises InvalidError for a blank or long text, NotFoundError.
    """
    if not text.strip() or len(text) > LONGEST_NOTE:
        raise InvalidError(
            gettext("A note has 1 to %(most)s characters.") % {"most": whole(LONGEST_NOTE)},
            code="blank",
        )
    with transaction.atomic():
        conversation = lock(conversation_id, client)
        note = StaffNote.objects.create(
            client=client,
            conversation=conversation,
            author_id=actor.user_id,
            author_name=actor.name,
            text=text,
            created_at=now,
        )
        names = {name.rstrip(".") for name in _MENTION.findall(text)}
        mentioned = colleagues(client).filter(username__in=names).exclude(pk=actor.user_id)[:MOST_MENTIONS]
        Mention.objects.bulk_create(
            Mention(client=client, conversation=conversation, note=note, user=user) for user in mentioned
        )
        record(conversation, "noted", actor, note=note.pk)
    return note


def notes_of(client_id: UUID, conversation_id: UUID, most: int = 200) -> list[StaffNote]:
    """Return the conversation's newest notes, oldest first."""
    found = StaffNote.objects.filter(client=client_id, conversation=conversation_id).order_by("-id")[:most]
    return list(found)[::-1]
