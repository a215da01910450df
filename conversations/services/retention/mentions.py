"""Patterns that find a person's addresses and ids in payloads that are stored as they came."""

from __future__ import annotations

import json
from uuid import UUID

from django.db.models import Exists, OuterRef, Q

from conversations.models import Contact, ContactIdentity, Conversation

SHORTEST = 4  # characters: anything shorter occurs in every payload


def patterns(contact: Contact) -> list[str]:
    """Return LIKE patterns for the contact's addresses and user ids: as they are, in JSON, and in JSON within JSON.

    Phone numbers are there with and without the plus. Letters that are not ASCII are there as they are and escaped,
    because PostgreSQL writes them as they are and senders may escape them.
    """
    identities = ContactIdentity.objects.filter(contact=contact).values_list("address", flat=True)
    aliases = contact.aliases.values_list("user_id", flat=True)
    names = {contact.user_id, contact.phone or "", contact.email, *identities, *aliases}
    names |= {name.removeprefix("+") for name in names}
    names = {name for name in names if len(name) >= SHORTEST}
    for _ in range(2):
        names |= {json.dumps(name, ensure_ascii=only_ascii)[1:-1] for name in names for only_ascii in (True, False)}
    return [_pattern(name) for name in sorted(names)]


def patterns_of_name(contact: Contact) -> list[str]:
    """Return a LIKE pattern for the contact's name, if it is long enough to name anybody."""
    return [_pattern(contact.name)] if len(contact.name) >= SHORTEST else []


def _pattern(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"%{escaped}%"


def patterns_of_held_contacts() -> tuple[list[UUID], list[str]]:
    """Return the client ids and the patterns, in pairs, of contacts on hold or with a conversation on hold."""
    held = Exists(
        Conversation.objects.filter(client=OuterRef("client"), contact=OuterRef("pk")).exclude(hold_reason="")
    )
    found = [
        (contact.client_id, pattern)
        for contact in Contact.objects.filter(~Q(hold_reason="") | held)
        for pattern in patterns(contact)
    ]
    return [client_id for client_id, _ in found], [pattern for _, pattern in found]
