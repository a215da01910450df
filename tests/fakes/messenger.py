"""Meta's Graph API as a Messenger page speaks it, over real HTTP on a loopback port.

    with FakeMessenger(page="1234567890", access_token="token", app_secret="secret") as messenger:
        account = Account("1234567890", {"access_token": "token"}, base_url=messenger.base_url)
        ... send ...
        messenger.sent[0].text

It remembers what it accepted (`sent`) and what it was told to show (`actions`), and fails as FakeMeta does. Its
webhooks are made with channels_out.simulators.messenger: `messenger.webhook(item, …)` signs them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from channels_out.simulators import messenger
from channels_out.simulators.meta import SignedWebhook, graph_error, signed_by_meta
from tests.fakes.meta import VERSION
from tests.fakes.server import FakeServer, Fault, Received, Reply

PAGE = "1234567890"
PERSON = "5678"


@dataclass(frozen=True)
class Sent:
    """A message that Messenger accepted."""

    mid: str
    to: str
    text: str
    our_message_id: str
    choices: tuple[tuple[str, str], ...] = ()  # title and payload of each quick reply
    attachment: Mapping[str, Any] = field(default_factory=dict)


class FakeMessenger(FakeServer):
    """One page of one Meta app."""

    def __init__(
        self,
        page: str = PAGE,
        access_token: str = "token",
        app_secret: str = "secret",
        verify_token: str = "verify",
        port: int = 0,
    ) -> None:
        self.page = page
        self.access_token = access_token
        self.app_secret = app_secret
        self.verify_token = verify_token
        self.sent: list[Sent] = []
        self.subscribed: list[str] = []
        self.actions: list[tuple[str, str]] = []
        super().__init__(port)

    @property
    def base_url(self) -> str:
        """The base URL for an account."""
        return f"{self.url}/{VERSION}"

    def error_next(self, code: int, status: int = 400, subcode: int = 0, times: int = 1) -> None:
        """Answer with an error code of Meta's."""
        self.fail_next(Fault(status, graph_error(code, subcode=subcode)), times)

    def handle(self, request: Received) -> Reply:
        """Answer as the Graph API does."""
        version, _, path = request.path.partition("?")[0].lstrip("/").partition("/")
        page, _, route = path.partition("/")
        if (request.method, route) == ("GET", "subscribed_apps"):
            return Reply(200, {"data": [{"id": "1", "subscribed_fields": self.subscribed}] if self.subscribed else []})
        if version != VERSION or (request.method, route) not in {("POST", "messages"), ("GET", "")}:
            return Reply(404, graph_error(2500, "Unknown path components"))
        if request.headers.get("authorization") != f"Bearer {self.access_token}":
            return Reply(401, graph_error(190, f"Malformed access token {request.headers.get('authorization')}"))
        if page != self.page:
            return Reply(400, graph_error(100, f"Object with ID '{page}' does not exist"))
        if request.method == "GET":
            return Reply(200, {"name": "The shop's page", "id": page})
        content = request.json()
        if problem := messenger.problem(content):
            return Reply(400, graph_error(100, problem))
        return self._accept(content)

    def _accept(self, content: dict[str, Any]) -> Reply:
        person, mid = content["recipient"]["id"], messenger.new_mid()
        with self.lock:
            if "sender_action" in content:
                self.actions.append((person, content["sender_action"]))
            else:
                message = content["message"]
                offered = tuple((each["title"], each["payload"]) for each in message.get("quick_replies", ()))
                self.sent.append(
                    Sent(
                        mid,
                        person,
                        message.get("text", ""),
                        message.get("metadata", ""),
                        offered,
                        message.get("attachment", {}),
                    )
                )
        return Reply(200, messenger.accepted(content, mid))

    # --- webhooks

    def webhook(self, *items: Mapping[str, Any], key: str = "messaging") -> SignedWebhook:
        """Return a webhook with these items of the page."""
        return self.signed(messenger.payload(self.page, *items, key=key))

    def text_webhook(self, words: str, *, sender: str = PERSON, mid: str = "") -> SignedWebhook:
        """Return the webhook with a person's text."""
        return self.webhook(messenger.text(self.page, sender, words, mid=mid))

    def echo_webhook(self, sent: Sent) -> SignedWebhook:
        """Return the webhook with the echo of a message that it accepted."""
        return self.webhook(messenger.echo(self.page, sent.to, sent.text, mid=sent.mid, metadata=sent.our_message_id))

    def signed(self, payload: Any) -> SignedWebhook:
        """Return any payload, as Meta writes and signs it."""
        return signed_by_meta(payload, self.app_secret)
