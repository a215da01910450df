"""What says that two contacts are one person is written down, for staff to decide (merging.py)."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID, uuid4

from channels_out.phones import ways_to_write
from conversations.models import Contact, ContactMatch
from conversations.services.core.sql import rows

Evidence = ContactMatch.Evidence
RECENT = timedelta(minutes=15)  # the sweep's five, and some more for clocks that differ

_NOTE = """
    INSERT INTO contact_matches (id, client_id, first_id, second_id, evidence, channel, message_id)
    SELECT $1, $2, LEAST($3::uuid, $4::uuid), GREATEST($3::uuid, $4::uuid), $5, $6, $7
    WHERE NOT EXISTS (
        SELECT FROM contact_matches
        WHERE first_id = LEAST($3::uuid, $4::uuid) AND second_id = GREATEST($3::uuid, $4::uuid))
    ON CONFLICT (first_id, second_id) DO NOTHING
    RETURNING id"""


# Sessions that began a short while ago, of somebody who has the phone of somebody else.
_NOTE_RECENT = """
    INSERT INTO contact_matches (id, client_id, first_id, second_id, evidence, channel, message_id)
    SELECT DISTINCT ON (LEAST(p.id, o.id), GREATEST(p.id, o.id))
           gen_random_uuid(), p.client_id, LEAST(p.id, o.id), GREATEST(p.id, o.id), 'same_phone', s.channel, ''
    FROM conversations s
    JOIN contacts p ON p.id = s.contact_id AND p.phone IS NOT NULL
    JOIN contacts o ON o.client_id = p.client_id AND o.phone = p.phone AND o.id <> p.id
    WHERE s.started_at > $1::timestamptz - $2::interval AND s.started_at <= $1
    ON CONFLICT (first_id, second_id) DO NOTHING
    RETURNING id"""


def note(one: Contact, other: UUID, evidence: str, *, channel: str, message_id: str = "") -> None:
    """The two contacts of one client are, it seems, one person. What is known of the pair already stays."""
    if one.pk != other:
        rows(_NOTE, uuid4(), one.client_id, one.pk, other, evidence, channel, message_id[:500])


def note_recent(now: datetime) -> int:
    """Whoever began to write of late and has the phone of another contact is noted: of two who begin at the same
    instant neither saw the other. Returns how many pairs there were."""
    return len(rows(_NOTE_RECENT, now, RECENT))


def take_turns(client_id: UUID, phone: str) -> None:
    """In a transaction: of two who learn of the same phone at the same instant, the second waits here for the first,
    and sees it."""
    rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))::text", f"convo.phone {client_id} {phone}")


def note_same_phone(contact: Contact, *, channel: str, message_id: str = "") -> None:
    """Whoever else of the client has the contact's phone, however it is written, is noted."""
    if not contact.phone:
        return
    others = Contact.objects.filter(client=contact.client_id, phone__in=ways_to_write(contact.phone))
    for other in others.exclude(pk=contact.pk).order_by("pk").values_list("pk", flat=True)[:20]:
        note(contact, other, Evidence.SAME_PHONE, channel=channel, message_id=message_id)
