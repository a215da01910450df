"""What Messenger's send route takes and answers. Source: Meta, Messenger Platform, "Send API" and "Error codes"."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from channels_out.adapters.meta_errors import Errors, Meaning
from channels_out.contract import OutboundMessage, SendResult
from channels_out.errors import SendError
from channels_out.http import HttpAnswer
from channels_out.shapes import identifier

TEXT_LIMIT = 2000
LIMIT_UNIT = "utf-16 units"
REPLY_WINDOW = timedelta(hours=24)

_MEANING: dict[int, Meaning] = {
    **dict.fromkeys((1, 2, 1200), Meaning.TRANSIENT),
    **dict.fromkeys((4, 32, 613, 80006), Meaning.THROTTLED),
    **dict.fromkeys((102, 190), Meaning.BROKEN),  # the token
    **dict.fromkeys((100, 551, 10900, 10903), Meaning.FINAL),  # our request, or a person who cannot be written to
    **dict.fromkeys((3, 10, *range(200, 300), 368, 2022, 10904), Meaning.FINAL),  # permissions and policy
}
_SUBCODES = dict.fromkeys((2018065, 2018278, 2534022), Meaning.OUTSIDE_WINDOW)

_OUTSIDE = "More than 24 hours since the person last wrote: Messenger takes no message to them until they write again."
_UNAVAILABLE = "The person cannot be written to now: they blocked the page, or left Messenger."
_SENTENCES = {
    1: "Messenger failed, or the app lacks a permission.",
    2: "Messenger is out of order, or the person blocked the page.",
    4: "Messenger throttles the app.",
    10: "Messenger does not permit this message: the app lacks a permission, or the person last wrote too long ago.",
    32: "Messenger throttles the page.",
    100: "Messenger found a parameter invalid, or knows no such person.",
    102: "Messenger refuses the access token.",
    190: "Messenger refuses the access token.",
    200: "The app lacks the permission to send for this page.",
    230: "The app lacks the permission to write to this person.",
    368: "Messenger blocked the page's messages for violating its policies.",
    551: _UNAVAILABLE,
    613: "Messenger throttles the page.",
    1200: "Messenger could not send for the moment.",
    2022: "Messenger disabled the page's commerce messages for a while.",
    10900: "Messenger does not permit this message.",
    10903: "The person cannot reply to this page, and so cannot be written to.",
    10904: "The page has its messages switched off.",
    80006: "Messenger throttles the page.",
    1545041: _UNAVAILABLE,
    2018001: "Messenger knows no such person, or the person is another page's.",
    2018108: "The app is in development mode: only its own people can be written to.",
    **dict.fromkeys(_SUBCODES, _OUTSIDE),
}
ERRORS = Errors("Messenger", _MEANING, _SENTENCES, _SUBCODES)


def body(message: OutboundMessage) -> dict[str, Any]:
    """The JSON of one text."""
    return {
        "messaging_type": "RESPONSE",
        "recipient": {"id": message.to},
        "message": {
            "text": message.text,
            "metadata": message.message_id,  # the echo brings it back: settles a send without an answer
        },
    }


def result(answer: HttpAnswer) -> SendResult:
    """What the answer says of the message. Raises SendError; a 2xx that names no message is ambiguous."""
    if refusal := ERRORS.refusal(answer):
        raise refusal
    provider_message_id = identifier(answer.json(), "message_id")
    if not provider_message_id:
        raise SendError("Messenger's answer names no message.", code="bad_answer", ambiguous=True)
    return SendResult(provider_message_id)


def account_name(answer: HttpAnswer) -> str:
    """What the record of a page says it is called. Raises SendError."""
    if refusal := ERRORS.refusal(answer, otherwise="Messenger did not answer the question."):
        if refusal.code == "100":
            sentence = "Messenger knows no such page, or the access token may not see it. (100)"
            raise SendError(sentence, code="100", account_broken=True)
        raise refusal
    name = identifier(answer.json(), "name") or identifier(answer.json(), "id")
    if not name:
        raise SendError("Messenger's answer names no page.", code="bad_answer")
    return name
