"""A program of the client's own that posts Convo's own JSON. Replies are not sent to it."""

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
    """The account's credentials are the client's `client_id` and an `api_key`; the sandbox itself needs neither."""

    provider = "sandbox"
    receipts = ()
    faults = ()

    def __init__(self, channel: Channel) -> None:
        self.channel = channel

    def new_account(self) -> tuple[str, dict[str, str]]:
        """Return an account without credentials."""
        return "sandbox", {}

    def address_of(self, person: SimulatedPerson) -> str:
        """Return the program's own id of the person."""
        return f"simulated-{person.number}"

    def new_message_id(self) -> str:
        """Return the program's own id of the message."""
        return f"simulated.{secrets.token_hex(8)}"

    def message(self, account: Account, person: SimulatedPerson, said: SimulatedMessage) -> UnsignedWebhook:
        """Return Convo's own JSON."""
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
        """Return the header with the API key."""
        return {"X-Service-API-Key": account.credentials.get("api_key", "")}

    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Return False: nothing is sent to a sandbox over HTTP."""
        return False

    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Return False: nothing is sent to a sandbox over HTTP."""
        return False

    def accept(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """Return a 404: nothing is sent to a sandbox over HTTP."""
        return self.failure(InjectedFault.REFUSED)

    def failure(self, fault: InjectedFault) -> SimulatedResponse:
        """Return a 404."""
        return SimulatedResponse(404)
