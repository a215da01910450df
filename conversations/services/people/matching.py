"""What says that two contacts are one person is written down, for staff to decide (merging.py)."""

from __future__ import annotations

from uuid import UUID, uuid4

from channels_out.phones import ways_to_write
from conversations.models import Contact, ContactMatch
from conversations.services.database import rows

Evidence = ContactMatch.Evidence

_NOTE = """
    INSERT INTO contact_matches (id, client_id, first_id, second_id, evidence, channel, message_id)
    SELECT $1, $2, LEAST($3::uuid, $4::uuid), GREATEST($3::uuid, $4::uuid), $5, $6, $7
    WHERE NOT EXISTS (
        SELECT FROM contact_matches
        WHERE first_id = LEAST($3::uuid, $4::uuid) AND second_id = GREATEST($3::uuid, $4::uuid))
    ON CONFLICT (first_id, second_id) DO NOTHING
    RETURNING id"""


def note(one: Contact, other: UUID, evidence: str, *, channel: str, message_id: str = "") -> None:
    """The two contacts of one client are, it seems, one person. What is known of the pair already stays."""
    if one.pk != other:
        rows(_NOTE, uuid4(), one.client_id, one.pk, other, evidence, channel, message_id[:500])


def note_same_phone(contact: Contact, *, channel: str, message_id: str = "") -> None:
    """Whoever else of the client has the contact's phone, however it is written, is noted."""
    if not contact.phone:
        return
    others = Contact.objects.filter(client=contact.client_id, phone__in=ways_to_write(contact.phone))
    for other in others.exclude(pk=contact.pk).order_by("pk").values_list("pk", flat=True)[:20]:
        note(contact, other, Evidence.SAME_PHONE, channel=channel, message_id=message_id)
