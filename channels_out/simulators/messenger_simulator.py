"""The simulator of a Messenger page at Meta."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, ClassVar

from channels_out.contract import Account, InboundRequest
from channels_out.kinds import Channel, MediaKind, ReceiptStatus
from channels_out.shapes import items, record, text
from channels_out.simulators import messenger
from channels_out.simulators.contract import (
    AcceptedFile,
    AcceptedMessage,
    Gesture,
    PlayedGesture,
    SimulatedMessage,
    SimulatedResponse,
    UnsignedWebhook,
)
from channels_out.simulators.meta import MetaSimulator, content_of, error_answer, meta_json
from channels_out.simulators.people import SimulatedPerson

_MOST_BYTES = 25_000_000  # of a file. Source: Meta, Messenger Platform, "Sending attachments"
_TYPES = {MediaKind.VOICE: "audio", MediaKind.DOCUMENT: "file"}  # of attachments, where they have another word
_ROUTE = re.compile(r"/(?:v\d+\.\d+/)?(?P<page>[^/?]+)(?P<messages>/messages)?(?:\?.*)?")


class MessengerSimulator(MetaSimulator):
    """One page of one Meta app. It reports an accepted message by an echo, and reports no failures."""

    provider = "messenger"
    channel = Channel.MESSENGER
    receipts = (ReceiptStatus.SENT, ReceiptStatus.DELIVERED, ReceiptStatus.READ)
    gestures = tuple(Gesture)
    echoes = True
    most_bytes = dict.fromkeys(
        (MediaKind.IMAGE, MediaKind.VOICE, MediaKind.AUDIO, MediaKind.VIDEO, MediaKind.DOCUMENT), _MOST_BYTES
    )
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
        """Return the webhook with a text, or with a file, whose link it has."""
        content: dict[str, Any] = {"text": said.text}
        if said.file:
            kind = _TYPES.get(said.file.kind, said.file.kind.value)
            content = {"attachments": [messenger.attachment(kind, said.file.link)]}
        who, at = self.address_of(person), _milliseconds(said.at)
        return self._webhook(account, messenger.message(account.address, who, mid=said.message_id, at=at, **content))

    def gesture(self, account: Account, person: SimulatedPerson, played: PlayedGesture) -> UnsignedWebhook:
        """Return the webhook with the gesture, or with the echo of what a colleague wrote in the Page inbox."""
        page, who, at = account.address, self.address_of(person), _milliseconds(played.at)
        item = {
            Gesture.REACT: lambda: messenger.reaction(page, who, played.about, played.text, at=at),
            Gesture.EDIT: lambda: messenger.edited(page, who, played.about, played.text, at=at),
            Gesture.DELETE: lambda: messenger.message(page, who, mid=played.about, at=at, is_deleted=True),
            Gesture.PRESS: lambda: messenger.quick_reply(page, who, played.text, played.choice, mid=played.message_id),
            Gesture.ECHO: lambda: messenger.echo(
                page, who, played.text, mid=played.message_id, app_id=messenger.PAGE_INBOX
            ),
        }[played.gesture]()
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
        words = text(said, "text") or f"[{text(record(said, 'attachment'), 'type')}]"
        offered = tuple((text(each, "payload"), text(each, "title")) for each in items(said, "quick_replies"))
        ours = text(said, "metadata")
        taken = AcceptedMessage(mid, to, words, our_message_id=ours, choices=offered, file=_file_of(said))
        return SimulatedResponse(body=answer.body, taken=taken)


def _file_of(said: dict[str, Any]) -> AcceptedFile | None:
    attached = record(said, "attachment")
    link = text(record(attached, "payload"), "url")
    return AcceptedFile(text(attached, "type"), link=link) if link else None


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
