"""What staff change of a person: name, phone, e-mail address, language and attributes.

A form carries what its reader saw. So of two colleagues who edit at once, the second changes what the first left alone,
and is told of what the first changed as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import IntegrityError, transaction
from django.utils.translation import gettext as _

from channels_out.kinds import AddressKind
from channels_out.phones import matching_key, ways_to_write
from conversations.models import Client, Contact, ContactIdentity, ContactMatch, Conversation
from conversations.services.contacts import details, duplicates
from conversations.services.contacts.details import ATTRIBUTE
from conversations.services.core import redaction
from conversations.services.core.errors import ConflictError, NotFoundError
from conversations.services.core.event_notes import note_contact


@dataclass(frozen=True, slots=True)
class Edited:
    """The contact after an edit, and the names of the columns that changed."""

    contact: Contact
    changed: tuple[str, ...]


class TakenError(ConflictError):
    """Another contact of the client has the phone or e-mail address. `match` is the pair, for staff to merge."""

    def __init__(self, sentence: str, contact: Contact, match: UUID | None) -> None:
        super().__init__(sentence, code="taken", details={"contact": str(contact.pk), "match": str(match or "")})
        self.contact, self.match = contact, match


def edit(contact_id: UUID, wanted: Mapping[str, str], before: Mapping[str, str], *, client: Client) -> Edited:
    """Store what differs between `wanted` and `before`, which the reader of the form saw, and return the contact.

    wanted, before: flat texts, as `details.values_of` returns them; what is missing is left alone, except for
        attributes: one that `before` names and `wanted` does not is deleted

    A name that is deleted, or is the channel's own again, leaves the channel's to be shown.

    Raises NotFoundError, InvalidError for a value that cannot be, TakenError, or ConflictError: `changed` where a
    colleague has changed the same (`details` has what they wrote, by name), `of_channel` for the number of a channel,
    `merged` for an alias.
    """
    differing = [
        name
        for name in dict.fromkeys([*wanted, *_attributes(before)])
        if wanted.get(name, "").strip() != before.get(name, "")
    ]
    asked = {
        **dict.fromkeys(_attributes(differing), ""),
        **_read({name: wanted.get(name, "") for name in differing}, client),
    }
    try:
        with transaction.atomic():
            contact = _locked(contact_id, client)
            now = details.values_of(contact)
            theirs = {
                name: now.get(name, "")
                for name, value in asked.items()
                if now.get(name, "") not in (before.get(name, ""), value)
            }
            if theirs:
                raise ConflictError(_sentence(theirs), code="changed", details=theirs)
            changed = _apply(contact, {name: value for name, value in asked.items() if value != now.get(name, "")})
            if changed:
                Contact.objects.filter(client=client, pk=contact.pk).update(
                    **{name: getattr(contact, name) for name in changed}
                )
                if "is_guest" in changed:
                    Conversation.objects.filter(contact=contact, is_guest=True).update(is_guest=False)
                note_contact(client.pk, contact.pk, *("name" if name == "staff_name" else name for name in changed))
    except IntegrityError:
        raise ConflictError(
            _("Somebody has stored the same e-mail address at this very moment. Save again."), code="taken"
        ) from None
    except _TakenBy as taken:
        raise TakenError(taken.sentence, taken.other, _note(taken)) from None
    return Edited(contact, tuple(changed))


def channel_of_phone(contact: Contact) -> str:
    """Return the channel on which the contact's phone is their address, and so cannot be edited; '' for none."""
    if not contact.phone:
        return ""
    written = [way.removeprefix("+") for way in ways_to_write(contact.phone)]
    theirs = ContactIdentity.objects.filter(contact=contact, kind=AddressKind.PHONE, address__in=written)
    return theirs.order_by("id").values_list("channel", flat=True).first() or ""


class _TakenBy(Exception):  # noqa: N818 - it leaves the transaction, and becomes a TakenError
    def __init__(self, sentence: str, contact: Contact, other: Contact) -> None:
        super().__init__(sentence)
        self.sentence, self.contact, self.other = sentence, contact, other


