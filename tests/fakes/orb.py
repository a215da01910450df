"""A device gateway over real HTTP on a loopback port, as described in docs/channels.md.

    with FakeGateway("kitchen", secret) as gateway:
        account = Account("kitchen", {"secret": secret}, base_url=gateway.url, private_networks=("127.0.0.0/8",))
        ... send ...
        gateway.said[0]["data"]["content"]["text"]

It refuses what is not signed with its secret, and takes each `webhook-id` once: `posts` counts how often one came.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from channels_out.simulators import orb
from tests.fakes.server import FakeServer, Received, Reply


class FakeGateway(FakeServer):
    """A gateway whose devices speak the messages that they receive."""

    def __init__(self, name: str = "kitchen", secret: str = "", port: int = 0) -> None:
        self.name = name
        self.secret = secret or orb.new_secret()
        self.events: list[dict[str, Any]] = []
        self.posts: Counter[str] = Counter()
        super().__init__(port)

    @property
    def said(self) -> list[dict[str, Any]]:
        """The messages to its devices, each once."""
        return [event for event in self.events if event["type"] == orb.MESSAGE_REPLY]

    def handle(self, request: Received) -> Reply:
        """Accept the request, or answer with an error."""
        status, event = orb.taken(request.headers, request.body, self.secret)
        if status != 200:
            return Reply(status, {"code": "refused"})
        with self.lock:
            self.posts[request.headers["webhook-id"]] += 1
            if self.posts[request.headers["webhook-id"]] == 1:
                self.events.append(event)
        return Reply(200, {"taken": True})
