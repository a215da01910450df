"""The person a message names, as a plain value, and the phone number as an address."""

from __future__ import annotations

from dataclasses import dataclass

from channels_out.kinds import AddressKind, Channel

# Channels on which a phone number is an address to send to.
REACHED_BY_PHONE = {Channel.WHATSAPP, Channel.SMS, Channel.VOICE}


@dataclass(frozen=True, slots=True)
class Person:
    """The sender of a message: `user_id` names them in our own JSON, `address` and `kind` in a provider's payload.

    Exactly one of `user_id` and `address` is set. An alias of the kind `user` is the client's own id for the person,
    where the provider sends it along. `phone` is E.164. A `name` from a provider only fills an empty name, since people
    change their display names at will.
    """

    user_id: str = ""
    address: str = ""
    kind: str = AddressKind.USER
    phone: str | None = None
    name: str = ""
    aliases: tuple[tuple[str, str], ...] = ()


def phone_address(channel: str, phone: str | None) -> str | None:
    """Return the phone as an address on the channel, in digits alone, as providers write it; None where the channel
    has no phone addresses or there is no phone."""
    return phone.removeprefix("+") if phone and channel in REACHED_BY_PHONE else None
