"""The mapping between WhatsApp's payloads and ours: message types, statuses and error codes, one table each.

`MESSAGE_TYPES` maps a message's type to the text that people and an assistant read, and to the metadata. Keys of the
metadata, each only where there is something:

    reply_to                        the id of the message that this one quotes
    forwarded                       True
    referral                        the advertisement through which the person came, with all that Meta says of it
    referred_product                the product of the catalogue that the message is about: its ids
    errors                          what Meta could not do, as [{"code", "title"}]
    media_id mime_type sha256       of image, video, audio, voice, document, sticker
    filename                        of a document
    voice                           True for an audio that was recorded as a voice message
    latitude longitude name address url      of a location
    contacts                        [{"name", "phones", "company", "emails", "addresses", "websites", "birthday"}]
    catalog_id products             of an order; products as [{"id", "quantity", "price", "currency"}]
    payload title description       of a button or list reply: our own id of the choice, and its label
    response                        of a form (flow): its JSON as the person sent it, a string

`read_activity` reads the types that are no message and say what a person did.

Source: Meta, WhatsApp Cloud API, "Webhooks: messages" and "Error codes".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from channels_out.adapters.meta import GraphErrors
from channels_out.errors import ErrorMeaning, ErrorRule, InboundError
from channels_out.kinds import ActivityKind, ReceiptStatus
from channels_out.shapes import identifier, items, load_json, plain_facts, record, text, value_of

_MAX_ITEMS = 50
_MAX_DEPTH = 4  # of a form's answers
_UNSUPPORTED = "[a message that WhatsApp cannot pass on]"


def read_text(kind: str, item: dict[str, Any]) -> str | None:
    """Return the message as text: its own words, or a stand-in such as "[image] the caption".

    Returns '' if it says nothing, and None if its type is not known. A message of a type that we do not know (or Meta:
    "unsupported") but with a text is read as that text: somebody wrote it and waits for an answer. So does the sender
    of one that Meta cannot pass on ("view once", a poll); a stand-in says so.
    """
    known = MESSAGE_TYPES.get(kind)
    if known is None:
        return text(record(item, "text"), "body") or (_UNSUPPORTED if kind == "unsupported" else None)
    return known.read(kind, item.get(kind))


def read_metadata(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    """Return the message's metadata, with the keys listed above."""
    found: dict[str, Any] = {}
    context = record(item, "context")
    if context:
        _add(found, reply_to=text(context, "id"), referred_product=plain_facts(context.get("referred_product")))
        _add(found, forwarded=context.get("forwarded") is True or context.get("frequently_forwarded") is True)
    if "referral" in item:
        _add(found, referral=plain_facts(item["referral"]))
    if "errors" in item:
        _add(found, errors=[_error(error) for error in items(item, "errors")[:_MAX_ITEMS]])
    if (known := MESSAGE_TYPES.get(kind)) and (described := known.describe(item.get(kind))):
        _add(found, **described)
    return found


def read_activity(kind: str, item: dict[str, Any]) -> tuple[ActivityKind, str, str] | None:
    """Return what the item says that the person did, the message that it is about, and its text; None if nothing.

    An edit without a text that can be read is None too: the message stays as it was.
    """
    if kind not in ("reaction", "edit", "revoke", "interactive"):
        return None
    content = record(item, kind)
    if kind == "reaction":
        return _about(ActivityKind.REACTION, identifier(content, "message_id"), text(content, "emoji"))
    if kind == "edit":
        edited = record(content, "message")
        words = read_text(text(edited, "type"), edited) or ""
        return _about(ActivityKind.EDIT, identifier(content, "original_message_id"), words) if words.strip() else None
    if kind == "revoke":
        return _about(ActivityKind.DELETION, identifier(content, "original_message_id"), "")
    if kind == "interactive" and text(content, "type") == "call_permission_reply":
        granted = text(record(content, "call_permission_reply"), "response") == "accept"
        return ActivityKind.CALL_PERMISSION, "", "permits calls" if granted else "does not permit calls"
    return None


def is_missed_call(call: dict[str, Any]) -> bool:
    """Return whether the item of a `calls` webhook says that a person called and nobody answered."""
    statuses = items(call, "status") or [text(call, "status")]
    ended = text(call, "event") == "terminate" and text(call, "direction") == "USER_INITIATED"
    return ended and "COMPLETED" not in statuses


