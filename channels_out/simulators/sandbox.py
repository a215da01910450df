"""A program of the client's own, which posts Convo's own JSON; what is answered stays within Convo."""

from __future__ import annotations

import json
import secrets
from datetime import datetime

from channels_out.contract import Account, InboundRequest
from channels_out.kinds import Channel
from channels_out.simulators.contract import (
    InjectedFault,
    SimulatedMessage,
    SimulatedResponse,
    Simulator,
    UnsignedWebhook,
)
from channels_out.simulators.people import SimulatedPerson


class SandboxSimulator(Simulator):
    """Its account's credentials are the client's `client_id` and an `api_key`; the sandbox itself needs neither."""

    provider = "sandbox"
    receipts = ()
    faults = ()

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def new_account(self) -> tuple[str, dict[str, str]]:
        """A sandbox needs nothing."""
        return "sandbox", {}

    def address_of(self, person: SimulatedPerson) -> str:
        """The program's own id for the person."""
        return f"simulated-{person.number}"

    def new_message_id(self) -> str:
        """The program's own id for the message."""
        return f"simulated.{secrets.token_hex(8)}"

    def message(self, account: Account, person: SimulatedPerson, said: SimulatedMessage) -> UnsignedWebhook:
        """Convo's own JSON."""
        content = {
            "client_id": account.credentials.get("client_id", ""),
            "user_id": self.address_of(person),
            "name": person.name,
            **({"phone": f"+{person.phone}"} if person.shows_phone else {}),
            "message": said.text,
            "message_id": said.message_id,
        }
        body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace")
        return UnsignedWebhook(f"/webhooks/{self.channel}/inbound", body)

    def signed(self, account: Account, webhook: UnsignedWebhook, url: str, at: datetime) -> dict[str, str]:
        """By the API key."""
        return {"X-Service-API-Key": account.credentials.get("api_key", "")}

    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Nothing is sent to a sandbox over HTTP."""
        return False

    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Nothing is."""
        return False

    def accept(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """Nothing is."""
        return self.failure(InjectedFault.REFUSED)

    def failure(self, fault: InjectedFault) -> SimulatedResponse:
        """There is nobody."""
        return SimulatedResponse(404)
