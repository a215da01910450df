"""The sandbox on every channel, and the registry."""

from __future__ import annotations

import pytest

from channels_out import registry
from channels_out.adapters.sandbox import SandboxAdapter
from channels_out.adapters.whatsapp import WhatsAppAdapter
from channels_out.contract import Account, InboundRequest, OutboundMessage, SendResult
from channels_out.errors import UnknownAdapterError
from channels_out.kinds import AddressKind, Channel, ReceiptStatus
from tests.channels_out.contract import AdapterContract


class TestSandboxContract(AdapterContract):
    adapter = SandboxAdapter(Channel.WEB)


@pytest.mark.parametrize("channel", Channel)
def test_it_delivers_at_once_and_always_under_the_same_id(channel: Channel) -> None:
    adapter = registry.adapter_for("sandbox", channel)
    message = OutboundMessage("msg_1", "anyone", AddressKind.USER, "Hello")
    results = {adapter.send(Account("sandbox"), message) for _ in range(2)}
    assert results == {SendResult("sandbox.msg_1", ReceiptStatus.DELIVERED)}
    assert (adapter.channel, adapter.text_limit, adapter.sends_idempotently) == (channel, 4096, True)


def test_adapters_are_found_by_provider_and_by_channel() -> None:
    assert isinstance(registry.adapter_for("whatsapp", "whatsapp"), WhatsAppAdapter)
    assert [adapter.provider for adapter in registry.adapters_of("whatsapp")] == ["dialog360", "whatsapp", "sandbox"]
    assert [adapter.provider for adapter in registry.adapters_of(Channel.WEB)] == ["sandbox"]
    assert {"whatsapp", "dialog360", "messenger", "plivo", "sandbox"} <= set(registry.providers())


def test_a_request_finds_its_adapter() -> None:
    signed = InboundRequest("POST", "https://convo.example/", {"x-hub-signature-256": "x"}, {}, b"")
    unsigned = InboundRequest("POST", "https://convo.example/", {}, {}, b"")
    adapter = registry.recognise("whatsapp", signed)
    assert isinstance(adapter, WhatsAppAdapter)
    assert registry.recognise("whatsapp", unsigned) is None
    assert registry.recognise("web", signed) is None


@pytest.mark.parametrize(
    ("provider", "channel"), [("whatsapp", "web"), ("nobody", "web"), ("sandbox", "fax"), ("", "")]
)
def test_an_unknown_pair_is_an_error(provider: str, channel: str) -> None:
    with pytest.raises(UnknownAdapterError):
        registry.adapter_for(provider, channel)


def test_an_unknown_channel_is_an_error() -> None:
    with pytest.raises(UnknownAdapterError):
        registry.adapters_of("fax")
