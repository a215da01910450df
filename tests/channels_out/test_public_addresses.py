"""The check of public addresses."""

from __future__ import annotations

import pytest

from channels_out.public_addresses import may_be_reached

PRIVATE = """
    0.0.0.0 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1
    192.0.2.1 192.168.1.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.250 240.0.0.1 255.255.255.255
    :: ::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::127.0.0.1 64:ff9b::a00:1 2002:7f00:1:: 2002:a00:1::
    2001:0:4136:e378:8000:63bf:80ff:fffe 2001:db8::1 fc00::1 fd12::1 fe80::1 fe80::1%eth0 fec0::1 ff02::1 100::1
"""
PUBLIC = "8.8.8.8 93.184.216.34 172.32.0.1 2606:2800:220:1::1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::"


@pytest.mark.parametrize("address", PRIVATE.split())
def test_what_is_not_public_is_not_reached(address: str) -> None:
    assert not may_be_reached(address, ())


@pytest.mark.parametrize("address", PUBLIC.split())
def test_what_is_public_is(address: str) -> None:
    assert may_be_reached(address, ())


def test_a_network_that_is_allowed_is_reached_and_its_neighbour_is_not() -> None:
    allowed = ("10.1.0.0/16", "fd12::/16")
    reached = [may_be_reached(each, allowed) for each in ("10.1.2.3", "10.2.0.1", "fd12::9", "fd13::9", "8.8.8.8")]
    assert reached == [True, False, True, False, True]
