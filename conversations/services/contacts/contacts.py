"""Find or create the contact that a message is from."""

from __future__ import annotations

from uuid import UUID

from django.db import IntegrityError
from django.db.models import F, Max, Q, QuerySet
from django.db.models.functions import Coalesce

from channels_out.kinds import AddressKind
from channels_out.phones import phone_address, ways_to_write
from conversations.models import OPEN, Client, Contact, ContactIdentity, Conversation
from conversations.services.contacts import duplicates
from conversations.services.core.person import Person


def find_by_user_id(client: Client | UUID, user_id: str) -> Contact | None:
    """Return the client's contact with the user id, or None. A merged contact's id finds the one it was merged into."""
    found = Contact.objects.select_related("merged_into").filter(client=client, user_id=user_id).first()
    return (found.merged_into or found) if found else None


def ids_by_user_id(user_id: str) -> QuerySet[Contact, UUID]:
    """Return the ids of all clients' contacts with the user id. A merged contact gives the id it was merged into."""
    named = Contact.objects.filter(user_id=user_id).order_by()
    return named.annotate(person=Coalesce("merged_into", "pk")).values_list("person", flat=True)


def find_or_create(
    client: Client, channel: str, person: Person, message_id: str = ""
) -> tuple[Contact, ContactIdentity | None]:
    """Return the sender's contact, with new phone and name stored, and the identity that a reply goes to.

    The identity is None if the contact has no address on the channel. Signs that two contacts are one person are noted
    with `message_id`, for staff to decide.

    Call it in a transaction. Raises IntegrityError if another transaction creates the same contact, or deletes it (a
    guest's last conversation was purged), at the same moment: start the transaction anew.
    """
    if person.address:
        contact = _by_address(client, channel, person)
        named = [(person.kind, person.address), *person.aliases]
        device, *_ = [_identity(contact, channel, kind, address, message_id) for kind, address in named]
    else:
        contact = _by_user_id(client, person.user_id)
        device = None
    if _learn(contact, person):
        duplicates.note_same_phone(contact, channel=channel, message_id=message_id)
    return contact, device or _phone_identity(contact, channel)


def _by_user_id(client: Client, user_id: str) -> Contact:
    # Not get_or_create: its savepoints cost two round trips, and a transaction that loses the race starts anew anyway.
    return find_by_user_id(client, user_id) or Contact.objects.create(client=client, user_id=user_id)


def _by_address(client: Client, channel: str, person: Person) -> Contact:
    """Return the contact with the phone number, else with any other of the addresses, else a new one.

    If the addresses belong to two contacts, the phone number decides and both contacts stay. Numbers are compared in
    every way one subscriber may write them, and stored as they came.
    """
    kinds = dict([(person.address, person.kind), *((address, kind) for kind, address in person.aliases)])
    known = (
        ContactIdentity.objects.select_related("contact")
        .filter(client=client, channel=channel, address__in=kinds)
        .order_by("id")
    )
    if by_phone := known.filter(kind=AddressKind.PHONE).first():
        return by_phone.contact
    if person.phone and (same_phone := find_by_phone(client, channel, person.phone)):
        return same_phone
    if by_any := known.first():
        return by_any.contact
    own = _own_id(person)
    same_user = find_by_user_id(client, own) if own else None
    return same_user or _new_for_address(client, channel, person)


def _own_id(person: Person) -> str:
    return next((address for kind, address in person.aliases if kind == AddressKind.USER), "")


def find_by_phone(client: Client, channel: str, phone: str) -> Contact | None:
    """Return the client's contact with the phone number, or None.

    Of several, it is the one with the newest open conversation on the channel, else the oldest contact.
    """
    theirs = Q(conversations__channel=channel, conversations__status__in=OPEN)
    latest = Max("conversations__last_message_at", filter=theirs)
    found = Contact.objects.filter(client=client, phone__in=ways_to_write(phone)).annotate(latest=latest)
    return found.order_by(F("latest").desc(nulls_last=True), "created_at").first()


def _new_for_address(client: Client, channel: str, person: Person) -> Contact:
    """Create a contact whose user id is the person's own id, else their address.

    If the client uses that id for another contact, the channel is put before it.
    """
    named = _own_id(person) or person.address
    taken = Contact.objects.filter(client=client, user_id=named).exists()
    user_id = f"{channel}:{named}" if taken else named
    contact = Contact.objects.create(client=client, user_id=user_id, is_guest=person.kind not in NAMED_KINDS)
    # Created without looking first: if another message of the same person was faster (`taken` may be its contact), this
    # fails and the transaction starts anew. Otherwise one person would become two contacts.
    addresses = {person.address: person.kind} | {address: kind for kind, address in person.aliases}
    ContactIdentity.objects.bulk_create(
        ContactIdentity(contact=contact, client=client, channel=channel, kind=kind, address=address)
        for address, kind in addresses.items()
    )
    return contact


# A business-scoped user id stands for an account with a phone number that we are not told, so its owner is no guest.
NAMED_KINDS = {AddressKind.BSUID}


def _identity(contact: Contact, channel: str, kind: str, address: str, message_id: str = "") -> ContactIdentity | None:
    """Return the contact's identity at the address, or None if another contact has it; then the pair is noted."""
    key = {"client_id": contact.client_id, "channel": channel, "address": address}
    known = ContactIdentity.objects.filter(**key).first()
    identity = known or ContactIdentity.objects.create(contact=contact, kind=kind, **key)
    if identity.contact_id == contact.pk:
        return identity
    duplicates.note(
        contact, identity.contact_id, duplicates.Evidence.SAME_MESSAGE, channel=channel, message_id=message_id
    )
    return None


def _learn(contact: Contact, person: Person) -> bool:
    """Store the phone and name that the message brings, and return whether the phone is new.

    Those of a client's own JSON replace the stored ones; those of a provider only fill gaps.
    """
    overrules = not person.address
    changed = []
    if person.phone and person.phone != contact.phone and (overrules or not contact.phone):
        duplicates.lock_phone(contact.client_id, person.phone)
        contact.phone = person.phone
        contact.is_guest = False
        changed += ["phone", "is_guest"]
    if person.name and person.name != contact.name and (overrules or not contact.name):
        contact.name = person.name
        changed.append("name")
    # Not save(): its error for a row that is gone is no IntegrityError, and the message would be lost.
    if changed and not Contact.objects.filter(pk=contact.pk, merged_into=None).update(
        **{name: getattr(contact, name) for name in changed}
    ):
        raise IntegrityError("The guest was deleted, or became an alias, at this very moment.")
    if "is_guest" in changed:
        Conversation.objects.filter(contact=contact, is_guest=True).update(is_guest=False)
    return "phone" in changed


def _phone_identity(contact: Contact, channel: str) -> ContactIdentity | None:
    address = phone_address(channel, contact.phone)
    return _identity(contact, channel, AddressKind.PHONE, address) if address else None
