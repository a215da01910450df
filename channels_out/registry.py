"""The list of adapters, and the choice of one for a request or an account."""

from __future__ import annotations

from channels_out.adapters.dialog360 import Dialog360Adapter
from channels_out.adapters.messenger import MessengerAdapter
from channels_out.adapters.orb import OrbAdapter
from channels_out.adapters.plivo_sms import PlivoSmsAdapter
from channels_out.adapters.plivo_voice import PlivoVoiceAdapter
from channels_out.adapters.sandbox import SandboxAdapter
from channels_out.adapters.whatsapp import WhatsAppAdapter
from channels_out.contract import Adapter, InboundRequest
from channels_out.errors import UnknownAdapterError
from channels_out.kinds import Channel

ADAPTERS: tuple[Adapter, ...] = (
    Dialog360Adapter(),  # before Meta: it may pass Meta's signature header on, which only Meta's own app can verify
    WhatsAppAdapter(),
    MessengerAdapter(),
    OrbAdapter(),
    PlivoSmsAdapter(),
    PlivoVoiceAdapter(),
    *(SandboxAdapter(channel) for channel in Channel),
)

_BY_NAME = {(adapter.provider, adapter.channel): adapter for adapter in ADAPTERS}
_BY_CHANNEL = {channel.value: tuple(each for each in ADAPTERS if each.channel == channel) for channel in Channel}


def adapter_for(provider: str, channel: str) -> Adapter:
    """Return the adapter of an account. Raises UnknownAdapterError."""
    try:
        return _BY_NAME[provider, Channel(channel)]
    except (KeyError, ValueError):
        raise UnknownAdapterError(f"No adapter for provider {provider!r} on channel {channel!r}.") from None


def adapters_of(channel: str) -> tuple[Adapter, ...]:
    """Return the adapters of a channel. Raises UnknownAdapterError if there is no such channel."""
    try:
        return _BY_CHANNEL[channel]
    except KeyError:
        raise UnknownAdapterError(f"There is no channel {channel!r}.") from None


def providers() -> tuple[str, ...]:
    """Return the providers' names, each once, in order."""
    return tuple(dict.fromkeys(adapter.provider for adapter in ADAPTERS))


def recognise(channel: str, request: InboundRequest) -> Adapter | None:
    """Return the adapter whose provider sent this webhook, unverified; None if no adapter of the channel recognises it.

    Raises UnknownAdapterError.
    """
    for adapter in adapters_of(channel):
        if adapter.recognises(request):
            return adapter
    return None
