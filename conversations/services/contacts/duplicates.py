"""Possible duplicates: pairs of contacts that may be one person. Staff decide (staff_actions/merge_contacts.py)."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID, uuid4

from channels_out.phones import ways_to_write
from conversations.models import Contact, ContactMatch
from conversations.services.core.cluster import rows_over_all
from conversations.services.core.sql import rows

Evidence = ContactMatch.Evidence
RECENT = timedelta(minutes=15)  # the sweep's interval of five, and a margin for clocks that differ

_NOTE = """
    INSERT INTO contact_matches (id, client_id, first_id, second_id, evidence, channel, message_id)
    SELECT $1, $2, LEAST($3::uuid, $4::uuid), GREATEST($3::uuid, $4::uuid), $5, $6, $7
    WHERE NOT EXISTS (
        SELECT FROM contact_matches
        WHERE client_id = $2 AND first_id = LEAST($3::uuid, $4::uuid) AND second_id = GREATEST($3::uuid, $4::uuid))
    ON CONFLICT (client_id, first_id, second_id) DO NOTHING
    RETURNING id"""


# Conversations that began a short while ago, of a contact with the same phone as another contact.
_NOTE_RECENT = """
    INSERT INTO contact_matches (id, client_id, first_id, second_id, evidence, channel, message_id)
    SELECT DISTINCT ON (LEAST(p.id, o.id), GREATEST(p.id, o.id))
           gen_random_uuid(), p.client_id, LEAST(p.id, o.id), GREATEST(p.id, o.id), 'same_phone', s.channel, ''
    FROM conversations s
    JOIN contacts p ON p.client_id = s.client_id AND p.id = s.contact_id AND p.phone IS NOT NULL
    JOIN contacts o ON o.client_id = p.client_id AND o.phone = p.phone AND o.id <> p.id
    WHERE {only:s} AND s.started_at > $1::timestamptz - $2::interval AND s.started_at <= $1
    ON CONFLICT (client_id, first_id, second_id) DO NOTHING
    RETURNING id"""


def note(one: Contact, other: UUID, evidence: str, *, channel: str, message_id: str = "") -> None:
    """Note that the two contacts of one client may be one person. A pair that is noted already stays as it is."""
    if one.pk != other:
        rows(_NOTE, uuid4(), one.client_id, one.pk, other, evidence, channel, message_id[:500])


def note_recent(now: datetime) -> int:
    """Note the contacts who began to write in the last RECENT and share a phone with another. Returns how many pairs.

    Two who begin at the same instant did not see each other when their messages came in.
    """
    return len(rows_over_all(_NOTE_RECENT, now, RECENT))


def lock_phone(client_id: UUID, phone: str) -> None:
    """Lock the phone number of the client until the transaction ends.

    Of two transactions that store the same phone at the same instant, the second waits here and then sees the first.
    """
    rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))::text", f"convo.phone {client_id} {phone}")


def note_same_phone(contact: Contact, *, channel: str, message_id: str = "") -> None:
    """Note the client's other contacts with the same phone, however it is written, as possible duplicates."""
    if not contact.phone:
        return
    others = Contact.objects.filter(client=contact.client_id, phone__in=ways_to_write(contact.phone))
    for other in others.exclude(pk=contact.pk).order_by("pk").values_list("pk", flat=True)[:20]:
        note(contact, other, Evidence.SAME_PHONE, channel=channel, message_id=message_id)
