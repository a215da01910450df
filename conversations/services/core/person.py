"""The person that a message names, as a plain value."""

from __future__ import annotations

from typing import NamedTuple

from channels_out.kinds import AddressKind


class Person(NamedTuple):
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
