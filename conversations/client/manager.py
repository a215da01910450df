"""Conversion between a graph's state and a conversation's, both ways."""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any

from .courier import Receipt
from .states import INTENTS, ConversationState
from .tracking import ConversationSync, default_sync

log = logging.getLogger(__name__)

# Paths in the graph's state, and the paths in the context that they become. A manager takes more of them as `mapping`.
MAPPING: dict[str, str] = {
    "cart.items": "selectedItems",
    "cart.total": "orderTotal",
    "payment_method": "paymentMethod",
    "customer_name": "customerName",
    "customer_email": "customerEmail",
    "customer_phone": "customerPhone",
    "current_order_id": "currentOrderId",
    "retry_count": "retryCount",
    "user_location.address": "deliveryAddress.street",
    "user_location.name": "deliveryAddress.city",
    "user_location.latitude": "deliveryAddress.latitude",
    "user_location.longitude": "deliveryAddress.longitude",
    # The graph's own names for its place, from which intent and step are made.
    "order_stage": "graph.orderStage",
    "workflow": "graph.workflow",
    "current_step": "graph.currentStep",
    "current_intent": "graph.currentIntent",
}
# What servers of the protocol take; another word of the graph's stays beside it, in `paymentMethodOriginal`.
PAYMENT_METHODS = (
    *("cash", "card", "transfer", "yape", "plin", "mercado_pago", "bank_transfer"),
    *("credit_card", "debit_card"),
)
STAGES: dict[str, str] = {
    **dict.fromkeys(("cart", "selecting_items", "customizing", "awaiting_size", "awaiting_extras"), "order"),
    **dict.fromkeys(("checkout", "delivery", "awaiting_location"), "delivery"),
    **dict.fromkeys(("payment", "awaiting_payment", "awaiting_phone"), "payment"),
}
WORKFLOWS = {"menu": "menu", "order": "order"}
FIRST_STEP = "initial"
_COORDINATES = re.compile(r"(-?[\d.]+(?:e-?\d+)?), (-?[\d.]+(?:e-?\d+)?)\Z")
HUMAN, ASSISTANT = ("human", "user", "HumanMessage"), ("ai", "bot", "assistant", "AIMessage")


