"""What staff say of a contact: how it is written, how much of it there may be, and the names of languages."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from django.conf.locale import LANG_INFO
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils.translation import gettext

from channels_out.phones import e164
from conversations.models import Contact
from conversations.services.core.errors import InvalidError
from memory.text import one_line

LONGEST_NAME = 200  # characters
LONGEST_EMAIL = 254
MOST_ATTRIBUTES = 30  # of a contact
LONGEST_KEY = 40  # characters of an attribute's key
LONGEST_VALUE = 500


@cache
def languages() -> list[tuple[str, str]]:
    """Return the languages to choose from, as (tag, name in English), by name."""
    named = ((tag, str(found["name"])) for tag, found in LANG_INFO.items() if "name" in found)
    return sorted(named, key=lambda each: each[1])


def language_name(tag: str) -> str:
    """Return the language's name in English, such as "Brazilian Portuguese"; '' for none, the tag if it is unknown."""
    return dict(languages()).get(tag, tag)


def read_name(text: str) -> str:
    """Return the name on one line. Raises InvalidError if it is too long."""
    name = " ".join(text.replace("\x00", "").split())
    if len(name) > LONGEST_NAME:
        raise InvalidError(gettext("A name has at most %(most)s characters.") % {"most": LONGEST_NAME}, code="name")
    return name


def read_phone(text: str) -> str | None:
    """Return the number in E.164, None for an empty one. Raises InvalidError for what is no number."""
    if not text.strip():
        return None
    phone = e164(text)
    if phone is None:
        raise InvalidError(
            gettext("“%(text)s” is no phone number. Write it with its country code, such as +51 999 999 999.")
            % {"text": one_line(text, 40)},
            code="phone",
        )
    return phone


def read_email(text: str) -> str:
    """Return the address in small letters, '' for an empty one. Raises InvalidError for what is no address."""
    email = text.strip().lower()
    if not email:
        return ""
    try:
        validate_email(email)
    except ValidationError:
        email = " "
    if len(email) > LONGEST_EMAIL or " " in email:
        raise InvalidError(gettext("“%(text)s” is no e-mail address.") % {"text": one_line(text, 60)}, code="email")
    return email


def read_language(tag: str) -> str:
    """Return the tag of a known language, '' for none. Raises InvalidError for another."""
    tag = tag.strip().lower()
    if tag and tag not in dict(languages()):
        raise InvalidError(gettext("Choose a language of the list."), code="language")
    return tag


def read_attributes(pairs: Mapping[str, Any]) -> dict[str, str]:
    """Return the attributes, trimmed; those without a value are left out. Raises InvalidError for one too many or too
    long, and for a value without a key."""
    found: dict[str, str] = {}
    for key, value in pairs.items():
        key = " ".join(str(key).replace("\x00", "").split())
        value = str(value).replace("\x00", "").replace("\r\n", "\n").strip()
        if not value:
            continue
        if not key:
            raise InvalidError(gettext("An attribute needs a name."), code="attributes")
        if len(key) > LONGEST_KEY or len(value) > LONGEST_VALUE:
            raise InvalidError(
                gettext("An attribute's name has at most %(key)s characters, and its value %(value)s.")
                % {"key": LONGEST_KEY, "value": LONGEST_VALUE},
                code="attributes",
            )
        found[key] = value
    if len(found) > MOST_ATTRIBUTES:
        raise InvalidError(
            gettext("A person has at most %(most)s attributes.") % {"most": MOST_ATTRIBUTES}, code="attributes"
        )
    return found


def values_of(contact: Contact) -> dict[str, str]:
    """Return what staff edit, as flat texts: name, phone, email, language, and `attribute:` with each key."""
    attributes = contact.attributes if isinstance(contact.attributes, dict) else {}
    return {
        "name": contact.shown_name,
        "phone": contact.phone or "",
        "email": contact.email,
        "language": contact.language,
        **{f"{ATTRIBUTE}{key}": str(value) for key, value in attributes.items()},
    }


ATTRIBUTE = "attribute:"  # before the key of an attribute in flat texts
