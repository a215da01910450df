"""Phone numbers: how they are written (E.164), and how they are compared."""

from __future__ import annotations

import re

import phonenumbers

from channels_out.kinds import Channel

# Channels on which a phone number is an address to send to.
REACHED_BY_PHONE = {Channel.WHATSAPP, Channel.SMS, Channel.VOICE}

# Spaces, brackets, dots, hyphens and dashes around digits; no letters, so no vanity numbers and no extensions.
FEWEST_DIGITS = 5
_WRITTEN = re.compile(r"\+?[\d\s().\-/\u2010-\u2015]{5,40}")
_DIRECTION_MARKS = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069]")  # copied along from address books
_BSUID = re.compile(r"[A-Z]{2}(\.ENT)?\.[A-Za-z0-9]{1,128}")
_OLD_MEXICO = re.compile(r"\+521(\d{10})")
_MEXICO = re.compile(r"\+52(\d{10})")
_OLD_BRAZIL_MOBILE = re.compile(r"\+55(\d{2})([6-9]\d{7})")
_BRAZIL_MOBILE = re.compile(r"\+55(\d{2})9([6-9]\d{7})")


def e164(raw: str, default_region: str | None = None) -> str | None:
    """Return the number as "+51999999999" (E.164), or None if it cannot be a phone number.

    Arguments:
        raw: as people and providers write it: "+51 999 999 999", "0051 …", or international digits without a +.
        default_region: a country ("PE"), for numbers written as they are dialled there.
    """
    written = _DIRECTION_MARKS.sub("", raw).strip()
    if not _WRITTEN.fullmatch(written) or sum(map(str.isdecimal, written)) < FEWEST_DIGITS:
        return None
    if default_region and not written.startswith("+"):
        number = _parsed(written, default_region)
        if number and phonenumbers.is_valid_number(number):
            return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    number = _parsed("+" + written.removeprefix("+").removeprefix("00"), None)
    if number is None or (default_region and not written.startswith("+") and not phonenumbers.is_valid_number(number)):
        return None  # a mistyped local number must not become one of another country
    formatted = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    # WhatsApp still writes Mexican mobiles with the 1 that the numbering plan dropped in 2019.
    return formatted if phonenumbers.is_possible_number(number) or _OLD_MEXICO.fullmatch(formatted) else None


def from_whatsapp(digits: str) -> str | None:
    """Return the E.164 number of a WhatsApp id (digits). Meta has verified it: only its length is checked."""
    return "+" + digits if 7 <= len(digits) <= 15 and digits[0] != "0" else None


def matching_key(phone: str) -> str:
    """Return one key for all E.164 forms of a subscriber's number: to compare with, never to send to.

    - Mexico: "+52 1 …" and "+52 …" are one mobile.
    - Brazil: mobiles got a 9 in front in 2012-2016; WhatsApp ids of before lack it. Landlines begin with 2 to 5 and
      are left alone.
    - Argentina's "+54 9 …" is not folded: without the 9 it can be another subscriber's landline.
    """
    if match := _OLD_MEXICO.fullmatch(phone):
        return "+52" + match[1]
    if match := _BRAZIL_MOBILE.fullmatch(phone):
        return "+55" + match[1] + match[2]
    return phone


def ways_to_write(phone: str) -> list[str]:
    """Return every E.164 form of the subscriber's number, the given one first: to search for, never to send to."""
    key = matching_key(phone)
    ways = [phone, key]
    if match := _MEXICO.fullmatch(key):
        ways.append("+521" + match[1])
    if match := _OLD_BRAZIL_MOBILE.fullmatch(key):
        ways.append("+55" + match[1] + "9" + match[2])
    return list(dict.fromkeys(ways))


def _parsed(written: str, region: str | None) -> phonenumbers.PhoneNumber | None:
    try:
        return phonenumbers.parse(written, region)
    except phonenumbers.NumberParseException:
        return None


def is_business_scoped(address: str) -> bool:
    """Return whether the address is a business-scoped user id of WhatsApp, such as "PE.1234"."""
    return _BSUID.fullmatch(address) is not None


def phone_address(channel: str, phone: str | None) -> str | None:
    """Return the E.164 number as an address on the channel, in digits alone, as providers write it; None without a
    number, or where the channel has no phone addresses."""
    return phone.removeprefix("+") if phone and channel in REACHED_BY_PHONE else None
