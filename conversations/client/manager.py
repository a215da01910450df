"""A graph's state and a conversation's: what stands for what, both ways."""

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

# What of a graph's state is what of the context; dots lead deeper. Give a manager more of them in `mapping`.
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
    # The graph's own words for where it is, from which intent and step are made.
    "order_stage": "graph.orderStage",
    "workflow": "graph.workflow",
    "current_step": "graph.currentStep",
    "current_intent": "graph.currentIntent",
}
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
    """Carries a graph's state to Convo and back.

    Arguments:
        mapping: more pairs of graph key and context key (dots lead deeper), or other ones than in MAPPING; a graph key
            with the value "" is left out.
        sync: how to speak to Convo (the default is what the environment says).
    """

    def __init__(self, mapping: Mapping[str, str] | None = None, sync: ConversationSync | None = None) -> None:
        self.mapping = {ours: theirs for ours, theirs in {**MAPPING, **(mapping or {})}.items() if theirs}
        self._sync = sync

    @property
    def sync(self) -> ConversationSync:
        """How to speak to Convo."""
        return self._sync or default_sync()

    async def push(self, session_id: str | None, sub_domain: str, graph_state: Any) -> Receipt:
        """The conversation's state is what the graph's says. Never raises."""
        try:
            said = self.to_api(graph_state)
        except Exception as error:  # a graph's state may be of any kind
            log.exception("graph state not understood")
            return Receipt(accepted=False, error=error)
        return await self.sync.sync(session_id, sub_domain, **said)

    async def pull(self, session_id: str | None, sub_domain: str) -> dict[str, Any]:
        """The conversation's state as a graph's; {} where there is none, or no answer."""
        state = await self.sync.get(session_id, sub_domain)
        return self.to_graph(state) if state else {}

    def to_api(self, graph_state: Any) -> dict[str, Any]:
        """`intent`, `step` and `context` of a graph's state (a dict, or an object with attributes)."""
        context: dict[str, Any] = {}
        for ours, theirs in self.mapping.items():
            value = _look(graph_state, ours)
            if value is not None:
                _put(context, theirs, plain(value))
        payment = context.get("paymentMethod")
        if payment is not None:
            context["paymentMethod"] = str(payment).lower()
        address = context.get("deliveryAddress")
        if isinstance(address, dict) and "latitude" in address and "longitude" in address:
            address["notes"] = f"{address['latitude']}, {address['longitude']}"
        said = last_human_message(graph_state)
        if said is not None:
            context["lastUserMessage"] = said
        return {"intent": self.intent_of(graph_state), "step": self.step_of(graph_state), "context": context}

    def to_graph(self, state: ConversationState) -> dict[str, Any]:
        """What the mapping names, as a graph's state; and `messages`, `last_user_message` and `current_order_id`."""
        graph: dict[str, Any] = {}
        for ours, theirs in self.mapping.items():
            value = _look(state.context, theirs)
            if value is not None:
                _put(graph, ours, value)
        self._locate(graph, state)
        self._place(graph, state)
        if state.current_order_id:
            graph["current_order_id"] = state.current_order_id
        graph["messages"] = [{"role": each.get("role"), "content": each.get("content")} for each in state.messages]
        graph["last_user_message"] = state.context.get("lastUserMessage")
        return graph

    def _locate(self, graph: dict[str, Any], state: ConversationState) -> None:
        """The coordinates, where only the notes have them: other servers keep no more of an address."""
        notes = _look(state.context, "deliveryAddress.notes")
        match = _COORDINATES.match(notes) if isinstance(notes, str) else None
        if match and _look(graph, "user_location.latitude") is None:
            _put(graph, "user_location.latitude", float(match[1]))
            _put(graph, "user_location.longitude", float(match[2]))

    def _place(self, graph: dict[str, Any], state: ConversationState) -> None:
        """Where the graph is, in words that give the same intent and step again; of a state of another agent's too."""
        if self.step_of(graph) != state.current_step:
            graph.pop("current_step", None)
            graph.pop("order_stage", None)
            graph["order_stage" if state.current_step in STAGES else "current_step"] = state.current_step
        if self.intent_of(graph) != state.current_intent:
            graph.pop("current_intent", None)
        if self.intent_of(graph) != state.current_intent:
            graph["current_intent"] = state.current_intent

    def intent_of(self, graph_state: Any) -> str:
        """What the person is about: as it is said; else by the order's stage, the workflow, or what is in the cart."""
        said = str(_look(graph_state, "current_intent") or "").lower()
        if said in INTENTS:
            return said
        stage = STAGES.get(str(_look(graph_state, "order_stage") or "").lower())
        workflow = WORKFLOWS.get(str(_look(graph_state, "workflow") or "").lower())
        return stage or workflow or ("order" if _look(graph_state, "cart.items") else "idle")

    def step_of(self, graph_state: Any) -> str:
        """How far they are: the order's stage, else the current step."""
        return str(_look(graph_state, "order_stage") or _look(graph_state, "current_step") or FIRST_STEP)


# --- messages ---------------------------------------------------------------------------------------------------------
def last_human_message(graph_state: Any) -> str | None:
    """The text of the newest message of a person in the graph's `messages`."""
    messages = _look(graph_state, "messages") or []
    return next((text_of(each) for each in reversed(list(messages)) if kind_of(each) in HUMAN), None)


def kind_of(message: Any) -> str:
    """Who wrote it, in the words of LangChain (`human`, `ai`) or chat APIs (`user`, `assistant`)."""
    if isinstance(message, tuple | list) and len(message) == 2:
        return str(message[0])
    return str(_look(message, "type") or _look(message, "role") or "")


def text_of(message: Any) -> str:
    """Its text; of a message of several parts, the texts among them."""
    if isinstance(message, str):
        return message
    content = message[1] if isinstance(message, tuple | list) else _look(message, "content")
    if isinstance(content, list):
        return "".join(part if isinstance(part, str) else str(_look(part, "text") or "") for part in content)
    return "" if content is None else str(content)


def id_of(message: Any) -> str | None:
    """Its own id, where it has one."""
    found = None if isinstance(message, tuple | list | str) else _look(message, "id")
    return str(found) if found else None


# --- any kind of object -----------------------------------------------------------------------------------------------
def _look(holder: Any, path: str) -> Any:
    """What is at the end of the path, in dicts and objects alike; None where it leads nowhere."""
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
    """The value as JSON has it: objects as what they hold, sets as lists, no NaN."""
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
