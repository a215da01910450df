"""360dialog's API for one WhatsApp number, over real HTTP on a loopback port: Meta's payloads, and its own key.

    with FakeDialog360("1234567890", api_key="key", webhook_secret="secret") as dialog:
        account = Account("1234567890", {"api_key": "key"}, base_url=dialog.base_url)
        ... send ...
        dialog.sent[0].text

It fails as FakeMeta does, and its webhooks carry the header that was given with the webhook's address.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from channels_out.simulators.meta import SignedWebhook, posted_by_dialog360
from tests.fakes.meta import FakeMeta
from tests.fakes.server import Received, Reply


class FakeDialog360(FakeMeta):
    """One number with its key."""

    def __init__(
        self, phone_number_id: str = "1234567890", api_key: str = "key", webhook_secret: str = "secret", port: int = 0
    ) -> None:
        self.api_key = api_key
        self.webhook_secret = webhook_secret
        self.registered = ""
        super().__init__(phone_number_id, port=port)

    @property
    def base_url(self) -> str:
        return self.url

    def handle(self, request: Received) -> Reply:
        """Answer as 360dialog does."""
        if request.headers.get("d360-api-key") != self.api_key:
            meta = {"success": False, "http_code": 401, "developer_message": "Invalid api_key"}
            return Reply(401, {"meta": meta})
        if (request.method, request.path) == ("GET", "/health_status"):
            number = {"entity_type": "PHONE_NUMBER", "id": self.phone_number_id, "can_send_message": "AVAILABLE"}
            health = {"can_send_message": "AVAILABLE", "entities": [number]}
            return Reply(200, {"health_status": health, "id": self.phone_number_id})
        path, _, query = request.path.partition("?")
        if (request.method, path) == ("GET", "/v1/configs/webhook"):
            return Reply(200, {"url": self.registered})
        if (request.method, path) == ("GET", "/v1/configs/templates"):
            asked = dict(parse_qsl(query))
            begin = int(asked.get("offset", 0))
            page = [{**each, "status": each["status"].lower()} for each in self.templates]
            page = page[begin : begin + int(asked.get("limit", 1000))]
            return Reply(200, {"count": len(page), "total": len(self.templates), "waba_templates": page})
        if (request.method, request.path) != ("POST", "/messages"):
            return Reply(404, {"error": "Not found"})
        return self.take(request.json())

    def signed(self, payload: Any) -> SignedWebhook:
        """Return any payload, as 360dialog posts it."""
        return posted_by_dialog360(payload, self.webhook_secret)
