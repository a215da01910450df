"""The check that a server of a client's own has a public address: clients must not reach our own networks through us.

The check is made for the connection and not for the URL: a name's owner can change it between a look-up for the check
and one for the connection (DNS rebinding). So a name is looked up once, all its addresses are checked, and the
connection goes to one of these.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable

Networks = tuple[str, ...]

EVERYWHERE: Networks = ("0.0.0.0/0", "::/0")

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class ForbiddenAddressError(OSError):
    """A host name has an address that is not public."""


def resolve(host: str, port: int, allowed: Networks) -> list[str]:
    """Return every IP address of the host, in the order in which to try them.

    Arguments:
        host: a name, or an address as it stands in a URL.
        allowed: networks that may be reached although they are not public ("127.0.0.0/8").

    Raises ForbiddenAddressError if one of them may not be reached, OSError if there is none.
    """
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not all(may_be_reached(address, allowed) for address in addresses):
        raise ForbiddenAddressError("The address is not public.")
    return addresses


def may_be_reached(address: str, allowed: Networks) -> bool:
    """Return True if the IP address is public, or within one of the allowed networks."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if any(ip in network for network in _networks(allowed)):
        return True
    if isinstance(ip, ipaddress.IPv6Address) and (inner := _embedded(ip)):
        return may_be_reached(str(inner), allowed)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or getattr(ip, "is_site_local", False))


def _networks(written: Networks) -> Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return (ipaddress.ip_network(each, strict=False) for each in written)


def _embedded(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address leads to, if it does (RFC 4291, 3056, 4380, 6052)."""
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