class ConversationStateManager:
    """Carry a graph's state to Convo and back.

    Arguments:
        mapping: pairs of graph path and context path (names joined by dots), added to MAPPING or in the place of its
            own; a graph path with the value "" is left out.
        sync: the connection to Convo; by default the one that the environment describes.
    """

    def __init__(self, mapping: Mapping[str, str] | None = None, sync: ConversationSync | None = None) -> None:
        self.mapping = {ours: theirs for ours, theirs in {**MAPPING, **(mapping or {})}.items() if theirs}
        self._sync = sync

    @property
    def sync(self) -> ConversationSync:
        """Return the connection to Convo."""
        return self._sync or default_sync()

    async def push(self, session_id: str | None, sub_domain: str, graph_state: Any) -> Receipt:
        """Set the conversation's state from the graph's and return the receipt. Never raises."""
        try:
            said = self.to_api(graph_state)
        except Exception as error:  # a graph's state may be of any kind
            log.exception("graph state not understood")
            return Receipt(accepted=False, error=error)
        return await self.sync.sync(session_id, sub_domain, **said)

    async def pull(self, session_id: str | None, sub_domain: str) -> dict[str, Any]:
        """Return the conversation's state as a graph's; {} if there is none, or no answer."""
        state = await self.sync.get(session_id, sub_domain)
        return self.to_graph(state) if state else {}

    def to_api(self, graph_state: Any) -> dict[str, Any]:
        """Return `intent`, `step` and `context` of a graph's state (a dict, or an object with attributes)."""
        context: dict[str, Any] = {}
        for ours, theirs in self.mapping.items():
            value = _look(graph_state, ours)
            if value is not None:
                _put(context, theirs, plain(value))
        payment = context.get("paymentMethod")
        if payment is not None:
            word = str(payment).lower()
            context["paymentMethodOriginal"] = word
            context["paymentMethod"] = word if word in PAYMENT_METHODS else None
        address = context.get("deliveryAddress")
        if isinstance(address, dict) and "latitude" in address and "longitude" in address:
            address["notes"] = f"{address['latitude']}, {address['longitude']}"
        said = last_human_message(graph_state)
        if said is not None:
            context["lastUserMessage"] = said
        return {"intent": self.intent_of(graph_state), "step": self.step_of(graph_state), "context": context}

    def to_graph(self, state: ConversationState) -> dict[str, Any]:
        """Return the graph's state: what the mapping names, `messages`, `last_user_message` and `current_order_id`."""
        graph: dict[str, Any] = {}
        for ours, theirs in self.mapping.items():
            value = _look(state.context, theirs)
            if value is not None:
                _put(graph, ours, value)
        if original := state.context.get("paymentMethodOriginal"):
            graph["payment_method"] = original
        self._locate(graph, state)
        self._place(graph, state)
        if state.current_order_id:
            graph["current_order_id"] = state.current_order_id
        graph["messages"] = [{"role": each.get("role"), "content": each.get("content")} for each in state.messages]
        graph["last_user_message"] = state.context.get("lastUserMessage")
        return graph

    def _locate(self, graph: dict[str, Any], state: ConversationState) -> None:
        """Set the coordinates from the address's notes if they are only there: some servers keep no more."""
        notes = _look(state.context, "deliveryAddress.notes")
        match = _COORDINATES.match(notes) if isinstance(notes, str) else None
        if match and _look(graph, "user_location.latitude") is None:
            _put(graph, "user_location.latitude", float(match[1]))
            _put(graph, "user_location.longitude", float(match[2]))

    def _place(self, graph: dict[str, Any], state: ConversationState) -> None:
        """Set the graph's place such that it gives the same intent and step again, also for another agent's state."""
        if self.step_of(graph) != state.current_step:
            graph.pop("current_step", None)
            graph.pop("order_stage", None)
            graph["order_stage" if state.current_step in STAGES else "current_step"] = state.current_step
        if self.intent_of(graph) != state.current_intent:
            graph.pop("current_intent", None)
        if self.intent_of(graph) != state.current_intent:
            graph["current_intent"] = state.current_intent

    def intent_of(self, graph_state: Any) -> str:
        """Return the graph's intent: the current intent, or else by the order's stage, the workflow, or the cart."""
        said = str(_look(graph_state, "current_intent") or "").lower()
        if said in INTENTS:
            return said
        stage = STAGES.get(str(_look(graph_state, "order_stage") or "").lower())
        workflow = WORKFLOWS.get(str(_look(graph_state, "workflow") or "").lower())
        return stage or workflow or ("order" if _look(graph_state, "cart.items") else "idle")

    def step_of(self, graph_state: Any) -> str:
        """Return the graph's step: the order's stage, or else the current step."""
        return str(_look(graph_state, "order_stage") or _look(graph_state, "current_step") or FIRST_STEP)


# --- messages ---------------------------------------------------------------------------------------------------------
def last_human_message(graph_state: Any) -> str | None:
    """Return the text of the person's newest message in the graph's `messages`; None if there is none."""
    messages = _look(graph_state, "messages") or []
    return next((text_of(each) for each in reversed(list(messages)) if kind_of(each) in HUMAN), None)


def kind_of(message: Any) -> str:
    """Return the message's author, as LangChain (`human`, `ai`) or chat APIs (`user`, `assistant`) name it."""
    if isinstance(message, tuple | list) and len(message) == 2:
        return str(message[0])
    return str(_look(message, "type") or _look(message, "role") or "")


def text_of(message: Any) -> str:
    """Return the message's text; of a message of several parts, the texts among them."""
    if isinstance(message, str):
        return message
    content = message[1] if isinstance(message, tuple | list) else _look(message, "content")
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else str(_look(part, "text") or "") for part in content)
    return "" if content is None else str(content)


def id_of(message: Any) -> str | None:
    """Return the message's id; None if it has none."""
    found = None if isinstance(message, tuple | list | str) else _look(message, "id")
    return str(found) if found else None


# --- any kind of object -----------------------------------------------------------------------------------------------
def _look(holder: Any, path: str) -> Any:
    """Return the value at the path, in dicts and objects alike; None if there is none."""
    for name in path.split("."):
        holder = holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
        if holder is None:
            return None
    return holder


def _put(holder: dict[str, Any], path: str, value: Any) -> None:
    *way, last = path.split(".")
    for name in way:
        holder = holder.setdefault(name, {})
    holder[last] = value


def plain(value: Any) -> Any:
    """Return the value as JSON types: objects as dicts of their fields, sets as lists, NaN as None."""
    if isinstance(value, Enum):
        return plain(value.value)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, bytes):
        return [plain(each) for each in value]
    return _plain_object(value)


def _plain_object(value: Any) -> Any:
    dump: Callable[[], Any] | None = getattr(value, "model_dump", None)  # pydantic
    if dump is not None:
        return plain(dump())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain(dataclasses.asdict(value))
    return str(value)
