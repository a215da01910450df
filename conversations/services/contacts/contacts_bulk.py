"""Many senders at once: find or create the contacts of the people whom one webhook names.

Only the usual cases: a person who is known at all their addresses and of whom nothing new is said, and one of whom
nothing is known. contacts.py is the general form; `tests/conversations/test_huge_webhooks.py` compares the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from channels_out.kinds import AddressKind
from channels_out.phones import matching_key, ways_to_write
from conversations.models import Client, EventKind
from conversations.services.contacts.contacts import NAMED_KINDS
from conversations.services.core.person import Person
from conversations.services.core.sql import column, rows

# Each address finds the one row of its index (core/appending_sql.py), whatever the plan that is kept was made for.
_KNOWN = """
    SELECT i.address, i.id, i.contact_id, p.phone IS NOT NULL, p.name <> ''
    FROM unnest($3::text[]) AS asked (address)
    CROSS JOIN LATERAL (
        SELECT d.address, d.id, d.contact_id FROM contact_identities d
        WHERE d.client_id = $1 AND d.channel = $2 AND d.address >= asked.address AND d.address <= asked.address
        ORDER BY d.address LIMIT 1) i
    CROSS JOIN LATERAL (
        SELECT c.phone, c.name FROM contacts c WHERE c.client_id = $1 AND c.id = i.contact_id OFFSET 0) p"""
_TAKEN_IDS = "SELECT user_id FROM contacts WHERE client_id = $1 AND user_id = ANY($2::text[])"
_TAKEN_PHONES = "SELECT phone FROM contacts WHERE client_id = $1 AND phone = ANY($2::text[])"
# As opening a conversation locks a contact (core/opening.py), but without waiting for anybody (core/locking.py).
# Whoever may be about to say why they rated low is for the general form.
_HELD = """
    SELECT id FROM contacts WHERE client_id = $2 AND id = ANY($1::uuid[]) AND merged_into_id IS NULL
      AND (comment_until IS NULL OR comment_until < now())
    FOR SHARE SKIP LOCKED"""

_NEW = """
    INSERT INTO contacts (id, client_id, user_id, phone, name, is_guest)
    SELECT t.id, $1, t.user_id, t.phone, t.name, t.is_guest
    FROM unnest($2::uuid[], $3::text[], $4::text[], $5::text[], $6::boolean[]) AS t(id, user_id, phone, name, is_guest)
    RETURNING id"""
# What contacts.py notes of each: contacts come into being without phone and name.
_NEW_NOTES = f"""
    INSERT INTO event_notes (client_id, kind, data)
    SELECT $1, '{EventKind.CONTACT}', jsonb_build_object('contact_id', t.id, 'changed',
        to_jsonb(array_remove(ARRAY[
            CASE WHEN t.phone IS NOT NULL THEN 'phone' END, CASE WHEN t.phone IS NOT NULL THEN 'is_guest' END,
            CASE WHEN t.name <> '' THEN 'name' END], NULL)))
    FROM unnest($2::uuid[], $3::text[], $4::text[]) AS t(id, phone, name)
    WHERE t.phone IS NOT NULL OR t.name <> ''
    RETURNING id"""
_NEW_IDENTITIES = """
    INSERT INTO contact_identities (contact_id, client_id, channel, kind, address)
    SELECT t.contact_id, $1, $2, t.kind, t.address
    FROM unnest($3::uuid[], $4::text[], $5::text[]) AS t(contact_id, kind, address)
    RETURNING address, id"""


@dataclass(frozen=True, slots=True)
class Found:
    """A sender's contact, and the identity that a reply goes to."""

    contact_id: UUID
    identity_id: int
    is_new: bool = False


def find_or_create_many(client: Client, channel: str, people: Sequence[Person]) -> list[Found | None]:
    """Return the contact of each sender; None for one whom only `contacts.find_or_create` finds or creates rightly.

    people: each has an address; no address is named by two of them

    Call it in a transaction, which then holds the contacts. Raises IntegrityError if another transaction creates one of
    them at the same moment.
    """
    known = {row[0]: row[1:] for row in rows(_KNOWN, client.pk, channel, [a for p in people for a in _addresses(p)])}
    found = [_known_contact(person, known) for person in people]
    held = set(column(_HELD, [each.contact_id for each in found if each], client.pk))
    strangers = [person for person in people if not known.keys() & set(_addresses(person))]
    created = _create(client, channel, _unmistakable(client, strangers))
    return [
        each if each and each.contact_id in held else created.get(person.address)
        for person, each in zip(people, found, strict=True)
    ]


def _addresses(person: Person) -> list[str]:
    return list(dict.fromkeys([person.address, *(address for _, address in person.aliases)]))


def _known_contact(person: Person, known: dict[str, tuple[int, UUID, bool, bool]]) -> Found | None:
    """The contact that has all the addresses, if the message says nothing new of them."""
    theirs = [known.get(address) for address in _addresses(person)]
    first = theirs[0]
    if first is None or len({each and each[1] for each in theirs}) > 1:
        return None
    identity_id, contact_id, has_phone, has_name = first
    says_more = (person.phone and not has_phone) or (person.name and not has_name)
    return None if says_more else Found(contact_id, identity_id)


def _unmistakable(client: Client, strangers: Sequence[Person]) -> list[Person]:
    """Return the people who are surely new: no contact, and none of the others, has their phone or user id."""
    phones = Counter(matching_key(person.phone) for person in strangers if person.phone)
    ways = [way for person in strangers if person.phone for way in ways_to_write(person.phone)]
    taken = {matching_key(phone) for phone in column(_TAKEN_PHONES, client.pk, ways)} if ways else set()
    taken |= {phone for phone, count in phones.items() if count > 1}
    ids = set(column(_TAKEN_IDS, client.pk, [person.address for person in strangers])) if strangers else set()
    return [
        person
        for person in strangers
        if person.address not in ids
        and not (person.phone and matching_key(person.phone) in taken)
        and not any(kind == AddressKind.USER for kind, _ in person.aliases)  # the client's own id: it may be anybody's
    ]


def _create(client: Client, channel: str, people: Sequence[Person]) -> dict[str, Found]:
    """Create a contact and its identities for each, and return them by address."""
    if not people:
        return {}
    ids = [uuid4() for _ in people]
    guests = [not person.phone and person.kind not in NAMED_KINDS for person in people]
    columns = ([p.address for p in people], [p.phone for p in people], [p.name for p in people], guests)
    rows(_NEW, client.pk, ids, *columns)
    rows(_NEW_NOTES, client.pk, ids, *columns[1:3])
    identities = [
        (contact_id, kind, address)
        for contact_id, person in zip(ids, people, strict=True)
        for address, kind in ({person.address: person.kind} | {a: k for k, a in person.aliases}).items()
    ]
    owners, kinds, addresses = (list(column) for column in zip(*identities, strict=True))
    by_address = dict(rows(_NEW_IDENTITIES, client.pk, channel, owners, kinds, addresses))
    return {
        person.address: Found(contact_id, by_address[person.address], is_new=True)
        for contact_id, person in zip(ids, people, strict=True)
    }