def _about(kind: ActivityKind, message_id: str, words: str) -> tuple[ActivityKind, str, str] | None:
    return (kind, message_id, words) if message_id else None


def _add(found: dict[str, Any], **values: Any) -> None:
    # 0 is a latitude and stays; False, '' and None go.
    found.update((key, value) for key, value in values.items() if value or type(value) in (int, float))


def _error(error: Any) -> dict[str, Any]:
    code = value_of(error, "code")
    return {"code": code if type(code) in (int, str) else None, "title": text(error, "title")}


# --- message types


def _read_text(_kind: str, content: Any) -> str:
    return text(content, "body")


def _read_media(kind: str, content: Any) -> str:
    kind = "voice" if value_of(content, "voice") is True else kind
    return _stand_in(kind, ": ".join(filter(None, (text(content, "filename"), text(content, "caption")))))


def _read_location(_kind: str, content: Any) -> str:
    place = ", ".join(filter(None, (text(content, "name"), text(content, "address"))))
    latitude, longitude = _coordinate(content, "latitude"), _coordinate(content, "longitude")
    if latitude is not None and longitude is not None:
        place = f"{place} ({latitude}, {longitude})".strip()
    return _stand_in("location", place)


def _read_contacts(_kind: str, content: Any) -> str:
    cards = (" ".join(filter(None, (card["name"], *card["phones"], *_further_words(card)))) for card in _cards(content))
    return _stand_in("contacts", ", ".join(filter(None, cards)))


def _further_words(card: dict[str, Any]) -> list[str]:
    """Return what a card says besides name and phones, in brackets."""
    words = "; ".join(each for name in _FURTHER for each in ([card[name]] if name in card else []) if each)
    return [f"({words})"] if words else []


def _read_order(_kind: str, content: Any) -> str:
    products = ", ".join(f"{product['quantity']} x {product['id']}" for product in _products(content))
    return _stand_in("order", ". ".join(filter(None, (products, text(content, "text")))))


def _read_button(_kind: str, content: Any) -> str:
    return text(content, "text") or text(content, "payload")


def _read_interactive(_kind: str, content: Any) -> str | None:
    kind = text(content, "type")
    reply = record(content, kind)
    if kind in ("button_reply", "list_reply"):
        return text(reply, "title") or text(reply, "id")
    if kind == "nfm_reply":
        fields = "; ".join(_form_fields(text(reply, "response_json")))
        return _stand_in("form", ": ".join(filter(None, (text(reply, "body"), fields))))
    return None


def _stand_in(kind: str, words: str) -> str:
    return f"[{kind}] {words}".rstrip()


def _describe_nothing(_content: Any) -> dict[str, Any]:
    return {}


def _describe_media(content: Any) -> dict[str, Any]:
    return {
        "media_id": text(content, "id"),
        "mime_type": text(content, "mime_type"),
        "sha256": text(content, "sha256"),
        "filename": text(content, "filename"),
        "voice": value_of(content, "voice") is True,
    }


def _describe_location(content: Any) -> dict[str, Any]:
    return {
        "latitude": _coordinate(content, "latitude"),
        "longitude": _coordinate(content, "longitude"),
        "name": text(content, "name"),
        "address": text(content, "address"),
        "url": text(content, "url"),
    }


def _describe_contacts(content: Any) -> dict[str, Any]:
    return {"contacts": _cards(content)}


def _describe_order(content: Any) -> dict[str, Any]:
    return {"catalog_id": text(content, "catalog_id"), "products": _products(content)}


def _describe_button(content: Any) -> dict[str, Any]:
    return {"payload": text(content, "payload"), "title": text(content, "text")}


def _describe_interactive(content: Any) -> dict[str, Any]:
    reply = record(content, text(content, "type"))
    return {
        "payload": text(reply, "id"),
        "title": text(reply, "title"),
        "description": text(reply, "description"),
        "response": text(reply, "response_json"),
    }


# --- parts of messages


def _coordinate(content: Any, key: str) -> float | None:
    value = value_of(content, key)
    return value if type(value) in (int, float) else None


def _cards(contacts: Any) -> list[dict[str, Any]]:
    if type(contacts) is not list:
        return []
    return [_card(card) for card in contacts[:_MAX_ITEMS]]


_FURTHER = ("company", "emails", "addresses", "websites", "birthday")
_STREET = ("street", "city", "state", "zip", "country")


