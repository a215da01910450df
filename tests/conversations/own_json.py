"""A client's program that passes messages on in Convo's own JSON, and what is done to its key and its client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from conversations.models import ApiKey, Client
from conversations.services.tenants import api_keys
from tests.routes import Answer, WebServer


@dataclass
class Program:
    """A program with its key."""

    server: WebServer
    client_id: Any
    key: str

    def passes_on(self, message: str = "Hello again", *, channel: str = "sms", **more: Any) -> Answer:
        body = {"client_id": str(self.client_id), "user_id": "ann", "message": message, **more}
        return self.server.call("POST", f"/webhooks/{channel}/inbound", body, headers=self._headers())

    def says(self, message: str = "Hello again", **more: Any) -> Any:
        """The data of a message that is taken."""
        answer = self.passes_on(message, **more)
        assert answer.status == 200, answer.body
        return answer.json["data"]

    def reads(self, conversation_id: Any) -> Answer:
        return self.server.call("GET", f"/conversations/{conversation_id}", headers=self._headers())

    def _headers(self) -> dict[str, str]:
        return {"X-Service-API-Key": self.key} if self.key else {}


def revoke(key: str) -> None:
    [row] = ApiKey.objects.filter(key_hash=api_keys.key_hash(key))
    assert api_keys.revoke(row.pk)


def switch_off(client_id: Any) -> None:
    assert Client.objects.filter(pk=client_id).update(is_active=False) == 1
