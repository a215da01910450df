"""Meta's end of a Messenger page."""

from __future__ import annotations

import json
import re
import secrets
from datetime import datetime

from channels_out.contract import Account, InboundRequest
from channels_out.kinds import Channel, ReceiptStatus
from channels_out.shapes import record, text
from channels_out.simulators import messenger, meta_answers, wire
from channels_out.simulators.contract import Misbehaviour, ProviderAnswer, Said, Simulator, Taken, Webhook
from channels_out.simulators.people import Person
from channels_out.simulators.whatsapp_end import content_of

_ROUTE = re.compile(r"/(?:v\d+\.\d+/)?(?P<page>[^/?]+)(?P<messages>/messages)?(?:\?.*)?")


class MessengerSimulator(Simulator):
    """One page of one Meta app. That it took a message it tells by an echo; it reports no failures."""

    provider = "messenger"
    channel = Channel.MESSENGER
    receipts = (ReceiptStatus.SENT, ReceiptStatus.DELIVERED, ReceiptStatus.READ)
    echoes = True

    def new_account(self) -> tuple[str, dict[str, str]]:
        """A page's id, and what one copies out of Meta's console."""
        names = ("access_token", "app_secret", "verify_token")
        return meta_answers.digits(15), {name: secrets.token_hex(16) for name in names}

    def address_of(self, person: Person) -> str:
        """The id under which the page knows the person."""
        return f"24000000000000{person.number:02}"

    def new_message_id(self) -> str:
        """A mid."""
        return messenger.new_mid()

    def message(self, account: Account, person: Person, said: Said) -> Webhook:
        """A text."""
        sender = self.address_of(person)
        item = messenger.text(account.address, sender, said.text, mid=said.message_id, at=_milliseconds(said.at))
        return self._webhook(account, item)

    def receipt(self, account: Account, taken: Taken, status: ReceiptStatus, at: datetime) -> Webhook:
        """An echo, with what we gave along; a delivery, by name; or the time until which all was read."""
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

    def _webhook(self, account: Account, item: dict[str, object]) -> Webhook:
        return Webhook("/webhooks/messenger/inbound", wire.meta_json(messenger.payload(account.address, item)))

    def signed(self, account: Account, webhook: Webhook, url: str, at: datetime) -> dict[str, str]:
        """By the Meta app's secret."""
        return wire.meta_signature(webhook.body, account.secrets("app_secret")[0])

    # --- the API

    def knows(self, account: Account, request: InboundRequest) -> bool:
        """Whether it has the access token."""
        return meta_answers.has_token(account, request)

    def sends(self, account: Account, request: InboundRequest) -> bool:
        """Whether it is a message, and no typing indicator or question."""
        return request.method == "POST" and not text(content_of(request), "sender_action")

    def accept(self, account: Account, request: InboundRequest) -> ProviderAnswer:
        """Take a message, or answer what the page is called."""
        route = _ROUTE.fullmatch(request.url)
        if route is None or (request.method, bool(route["messages"])) not in {("POST", True), ("GET", False)}:
            return meta_answers.error(404, 2500, "Unknown path components")
        if route["page"] != account.address:
            return meta_answers.error(400, 100, f"Object with ID '{route['page']}' does not exist")
        if request.method == "GET":
            return ProviderAnswer(body=json.dumps({"name": "Simulated page", "id": account.address}))
        content = content_of(request)
        if problem := messenger.problem(content):
            return meta_answers.error(400, 100, problem)
        mid, said = messenger.new_mid(), record(content, "message")
        answer = ProviderAnswer(body=json.dumps(messenger.accepted(content, mid)))
        if not self.sends(account, request):
            return answer
        to = text(record(content, "recipient"), "id")
        taken = Taken(mid, to, text(said, "text"), our_message_id=text(said, "metadata"))
        return ProviderAnswer(body=answer.body, taken=taken)

    def failure(self, misbehaviour: Misbehaviour) -> ProviderAnswer:
        """As the Graph API says it."""
        undeliverable = meta_answers.error(400, 551, "This person isn't available right now", error_subcode=1545041)
        return meta_answers.failure(misbehaviour, throttled_as=613, undeliverable=undeliverable)


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)
