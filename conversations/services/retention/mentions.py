"""What a person is called in payloads that are kept as they came."""

from __future__ import annotations

import json
from uuid import UUID

from django.db.models import Exists, OuterRef, Q

from conversations.models import Contact, ContactIdentity, Conversation

SHORTEST = 4  # characters: what is shorter is in any payload


def patterns(contact: Contact) -> list[str]:
    """For LIKE: every address and user id, with and without the plus of a phone, as JSON writes it."""
    identities = ContactIdentity.objects.filter(contact=contact).values_list("address", flat=True)
    aliases = contact.aliases.values_list("user_id", flat=True)
    names = {contact.user_id, contact.phone or "", *identities, *aliases}
    names |= {name.removeprefix("+") for name in names}
    escaped = (json.dumps(name)[1:-1].replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_") for name in names)
    return [f"%{name}%" for name in sorted(escaped) if len(name) >= SHORTEST]


def of_held_people() -> tuple[list[UUID], list[str]]:
    """Of everybody who is on hold, or a session of whom is: the client, and what they are called, in pairs."""
    held = Exists(Conversation.objects.filter(contact=OuterRef("pk")).exclude(hold_reason=""))
    found = [
        (contact.client_id, pattern)
        for contact in Contact.objects.filter(~Q(hold_reason="") | held)
        for pattern in patterns(contact)
    ]
    return [client_id for client_id, _ in found], [pattern for _, pattern in found]
