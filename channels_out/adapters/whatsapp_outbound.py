"""What WhatsApp's send route takes and answers, at Meta and at 360dialog alike.

Source: Meta, WhatsApp Cloud API, "Send messages" and "Error codes".
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from channels_out.adapters.meta_errors import Errors, Meaning
from channels_out.contract import BeingAnswered, OutboundMessage, SendResult
from channels_out.errors import SendError
from channels_out.http import HttpAnswer
from channels_out.kinds import AddressKind
from channels_out.shapes import identifier, items

TEXT_LIMIT = 4096
LIMIT_UNIT = "utf-16 units"
REPLY_WINDOW = timedelta(hours=24)

_MEANING: dict[int, Meaning] = {
    **dict.fromkeys((1, 2, 131000, 131016, 131053, 131057, 133004, 135000), Meaning.TRANSIENT),
    **dict.fromkeys((4, 80007, 130429, 131048, 133016), Meaning.THROTTLED),
    131056: Meaning.THROTTLED_RECIPIENT,
    **dict.fromkeys((0, 3, 10, 190, *range(200, 300), 131005), Meaning.BROKEN),  # credentials and permissions
    **dict.fromkeys((368, 131031, 131042, 131045), Meaning.BROKEN),  # blocked, locked, unpaid, not registered
    131047: Meaning.OUTSIDE_WINDOW,
    131026: Meaning.FINAL,  # undeliverable
    **dict.fromkeys((100, 131008, 131009, 131021, 131051, 131062), Meaning.FINAL),  # our request
    **dict.fromkeys((130472, 131049, 131050), Meaning.FINAL),  # experiment, ecosystem, opted out
    130497: Meaning.FINAL,  # the account may not write to this country, but to others: not broken
    **dict.fromkeys(range(132000, 132017), Meaning.FINAL),  # templates
}

_SENTENCES = {
    4: "WhatsApp throttles the app.",
    190: "WhatsApp refuses the access token.",
    100: "WhatsApp found a parameter invalid.",
    368: "WhatsApp blocked the account for violating its policies.",
    130429: "WhatsApp throttles the account.",
    130472: "WhatsApp held the message back: the person is part of an experiment.",
    130497: "WhatsApp does not let this account message people in that country.",
    131008: "WhatsApp misses a parameter.",
    131009: "WhatsApp found a parameter's value invalid.",
    131021: "The sender and the recipient are the same number.",
    131026: "The message cannot be delivered: no WhatsApp, or one too old, at this number.",
    131031: "WhatsApp locked the account.",
    131042: "WhatsApp has no valid payment method for the account.",
    131045: "The account's number is not registered with WhatsApp.",
    131047: "More than 24 hours since the person last wrote: only a template can be sent.",
    131048: "WhatsApp throttles the account: too many of its messages were reported or blocked.",
    131049: "WhatsApp held the message back to keep the person's inbox healthy; not before 24 hours again.",
    131050: "The person opted out of this account's marketing messages.",
    131051: "WhatsApp does not support this type of message.",
    131056: "WhatsApp throttles the messages from this account to this person.",
    132000: "The template has variables, and none are given here.",
    132001: "WhatsApp knows no approved template of this name and language.",
    132005: "The template's text is too long.",
    132007: "The template violates WhatsApp's policy.",
    132012: "The template's variables have another format.",
    132015: "WhatsApp paused the template for its quality.",
    132016: "WhatsApp disabled the template for its quality.",
    131062: "WhatsApp needs the person's phone number for this type of message.",
}


ERRORS = Errors("WhatsApp", _MEANING, _SENTENCES)


def account_refused(code: int) -> str:
    """What staff read where the account is refused; not Meta's own sentence, which may quote a token."""
    return f"{ERRORS.sentence(code) or 'WhatsApp refuses the account.'} ({code})"


def body(message: OutboundMessage) -> dict[str, Any]:
    """The JSON of one text, or of one template without variables."""
    to = "recipient" if message.to_kind == AddressKind.BSUID else "to"
    content: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        to: message.to,
        "biz_opaque_callback_data": message.message_id,  # statuses bring it back: settles a send without an answer
    }
    if template := message.template:
        content |= {
            "type": "template",
            "template": {"name": template.name, "language": {"code": template.language}},
        }
    else:
        content |= {"type": "text", "text": {"body": message.text, "preview_url": False}}
    if message.reply_to:
        content["context"] = {"message_id": message.reply_to}
    return content


def read_mark(answered: BeingAnswered, *, typing: bool) -> dict[str, Any]:
    """The JSON that marks a message read and, if `typing`, shows that a reply is being written, for 25 seconds."""
    content = {"messaging_product": "whatsapp", "status": "read", "message_id": answered.message_id}
    return content | ({"typing_indicator": {"type": "text"}} if typing else {})


def result(answer: HttpAnswer) -> SendResult:
    """What the answer says of the message. Raises SendError; a 2xx that names no message is ambiguous."""
    if refusal := ERRORS.refusal(answer):
        raise refusal
    messages = items(answer.json(), "messages")
    provider_message_id = identifier(messages[0], "id") if messages else ""
    if not provider_message_id:
        raise SendError("WhatsApp's answer names no message.", code="bad_answer", ambiguous=True)
    return SendResult(provider_message_id)


def account_name(answer: HttpAnswer) -> str:
    """What the record of a phone number says it is called. Raises SendError."""
    if refusal := ERRORS.refusal(answer, otherwise="WhatsApp did not answer the question."):
        if refusal.code == "100":
            sentence = "WhatsApp knows no such phone number id, or the access token may not see it. (100)"
            raise SendError(sentence, code="100", account_broken=True)
        raise refusal
    name, number = (identifier(answer.json(), key) for key in ("verified_name", "display_phone_number"))
    if not (name or number):
        raise SendError("WhatsApp's answer names no phone number.", code="bad_answer")
    return " ".join(filter(None, (name, number)))