def _card(card: Any) -> dict[str, Any]:
    """Return the card's name and phones, and what it says besides, as texts."""
    name, work = record(card, "name"), record(card, "org")
    whole = " ".join(filter(None, (text(name, part) for part in ("prefix", "first_name", "middle_name", "last_name"))))
    addresses = (", ".join(filter(None, (text(each, part) for part in _STREET))) for each in _some(card, "addresses"))
    found = {
        "company": ", ".join(filter(None, (text(work, part) for part in ("title", "department", "company")))),
        "emails": ", ".join(filter(None, (text(each, "email") for each in _some(card, "emails")))),
        "addresses": " / ".join(filter(None, addresses)),
        "websites": ", ".join(filter(None, (text(each, "url") for each in _some(card, "urls")))),
        "birthday": text(card, "birthday"),
    }
    return {
        "name": text(name, "formatted_name") or whole,
        "phones": [phone for each in _some(card, "phones") if (phone := text(each, "phone") or text(each, "wa_id"))],
        **{key: value for key, value in found.items() if value},
    }


def _some(holder: Any, key: str) -> list[Any]:
    return items(holder, key)[:_MAX_ITEMS]


def _products(content: Any) -> list[dict[str, Any]]:
    found = []
    for product in items(content, "product_items")[:_MAX_ITEMS]:
        if identity := text(product, "product_retailer_id"):
            quantity, price = value_of(product, "quantity"), value_of(product, "item_price")
            found.append(
                {
                    "id": identity,
                    "quantity": quantity if type(quantity) in (int, str) else 1,
                    "price": price if type(price) in (int, float, str) else None,
                    "currency": text(product, "currency"),
                }
            )
    return found


def _form_fields(response: str) -> list[str]:
    """Return the answers of a form as "name: value". Its JSON is a string, which may be broken or hold an array."""
    try:
        answers = load_json(response.encode()) if response else None
    except InboundError:
        return []
    if type(answers) is not dict:
        return []
    fields = ((name, _plain(value)) for name, value in list(answers.items())[:_MAX_ITEMS] if name != "flow_token")
    return [f"{name}: {value}" for name, value in fields if value]


def _plain(value: Any, depth: int = 0) -> str:
    """Return an answer as text: of a nested one "(name: value; …)", of a file its name."""
    if type(value) is bool:
        return "yes" if value else "no"
    if type(value) is list and depth < _MAX_DEPTH:
        return ", ".join(filter(None, (_plain(each, depth + 1) for each in value[:_MAX_ITEMS])))
    if type(value) is dict and depth < _MAX_DEPTH:
        if text(value, "mime_type") and "id" in value:
            return text(value, "file_name") or "a file"
        inner = ((name, _plain(each, depth + 1)) for name, each in list(value.items())[:_MAX_ITEMS])
        words = "; ".join(f"{name}: {each}" for name, each in inner if each)
        return f"({words})" if words else ""
    return str(value) if type(value) in (str, int, float) else ""


# --- the tables


class MessageType(NamedTuple):
    """The mapping of one type of message to text and metadata."""

    read: Callable[[str, Any], str | None]
    describe: Callable[[Any], dict[str, Any]] = _describe_nothing


MESSAGE_TYPES: Mapping[str, MessageType] = {
    "text": MessageType(_read_text),
    **dict.fromkeys(
        ("image", "video", "audio", "voice", "document", "sticker"), MessageType(_read_media, _describe_media)
    ),
    "location": MessageType(_read_location, _describe_location),
    "contacts": MessageType(_read_contacts, _describe_contacts),
    "order": MessageType(_read_order, _describe_order),
    "button": MessageType(_read_button, _describe_button),
    "interactive": MessageType(_read_interactive, _describe_interactive),
}

# Types that are known and are no turn of the conversation.
NOT_TURNS = frozenset({"reaction", "edit", "revoke", "system", "request_welcome"})

STATUSES = {
    "sent": ReceiptStatus.SENT,
    "delivered": ReceiptStatus.DELIVERED,
    "read": ReceiptStatus.READ,
    "played": ReceiptStatus.READ,  # a voice note was listened to
    "failed": ReceiptStatus.FAILED,
}

_TRANSIENT, _THROTTLED, _BROKEN = ErrorMeaning.TRANSIENT, ErrorMeaning.THROTTLED, ErrorMeaning.BROKEN
_FINAL = ErrorMeaning.FINAL

