"""The list of simulators whose provider has an adapter."""

from __future__ import annotations

from channels_out import registry
from channels_out.errors import UnknownAdapterError
from channels_out.kinds import Channel
from channels_out.simulators.contract import Simulator
from channels_out.simulators.messenger_simulator import MessengerSimulator
from channels_out.simulators.orb_simulator import OrbSimulator
from channels_out.simulators.plivo_simulator import PlivoSmsSimulator, PlivoVoiceSimulator
from channels_out.simulators.sandbox import SandboxSimulator
from channels_out.simulators.whatsapp_simulator import Dialog360Simulator, WhatsAppSimulator

_WRITTEN: tuple[Simulator, ...] = (
    WhatsAppSimulator(),
    Dialog360Simulator(),
    MessengerSimulator(),
    PlivoSmsSimulator(),
    PlivoVoiceSimulator(),
    OrbSimulator(),
    *(SandboxSimulator(channel) for channel in Channel if channel is not Channel.WEB),
)


def _has_adapter(simulator: Simulator) -> bool:
    try:
        return bool(registry.adapter_for(simulator.provider, simulator.channel))
    except UnknownAdapterError:
        return False


SIMULATORS = tuple(simulator for simulator in _WRITTEN if _has_adapter(simulator))

_BY_NAME = {(each.provider, each.channel.value): each for each in SIMULATORS}


def simulator_for(provider: str, channel: str) -> Simulator:
    """Return the simulator of an account. Raises UnknownAdapterError."""
    try:
        return _BY_NAME[provider, channel]
    except KeyError:
        raise UnknownAdapterError(f"There is no simulator of {provider!r} on {channel!r}.") from None
