"""Address changes that a channel reports, such as a WhatsApp user who takes another number."""

from __future__ import annotations

from django.db import IntegrityError, transaction

from channels_out.events import AddressChange
from channels_out.kinds import AddressKind
from channels_out.phones import from_whatsapp, ways_to_write
from conversations.models import Client, Contact, ContactIdentity, Conversation
from conversations.services.contacts import duplicates
from conversations.services.contacts.contacts import find_by_phone
from conversations.services.core.event_notes import note_contact
from conversations.services.core.ledger import CONTACT, record

TRIES = 5


def change_address(client: Client, channel: str, moved: AddressChange, message_id: str = "") -> None:
    """Give the contact at `moved.before` the address `moved.after`.

    A contact who changes their WhatsApp number keeps their history. Whoever writes from the old address later becomes
    a new contact. If another contact already has the new address, the pair is noted as possible duplicates, for staff
    to decide. An unknown old address changes nothing.

    message_id: the provider's id of the message that reports the change

    Raises IntegrityError if other transactions came first at each of TRIES attempts.
    """
    for _ in range(TRIES - 1):
        try:
            return _change_address(client, channel, moved, message_id)
        except IntegrityError:
            continue  # somebody began to write from the new address at this very moment: look again
    return _change_address(client, channel, moved, message_id)


@transaction.atomic
def _change_address(client: Client, channel: str, moved: AddressChange, message_id: str) -> None:
    at = ContactIdentity.objects.select_related("contact").filter(client=client, channel=channel)
    known, taken = at.filter(address=moved.before).first(), at.filter(address=moved.after).first()
    person = known.contact if known else _by_phone(client, channel, moved)
    if person is None:
        return
    if taken and taken.contact_id != person.pk:
        duplicates.note(person, taken.contact_id, duplicates.Evidence.MOVED, channel=channel, message_id=message_id)
        return
    if known and taken:
        known.delete()
    elif known:  # the row stays, so replies in the open conversations go to the new address
        ContactIdentity.objects.filter(client=client, pk=known.pk).update(address=moved.after)
    elif not taken:
        ContactIdentity.objects.create(
            contact=person, client=client, channel=channel, kind=moved.kind, address=moved.after
        )
    _remember_name(person, moved.before)
    if moved.kind == AddressKind.PHONE:
        _renumber(person, channel, moved, message_id)
    theirs = list(Conversation.objects.open().filter(contact=person, channel=channel))
    for conversation in theirs:
        record(conversation, "address_changed", CONTACT, cause=f"their {channel} says so")
    if not theirs:
        note_contact(person.client_id, person.pk, "address")


def _by_phone(client: Client, channel: str, moved: AddressChange) -> Contact | None:
    phone = from_whatsapp(moved.before) if moved.kind == AddressKind.PHONE else None
    return find_by_phone(client, channel, phone) if phone else None


def _remember_name(person: Contact, before: str) -> None:
    """Keep the old address as an alias of the contact, by which an export and an erasure find stored events."""
    if not Contact.objects.filter(client=person.client_id, user_id=before).exists():
        Contact.objects.create(client_id=person.client_id, user_id=before, merged_into=person, is_guest=False)


def _renumber(person: Contact, channel: str, moved: AddressChange, message_id: str) -> None:
    before, after = from_whatsapp(moved.before), from_whatsapp(moved.after)
    if not (before and after and person.phone in ways_to_write(before)):
        return
    duplicates.lock_phone(person.client_id, after)
    if not Contact.objects.filter(client=person.client_id, pk=person.pk, merged_into=None).update(phone=after):
        raise IntegrityError("The contact was merged or deleted at this very moment.")
    person.phone = after
    duplicates.note_same_phone(person, channel=channel, message_id=message_id)
