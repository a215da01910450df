"""Find or create the contact that a message is from."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce

from channels_out.kinds import AddressKind
from channels_out.phones import phone_address, ways_to_write
from conversations.models import Client, Contact, ContactIdentity, Conversation
from conversations.services.contacts import duplicates
from conversations.services.core.event_notes import note_contact
from conversations.services.core.person import Person


def find_by_user_id(client: Client | UUID, user_id: str) -> Contact | None:
    """Return the client's contact with the user id, or None. A merged contact's id finds the one it was merged into."""
    found = Contact.objects.select_related("merged_into").filter(client=client, user_id=user_id).first()
    return (found.merged_into or found) if found else None


def ids_by_user_id(user_id: str, client: Client | None = None) -> QuerySet[Contact, UUID]:
    """Return the ids of the client's contacts with the user id. A merged contact gives the id it was merged into.

    client: None for all clients
    """
    named = Contact.objects.filter(user_id=user_id).order_by()
    named = named.filter(client=client) if client else named
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
    has_new_phone = _learn(contact, person)
    if has_new_phone:
        duplicates.note_same_phone(contact, channel=channel, message_id=message_id)
    return contact, device or _phone_identity(contact, channel, is_told=has_new_phone)


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
        theirs: Contact = by_phone.contact
        return theirs
    if person.phone and (same_phone := find_by_phone(client, channel, person.phone)):
        return same_phone
    if by_any := known.first():
        known_as: Contact = by_any.contact
        return known_as
    own = _own_id(person)
    same_user = find_by_user_id(client, own) if own else None
    return same_user or _new_for_address(client, channel, person)


def _own_id(person: Person) -> str:
    return next((address for kind, address in person.aliases if kind == AddressKind.USER), "")


def find_by_phone(client: Client, channel: str, phone: str) -> Contact | None:
    """Return the client's contact with the phone number, or None.

    Of several, it is the one with the newest open conversation on the channel, else the oldest contact.
    """
    theirs = Conversation.objects.of(client).open().filter(contact=OuterRef("pk"), channel=channel)
    latest = Subquery(theirs.order_by("-last_message_at").values("last_message_at")[:1])
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


def _identity(
    contact: Contact, channel: str, kind: str, address: str, message_id: str = "", *, is_told: bool = False
) -> ContactIdentity | None:
    """Return the contact's identity at the address, or None if another contact has it; then the pair is noted.

    is_told: programs are told of a new phone, from which the address follows
    """
    key = {"client_id": contact.client_id, "channel": channel, "address": address}
    identity = ContactIdentity.objects.filter(**key).first()
    if identity is None:
        identity = ContactIdentity.objects.create(contact=contact, kind=kind, **key)
        if not is_told:
            note_contact(contact.client_id, contact.pk, "address")
    if identity.contact_id == contact.pk:
        return identity
    duplicates.note(
        contact, identity.contact_id, duplicates.Evidence.SAME_MESSAGE, channel=channel, message_id=message_id
    )
    return None


def add_addresses(
    client_id: UUID, conversation_id: UUID, addresses: Iterable[tuple[str, str]], message_id: str
) -> None:
    """Give the conversation's contact further addresses on its channel, of (kind, address).

    One that another contact has stays theirs, and the pair is noted for staff, with `message_id`.
    """
    ours = Conversation.objects.filter(client=client_id, pk=conversation_id)
    found = ours.select_related("contact").first()
    if found is None:
        return
    for kind, address in addresses:
        for _ in range(2):  # once more where a message from the address was first
            try:
                with transaction.atomic():
                    _identity(found.contact, found.channel, kind, address, message_id)
                break
            except IntegrityError:
                continue


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
    if changed and not Contact.objects.filter(client=contact.client_id, pk=contact.pk, merged_into=None).update(
        **{name: getattr(contact, name) for name in changed}
    ):
        raise IntegrityError("The guest was deleted, or became an alias, at this very moment.")
    if changed:
        note_contact(contact.client_id, contact.pk, *changed)
    if "is_guest" in changed:
        Conversation.objects.filter(contact=contact, is_guest=True).update(is_guest=False)
    return "phone" in changed


def _phone_identity(contact: Contact, channel: str, *, is_told: bool) -> ContactIdentity | None:
    address = phone_address(channel, contact.phone)
    return _identity(contact, channel, AddressKind.PHONE, address, is_told=is_told) if address else None
