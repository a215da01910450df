"""The simulator of a Messenger page at Meta."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import ClassVar

from channels_out.contract import Account, InboundRequest
from channels_out.kinds import Channel, ReceiptStatus
from channels_out.shapes import record, text
from channels_out.simulators import messenger
from channels_out.simulators.contract import AcceptedMessage, SimulatedMessage, SimulatedResponse, UnsignedWebhook
from channels_out.simulators.meta import MetaSimulator, content_of, error_answer, meta_json
from channels_out.simulators.people import SimulatedPerson

_ROUTE = re.compile(r"/(?:v\d+\.\d+/)?(?P<page>[^/?]+)(?P<messages>/messages)?(?:\?.*)?")


class MessengerSimulator(MetaSimulator):
    """One page of one Meta app. It reports an accepted message by an echo, and reports no failures."""

    provider = "messenger"
    channel = Channel.MESSENGER
    receipts = (ReceiptStatus.SENT, ReceiptStatus.DELIVERED, ReceiptStatus.READ)
    echoes = True
    throttled_code = 613
    undeliverable: ClassVar[SimulatedResponse] = error_answer(
        400, 551, "This person isn't available right now", error_subcode=1545041
    )

    def address_of(self, person: SimulatedPerson) -> str:
        """Return the person's page-scoped id."""
        return f"24000000000000{person.number:02}"

    def new_message_id(self) -> str:
        """Return a new mid."""
        return messenger.new_mid()

    def message(self, account: Account, person: SimulatedPerson, said: SimulatedMessage) -> UnsignedWebhook:
        """Return the webhook with a text."""
        sender = self.address_of(person)
        item = messenger.text(account.address, sender, said.text, mid=said.message_id, at=_milliseconds(said.at))
        return self._webhook(account, item)

    def receipt(self, account: Account, taken: AcceptedMessage, status: ReceiptStatus, at: datetime) -> UnsignedWebhook:
        """Return an echo with our own id, a delivery of this message, or the time until which everything was read."""
        page, watermark = account.address, _milliseconds(at)
        if status is ReceiptStatus.SENT:
            ours = taken.our_message_id
            return self._webhook(
                account, messenger.echo(page, taken.to, taken.text, mid=taken.message_id, metadata=ours)
            )
        if status is ReceiptStatus.READ:
            return self._webhook(account, messenger.read(page, taken.to, watermark=watermark))
        item = messenger.delivery(page, taken.to, mids=[taken.message_id], watermark=watermark)
        return self._webhook(account, item)

    def _webhook(self, account: Account, item: dict[str, object]) -> UnsignedWebhook:
        return UnsignedWebhook("/webhooks/messenger/inbound", meta_json(messenger.payload(account.address, item)))

    # --- the API

    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Return True if the request is a message, not a read mark, a typing indicator or a query."""
        return request.method == "POST" and not text(content_of(request), "sender_action")

    def accept(self, account: Account, request: InboundRequest) -> SimulatedResponse:
        """Return the answer to a message, or the page's record."""
        route = _ROUTE.fullmatch(request.url)
        if route is None or (request.method, bool(route["messages"])) not in {("POST", True), ("GET", False)}:
            return error_answer(404, 2500, "Unknown path components")
        if route["page"] != account.address:
            return error_answer(400, 100, f"Object with ID '{route['page']}' does not exist")
        if request.method == "GET":
            return SimulatedResponse(body=json.dumps({"name": "Simulated page", "id": account.address}))
        content = content_of(request)
        if problem := messenger.problem(content):
            return error_answer(400, 100, problem)
        mid, said = messenger.new_mid(), record(content, "message")
        answer = SimulatedResponse(body=json.dumps(messenger.accepted(content, mid)))
        if not self.sends(account, request):
            return answer
        to = text(record(content, "recipient"), "id")
        taken = AcceptedMessage(mid, to, text(said, "text"), our_message_id=text(said, "metadata"))
        return SimulatedResponse(body=answer.body, taken=taken)


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