ERRORS = GraphErrors(
    "WhatsApp",
    {
        **dict.fromkeys((1, 2, 131000, 131016, 131053, 131057, 133004, 135000), ErrorRule(_TRANSIENT)),
        # throttled
        4: ErrorRule(_THROTTLED, "WhatsApp throttles the app."),
        80007: ErrorRule(_THROTTLED),
        130429: ErrorRule(_THROTTLED, "WhatsApp throttles the account."),
        131048: ErrorRule(
            _THROTTLED, "WhatsApp throttles the account: too many of its messages were reported or blocked."
        ),
        131056: ErrorRule(
            ErrorMeaning.THROTTLED_RECIPIENT, "WhatsApp throttles the messages from this account to this person."
        ),
        133016: ErrorRule(_THROTTLED),
        # credentials and permissions
        **dict.fromkeys((0, 3, 10, *range(200, 300), 131005), ErrorRule(_BROKEN)),
        190: ErrorRule(_BROKEN, "WhatsApp refuses the access token."),
        # blocked, locked, unpaid, not registered
        368: ErrorRule(_BROKEN, "WhatsApp blocked the account for violating its policies."),
        131031: ErrorRule(_BROKEN, "WhatsApp locked the account."),
        131042: ErrorRule(_BROKEN, "WhatsApp has no valid payment method for the account."),
        131045: ErrorRule(_BROKEN, "The account's number is not registered with WhatsApp."),
        133010: ErrorRule(
            _BROKEN,
            "The account's number is not registered for the Cloud API: register it in WhatsApp Manager, then press Try"
            " again.",
        ),
        131037: ErrorRule(
            _BROKEN,
            "WhatsApp has not approved the number's display name: have it approved in WhatsApp Manager, then press Try"
            " again.",
        ),
        # the person
        131030: ErrorRule(
            _FINAL,
            "The person is not on Meta's list of test recipients: a test number writes to those alone. Add their number"
            " under WhatsApp, API Setup, or use a number of your own.",
        ),
        131026: ErrorRule(_FINAL, "The message cannot be delivered: no WhatsApp, or one too old, at this number."),
        131047: ErrorRule(
            ErrorMeaning.OUTSIDE_WINDOW,
            "More than 24 hours have passed since the person last wrote: only a template can be sent.",
        ),
        130472: ErrorRule(_FINAL, "WhatsApp held the message back: the person is part of an experiment."),
        131049: ErrorRule(
            _FINAL, "WhatsApp held the message back to keep the person's inbox healthy; try again after 24 hours."
        ),
        131050: ErrorRule(_FINAL, "The person opted out of this account's marketing messages."),
        # the account may not write to this country, but to others: it is not broken
        130497: ErrorRule(_FINAL, "WhatsApp does not let this account message people in that country."),
        # our request
        100: ErrorRule(_FINAL, "WhatsApp found a parameter invalid."),
        131008: ErrorRule(_FINAL, "WhatsApp misses a parameter."),
        131009: ErrorRule(_FINAL, "WhatsApp found a parameter's value invalid."),
        131021: ErrorRule(_FINAL, "The sender and the recipient are the same number."),
        131051: ErrorRule(_FINAL, "WhatsApp does not support this type of message."),
        131062: ErrorRule(_FINAL, "WhatsApp needs the person's phone number for this type of message."),
        # templates
        **dict.fromkeys(range(132000, 132017), ErrorRule(_FINAL)),
        132000: ErrorRule(_FINAL, "The template has variables, and none are given here."),
        132001: ErrorRule(_FINAL, "WhatsApp knows no approved template of this name and language."),
        132005: ErrorRule(_FINAL, "The template's text is too long."),
        132007: ErrorRule(_FINAL, "The template violates WhatsApp's policy."),
        132012: ErrorRule(_FINAL, "The template's variables have another format."),
        132015: ErrorRule(_FINAL, "WhatsApp paused the template for its quality."),
        132016: ErrorRule(_FINAL, "WhatsApp disabled the template for its quality."),
    },
    pairs={
        (100, 33): ErrorRule(
            _BROKEN,
            "WhatsApp does not know this phone number id, or the access token has no access to it: correct the one or"
            " the other at the account, then press Try again.",
        ),
    },
)
