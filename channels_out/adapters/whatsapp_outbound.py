"""What WhatsApp's send route takes and answers, at Meta and at 360dialog alike.

Errors are told apart by `error.code` and not by the HTTP status: Meta answers throttling with a 403 as well.
Source: Meta, WhatsApp Cloud API, "Send messages" and "Error codes".
"""

from __future__ import annotations

from typing import Any

from channels_out.contract import OutboundMessage, SendResult
from channels_out.errors import SendError, Throttled
from channels_out.http import HttpAnswer
from channels_out.kinds import AddressKind
from channels_out.shapes import identifier, items, record

TEXT_LIMIT = 4096
LIMIT_UNIT = "utf-16 units"

_TRANSIENT = "transient"  # may pass: try again
_THROTTLED = "throttled"  # the account sends too fast: try again later
_THROTTLED_RECIPIENT = "throttled for this recipient"
_BROKEN = "broken"  # the account is refused, and so will be every other message
_FINAL = "final"  # this message is refused for good

_MEANING: dict[int, str] = {
    **dict.fromkeys((1, 2, 131000, 131016, 131053, 131057, 133004, 135000), _TRANSIENT),
    **dict.fromkeys((4, 80007, 130429, 131048, 133016), _THROTTLED),
    131056: _THROTTLED_RECIPIENT,
    **dict.fromkeys((0, 3, 10, 190, *range(200, 300), 131005), _BROKEN),  # credentials and permissions
    **dict.fromkeys((368, 131031, 131042, 131045), _BROKEN),  # blocked, locked, unpaid, not registered
    **dict.fromkeys((131026, 131047), _FINAL),  # undeliverable, outside the 24 hours
    **dict.fromkeys((100, 131008, 131009, 131021, 131051, 131062), _FINAL),  # our request
    **dict.fromkeys((130472, 131049, 131050), _FINAL),  # experiment, ecosystem, opted out
    130497: _FINAL,  # the account may not write to this country, but to others: not broken
    **dict.fromkeys(range(132000, 132017), _FINAL),  # templates
}

_GATEWAY = {502, 504}  # the request was passed on, and what became of it is not known (RFC 9110, 15.6.3 and 15.6.5)

_THROTTLE_SCOPE: dict[str, Throttled] = {_THROTTLED: "account", _THROTTLED_RECIPIENT: "recipient"}

# For staff. Meta's own sentences are not passed on: that of 190 quotes the token, others the number.
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
    131062: "WhatsApp needs the person's phone number for this type of message.",
}


def body(message: OutboundMessage) -> dict[str, Any]:
    """The JSON of one text."""
    to = "recipient" if message.to_kind == AddressKind.BSUID else "to"
    content: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        to: message.to,
        "type": "text",
        "text": {"body": message.text, "preview_url": False},
        "biz_opaque_callback_data": message.message_id,  # statuses bring it back: settles a send without an answer
    }
    if message.reply_to:
        content["context"] = {"message_id": message.reply_to}
    return content


def result(answer: HttpAnswer) -> SendResult:
    """What the answer says of the message. Raises SendError.

    An answer with an error status is an answer: the message was not accepted. A 2xx that names no message is
    ambiguous, as it may have been; so is a gateway's own page that says that it heard nothing sensible behind it.
    """
    content = answer.json()
    if not answer.ok or (type(content) is dict and content.get("error")):
        raise _error(answer, record(content, "error"))
    messages = items(content, "messages")
    provider_message_id = identifier(messages[0], "id") if messages else ""
    if not provider_message_id:
        raise SendError("WhatsApp's answer names no message.", code="bad_answer", ambiguous=True)
    return SendResult(provider_message_id)


def account_name(answer: HttpAnswer) -> str:
    """What the record of a phone number says it is called. Raises SendError."""
    content = answer.json()
    if not answer.ok or (type(content) is dict and content.get("error")):
        error = record(content, "error")
        if _number(error.get("code")) == 100:
            sentence = "WhatsApp knows no such phone number id, or the access token may not see it. (100)"
            raise SendError(sentence, code="100", account_broken=True)
        raise _error(answer, error, otherwise="WhatsApp did not answer the question.")
    name, number = (identifier(content, key) for key in ("verified_name", "display_phone_number"))
    if not (name or number):
        raise SendError("WhatsApp's answer names no phone number.", code="bad_answer")
    return " ".join(filter(None, (name, number)))


def _error(
    answer: HttpAnswer, error: dict[str, Any], otherwise: str = "WhatsApp did not take the message."
) -> SendError:
    number = _number(error.get("code"))
    code = f"http_{answer.status}" if number is None else str(number)
    meaning = _MEANING.get(number, "") if number is not None else ""
    meaning = meaning or _meaning_of_status(answer.status, is_transient=error.get("is_transient") is True)
    if number is None and answer.status in _GATEWAY:
        raise SendError(f"Something before WhatsApp lost its answer. ({code})", code=code, ambiguous=True)
    sentence = _SENTENCES.get(number or 0, otherwise)
    return SendError(
        f"{sentence} ({code})",
        code=code,
        retryable=meaning in {_TRANSIENT, _THROTTLED, _THROTTLED_RECIPIENT},
        retry_after=answer.retry_after if meaning != _FINAL else None,
        throttled=_THROTTLE_SCOPE.get(meaning, ""),
        account_broken=meaning == _BROKEN,
    )


def _meaning_of_status(status: int, *, is_transient: bool) -> str:
    """Where the code is unknown or missing (360dialog's own errors, a proxy's page)."""
    if status == 429:
        return _THROTTLED
    if status >= 500 or status == 408 or is_transient:
        return _TRANSIENT
    return _BROKEN if status == 401 else _FINAL


def _number(code: Any) -> int | None:
    if type(code) is str and code.isascii() and code.isdigit():
        return int(code[:10])
    return code if type(code) is int else None
