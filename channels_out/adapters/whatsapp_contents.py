"""What a WhatsApp message says, as text that people and an assistant can read, and what else of it matters.

Keys of the metadata, each only where there is something:

    reply_to                        the id of the message that this one quotes
    forwarded                       True
    referral                        the advertisement through which the person came, as strings
    errors                          what Meta could not do, as [{"code", "title"}]
    media_id mime_type sha256       of image, video, audio, voice, document, sticker
    filename                        of a document
    voice                           True for an audio that was recorded as a voice message
    latitude longitude name address url      of a location
    contacts                        [{"name", "phones"}]
    catalog_id products             of an order; products as [{"id", "quantity", "price", "currency"}]
    payload title description       of a button or list reply: our own id of the choice, and what stood on it
    response                        of a form (flow): its JSON as the person sent it, a string
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from channels_out.errors import InboundError
from channels_out.shapes import items, load_json, record, text, value_of

_MAX_ITEMS = 50
_MEDIA = ("image", "video", "audio", "voice", "document", "sticker")
_REFERRAL = ("source_url", "source_id", "source_type", "headline", "body", "media_type", "ctwa_clid")


def read(kind: str, item: dict[str, Any]) -> str | None:
    """The message as text: its own words, or a stand-in such as "[image] the caption".

    Returns '' if it says nothing, and None if its type is not known. A message of a type we (or Meta: "unsupported")
    do not know, but with a text, is taken at its word: somebody wrote it and waits for an answer.
    """
    reader = _READERS.get(kind)
    if reader is None:
        return text(record(item, "text"), "body") or None
    return reader(kind, item.get(kind))


def metadata(kind: str, item: dict[str, Any]) -> dict[str, Any]:
    """What else matters of the message; see above."""
    found: dict[str, Any] = {}
    context = record(item, "context")
    if context:
        _add(found, reply_to=text(context, "id"))
        _add(found, forwarded=context.get("forwarded") is True or context.get("frequently_forwarded") is True)
    if "referral" in item:
        referral = record(item, "referral")
        _add(found, referral={key: value for key in _REFERRAL if (value := text(referral, key))})
    if "errors" in item:
        _add(found, errors=[_error(error) for error in items(item, "errors")[:_MAX_ITEMS]])
    if describe := _DESCRIBERS.get(kind):
        _add(found, **describe(item.get(kind)))
    return found


def _add(found: dict[str, Any], **values: Any) -> None:
    # 0 is a latitude and stays; False, '' and None go.
    found.update((key, value) for key, value in values.items() if value or type(value) in (int, float))


def _error(error: Any) -> dict[str, Any]:
    code = value_of(error, "code")
    return {"code": code if type(code) in (int, str) else None, "title": text(error, "title")}


# --- text


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
    cards = (" ".join(filter(None, (card["name"], *card["phones"]))) for card in _cards(content))
    return _stand_in("contacts", ", ".join(filter(None, cards)))


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


_READERS: Mapping[str, Callable[[str, Any], str | None]] = {
    "text": _read_text,
    **dict.fromkeys(_MEDIA, _read_media),
    "location": _read_location,
    "contacts": _read_contacts,
    "order": _read_order,
    "button": _read_button,
    "interactive": _read_interactive,
}


def _stand_in(kind: str, words: str) -> str:
    return f"[{kind}] {words}".rstrip()


# --- metadata


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


_DESCRIBERS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    **dict.fromkeys(_MEDIA, _describe_media),
    "location": _describe_location,
    "contacts": _describe_contacts,
    "order": _describe_order,
    "button": _describe_button,
    "interactive": _describe_interactive,
}


# --- parts of messages


def _coordinate(content: Any, key: str) -> float | None:
    value = value_of(content, key)
    return value if type(value) in (int, float) else None


def _cards(contacts: Any) -> list[dict[str, Any]]:
    if type(contacts) is not list:
        return []
    return [
        {
            "name": text(record(card, "name"), "formatted_name"),
            "phones": [phone for entry in items(card, "phones")[:_MAX_ITEMS] if (phone := text(entry, "phone"))],
        }
        for card in contacts[:_MAX_ITEMS]
    ]


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
    """The answers of a form as "name: value". Its JSON comes as a string, which may be broken or hold an array."""
    try:
        answers = load_json(response.encode()) if response else None
    except InboundError:
        return []
    if type(answers) is not dict:
        return []
    fields = ((name, _plain(value)) for name, value in list(answers.items())[:_MAX_ITEMS] if name != "flow_token")
    return [f"{name}: {value}" for name, value in fields if value]


def _plain(value: Any) -> str:
    if type(value) is bool:
        return "yes" if value else "no"
    if type(value) is list:
        return ", ".join(filter(None, (_plain(each) for each in value[:_MAX_ITEMS] if type(each) is not list)))
    return str(value) if type(value) in (str, int, float) else ""
