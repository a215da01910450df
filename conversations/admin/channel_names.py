"""The channels as staff read and see them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from channels_out.kinds import Channel
from conversations.words import lazy as _


@dataclass(frozen=True, slots=True)
class ChannelName:
    """The name of a channel, and its icon of Material Symbols, which unfold ships."""

    name: str
    icon: str


CHANNEL_NAMES: Mapping[str, ChannelName] = {
    Channel.WHATSAPP: ChannelName("WhatsApp", "chat"),
    Channel.MESSENGER: ChannelName("Messenger", "forum"),
    Channel.SMS: ChannelName("SMS", "sms"),
    Channel.VOICE: ChannelName(_("Phone"), "call"),
    Channel.ORB: ChannelName("Orb", "graphic_eq"),
    Channel.WEB: ChannelName(_("Web"), "language"),
}


def name_of(channel: str) -> str:
    """Return the channel's name."""
    known = CHANNEL_NAMES.get(channel)
    return known.name if known else channel


def icon_of(channel: str) -> str:
    """Return the name of the channel's icon."""
    known = CHANNEL_NAMES.get(channel)
    return known.icon if known else "chat"