def _read(wanted: Mapping[str, str], client: Client) -> dict[str, str]:
    """Return the texts as they are stored, cleaned by the client's rules where they are free. Raises InvalidError."""
    clean = redaction.rules_of(client).clean
    readers: dict[str, Any] = {
        "name": lambda text: clean(details.read_name(text)),
        "phone": lambda text: details.read_phone(text) or "",
        "email": details.read_email,
        "language": details.read_language,
    }
    read = {name: reader(wanted[name]) for name, reader in readers.items() if name in wanted}
    attributes = details.read_attributes({key.removeprefix(ATTRIBUTE): wanted[key] for key in _attributes(wanted)})
    return {**read, **{f"{ATTRIBUTE}{key}": clean(value) for key, value in attributes.items()}}


def _attributes(texts: Iterable[str]) -> list[str]:
    return [name for name in texts if name.startswith(ATTRIBUTE)]


def _locked(contact_id: UUID, client: Client) -> Contact:
    found = Contact.objects.select_for_update(of=("self",), no_key=True).filter(client=client, pk=contact_id).first()
    if found is None:
        raise NotFoundError(_("This contact does not exist."))
    if found.merged_into_id:
        raise ConflictError(_("This contact was merged into another. Load the page again."), code="merged")
    return found


def _sentence(theirs: Mapping[str, str]) -> str:
    def said(name: str, value: str) -> str:
        field = name.removeprefix(ATTRIBUTE)
        return f"{field}: “{value}”" if value else _("%(field)s: empty") % {"field": field}

    told = ", ".join(said(name, value) for name, value in theirs.items())
    return _("A colleague has changed this meanwhile (%(told)s). Look at it, and save again to overwrite it.") % {
        "told": told
    }


def _apply(contact: Contact, asked: Mapping[str, str]) -> list[str]:
    """Set what is asked for on the locked contact, and return the columns that change. Raises ConflictError."""
    changed = []
    if "name" in asked:
        contact.staff_name = asked["name"] if asked["name"] != contact.name else ""
        changed.append("staff_name")
    if "phone" in asked:
        changed += _set_phone(contact, asked["phone"] or None)
    if "email" in asked:
        _check_email(contact, asked["email"])
        contact.email = asked["email"]
        changed.append("email")
    if "language" in asked:
        contact.language = asked["language"]
        changed.append("language")
    if names := _attributes(asked):
        set_ = {name.removeprefix(ATTRIBUTE): asked[name] for name in names}
        contact.attributes = details.read_attributes({**contact.attributes, **set_})
        changed.append("attributes")
    return changed


def _set_phone(contact: Contact, phone: str | None) -> list[str]:
    if channel_of_phone(contact):
        raise ConflictError(
            _("This number is the person's address on a channel. It changes when they write from another number."),
            code="of_channel",
        )
    if phone:
        duplicates.lock_phone(contact.client_id, matching_key(phone))
        duplicates.lock_phone(contact.client_id, phone)
        ways = ways_to_write(phone)
        others = Contact.objects.filter(client=contact.client_id, phone__in=ways).exclude(pk=contact.pk)
        if other := others.order_by("created_at", "pk").first() or _at_address(contact, ways):
            raise _TakenBy(_("%(name)s has this phone number.") % {"name": other}, contact, other)
    contact.phone = phone
    if phone and contact.is_guest:
        contact.is_guest = False
        return ["phone", "is_guest"]
    return ["phone"]


def _at_address(contact: Contact, ways: list[str]) -> Contact | None:
    """Return another contact who writes from the number on a channel."""
    written = [way.removeprefix("+") for way in ways]
    found = ContactIdentity.objects.filter(client=contact.client_id, kind=AddressKind.PHONE, address__in=written)
    identity = found.exclude(contact=contact).select_related("contact").order_by("id").first()
    return identity.contact if identity else None


def _check_email(contact: Contact, email: str) -> None:
    others = Contact.objects.filter(client=contact.client_id, email=email).exclude(pk=contact.pk) if email else None
    if other := others.first() if others is not None else None:
        raise _TakenBy(_("%(name)s has this e-mail address.") % {"name": other}, contact, other)


def _note(taken: _TakenBy) -> UUID | None:
    """Note the two contacts as possible duplicates, and return the pair."""
    duplicates.note(taken.contact, taken.other.pk, ContactMatch.Evidence.ENTERED, channel="")
    first, second = sorted([taken.contact.pk, taken.other.pk])
    pair = ContactMatch.objects.filter(client=taken.contact.client_id, first=first, second=second)
    return pair.values_list("pk", flat=True).first()
