"""A fake of a tool that charges a card, over real HTTP: it counts, and checks signatures as a client's server would.

    with PaidTool(secret=…) as tool:
        tool.charges == {"order-1": 1}      # how often each order was charged
        tool.before = tool.after = hold     # called before and after it charges, while the caller waits

`honours_key`: the same Idempotency-Key charges once, and gets the first answer again; else each request charges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from channels_out import standard_webhooks
from channels_out.errors import InboundError
from tests.fakes.server import FakeServer, Received, Reply

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"order": {"type": "string", "maxLength": 40}, "amount": {"type": "number", "exclusiveMinimum": 0}},
    "required": ["order", "amount"],
    "additionalProperties": False,
}


class PaidTool(FakeServer):
    """A shop's server that charges what an order costs."""

    def __init__(self, secret: str = "", *, honours_key: bool = True) -> None:
        self.secret, self.honours_key = secret, honours_key
        self.charges: Counter[str] = Counter()
        self.refused = 0
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None
        self.answer_with: Callable[[dict[str, Any]], Reply] = _charged
        self._done: dict[str, Reply] = {}
        super().__init__()

    @property
    def keys(self) -> list[str]:
        """The idempotency keys, in the order of the requests."""
        return [request.headers.get("idempotency-key", "") for request in self.requests]

    def handle(self, request: Received) -> Reply:
        """Charge, unless the key was here before and counts."""
        try:
            standard_webhooks.verify(request.headers, request.body, [self.secret])
        except InboundError:
            with self.lock:
                self.refused += 1
            return Reply(401, {"error": "who are you?"})
        body, key = request.json(), request.headers["idempotency-key"]
        self.before()
        with self.lock:
            if not (self.honours_key and key in self._done):
                self.charges[body["arguments"].get("order", "")] += 1
                self._done[key] = self.answer_with(body)
            reply = self._done[key]
        self.after()
        return reply


def _charged(body: dict[str, Any]) -> Reply:
    return Reply(200, {"charged": body["arguments"].get("amount"), "receipt": f"R-{body['arguments'].get('order')}"})
