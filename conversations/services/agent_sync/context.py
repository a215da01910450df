"""The context of an agent's state: any key is allowed, the protocol's keys have a form, and its size is limited."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from conversations.services.core.errors import InvalidError
from conversations.services.core.json import dumps

LARGEST_CONTEXT = 65_536  # bytes of JSON
LARGEST_METADATA = 16_384
LONGEST_ORDER_ID = 200
MOST_ORDERS = 1_000

DERIVED = ("previousMessages", "lastUserMessage", "currentOrderId", "orderHistory")
TEXTS = ("paymentMethodOriginal", "customerName", "customerEmail", "customerPhone")
PAYMENT_METHODS = ("cash", "card", "transfer", "yape", "plin", "mercado_pago", "bank_transfer")
PAID_BY_CARD = ("credit_card", "debit_card")  # other agents' words for `card`
ORIGINAL = "paymentMethodOriginal"  # the agent's own word, where it is not the protocol's

Object = dict[str, Any]


def clean_context(context: Mapping[str, Any]) -> Object:
    """Return the context as it is stored: the protocol's keys in their form.

    Keys that are null, which means absent, and keys that are derived from chunks and orders are left out. Raises
    InvalidError, which names the key.
    """
    kept: Object = {}
    for name, value in context.items():
        if name in DERIVED or (value is None and name in _FORMS):
            continue
        kept[name] = _FORMS[name](name, value) if name in _FORMS else value
    if context.get("paymentMethod") is not None and kept["paymentMethod"] != context["paymentMethod"]:
        kept.setdefault(ORIGINAL, context["paymentMethod"])
    return kept


def merge_context(old: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """Return `old` updated by `new`, both cleaned. Another payment method has no original of the one before."""
    result = merge_objects(old, new)
    if "paymentMethod" in new and ORIGINAL not in new:
        result.pop(ORIGINAL, None)
    return result


def orders_in(context: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the order ids of the context: its history, and the current one as a list. Raises InvalidError."""
    history = context.get("orderHistory") or []
    if not isinstance(history, list) or len(history) > MOST_ORDERS:
        raise _wrong("orderHistory", f"must be a list of at most {MOST_ORDERS:,} order ids")
    current = context.get("currentOrderId")
    return [_order_id(each) for each in history], [] if current in (None, "") else [_order_id(current)]


def merge_objects(old: Mapping[str, Any], new: Mapping[str, Any]) -> Object:
    """Return `old` updated by `new`: objects are merged deeply, other values are replaced."""
    result = dict(old)
    for name, value in new.items():
        before = result.get(name)
        result[name] = merge_objects(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result


def check_size(field: str, value: Object, largest: int) -> Object:
    """Return the object. Raises InvalidError (`too_large`) if it is larger than `largest` bytes of JSON."""
    size = len(dumps(value))
    if size > largest:
        problem = f"would be {size:,} bytes of JSON; at most {largest:,} are stored"
        raise InvalidError(f"{field} {problem}.", code="too_large", details={field: [problem]})
    return value


# --- the known keys ---------------------------------------------------------------------------------------------------
def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, "must be a string")
    return value


def _number(name: str, value: Any) -> Any:
    """Return the number, also from a string."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value.strip())
        except orjson.JSONDecodeError:
            raise _wrong(name, "must be a number") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _wrong(name, "must be a number")
    return value


def _address(name: str, value: Any) -> Any:
    if not isinstance(value, dict):
        raise _wrong(name, "must be an object")
    return {part: given for part, given in value.items() if given is not None}


def _items(name: str, value: Any) -> Any:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise _wrong(name, "must be a list of objects")
    return [_item(name, item) for item in value]


def _item(name: str, item: Object) -> Object:
    """Return the item as every client of the protocol can read it: with id, name, price, and a whole quantity."""
    read = {
        part: _number(f"{name}.{part}", given) if part in ("quantity", "price") else given
        for part, given in item.items()
        if given is not None
    }
    if missing := [part for part in ("id", "name", "quantity", "price") if part not in read]:
        raise _wrong(f"{name}.{missing[0]}", "is required in every item")
    if read["quantity"] != int(read["quantity"]):
        raise _wrong(f"{name}.quantity", "must be a whole number")
    return {**read, "quantity": int(read["quantity"])}


def _payment(name: str, value: Any) -> str:
    """Return the protocol's word for the payment method. Raises InvalidError for one that no client could read."""
    word = _text(name, value).strip().lower()
    if word in PAID_BY_CARD:
        return "card"
    if word not in PAYMENT_METHODS:
        raise _wrong(name, f"must be one of {', '.join((*PAYMENT_METHODS, *PAID_BY_CARD))}")
    return word


_FORMS: dict[str, Callable[[str, Any], Any]] = {
    "selectedItems": _items,
    "deliveryAddress": _address,
    "orderTotal": _number,
    "retryCount": _number,
    "paymentMethod": _payment,
    **dict.fromkeys(TEXTS, _text),
}


def _order_id(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not 0 < len(value.strip()) <= len(value) <= LONGEST_ORDER_ID:
        raise _wrong("orderHistory", f"must hold order ids of at most {LONGEST_ORDER_ID} characters")
    return value


def _wrong(name: str, problem: str) -> InvalidError:
    return InvalidError(f"context.{name} {problem}.", details={"context": [f"{name} {problem}"]})
