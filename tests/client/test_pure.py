"""What of the client needs no server: settings, mapping, and that it stands alone."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conversations.client import ConfigurationError, ConversationStateManager, Settings

HERE = Path(__file__).resolve().parents[2]


def test_it_imports_nothing_but_httpx_and_what_python_has() -> None:
    program = (
        "import sys; sys.modules['django'] = sys.modules['requests'] = sys.modules['orjson'] = None\n"
        "import conversations.client as client, httpx\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))\n"
        "assert not any(name.startswith(('conversations.models', 'channels_out', 'memory')) for name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=HERE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# --- settings ---------------------------------------------------------------------------------------------------------
SEED = {
    "CARTAAI_API_BASE_URL": "https://api.example.com/api/v1",
    "CARTAAI_API_KEY": "k",
    "CONVERSATION_API_TIMEOUT": "5",
}


def test_the_seed_s_names_are_known() -> None:
    settings = Settings.from_env(SEED)
    assert (settings.base_url, settings.api_key, settings.timeout) == ("https://api.example.com/api/v1", "k", 5.0)
    assert settings.enabled


def test_our_own_names_go_before_them() -> None:
    ours = {"CONVO_API_URL": "http://127.0.0.1:8000/", "CONVO_API_KEY": "mine", "CONVO_API_TIMEOUT": "2.5"}
    settings = Settings.from_env({**SEED, **ours, "ENABLE_CONVERSATION_SYNC": "no", "CONVO_OUTBOX_LIMIT": "5"})
    assert (settings.base_url, settings.api_key, settings.timeout) == ("http://127.0.0.1:8000/api/v1", "mine", 2.5)
    assert (settings.enabled, settings.outbox_limit) == (False, 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CARTAAI_API_BASE_URL", "api.example.com"),
        ("CARTAAI_API_KEY", " "),
        ("CONVO_API_TIMEOUT", "soon"),
        ("CONVO_API_TIMEOUT", "0"),
        ("CONVO_API_TIMEOUT", "nan"),
        ("ENABLE_CONVERSATION_SYNC", "perhaps"),
        ("CONVO_OUTBOX_LIMIT", "0"),
    ],
)
def test_nonsense_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=name.replace("CARTAAI", "CONVO")[:9]):
        Settings.from_env({**SEED, name: value})


# --- intent and step --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("graph", "intent", "step"),
    [
        ({}, "idle", "initial"),
        ({"workflow": "menu"}, "menu", "initial"),
        ({"workflow": "order", "current_step": "choosing"}, "order", "choosing"),
        ({"order_stage": "cart", "current_step": "choosing"}, "order", "cart"),
        ({"order_stage": "awaiting_extras", "workflow": "menu"}, "order", "awaiting_extras"),
        ({"order_stage": "checkout"}, "delivery", "checkout"),
        ({"order_stage": "awaiting_location"}, "delivery", "awaiting_location"),
        ({"order_stage": "payment"}, "payment", "payment"),
        ({"order_stage": "awaiting_phone"}, "payment", "awaiting_phone"),
        ({"order_stage": "payment", "current_intent": "support"}, "support", "payment"),
        ({"order_stage": "payment", "current_intent": "nonsense"}, "payment", "payment"),
        ({"order_stage": "unknown", "workflow": "menu"}, "menu", "unknown"),
        ({"cart": {"items": [{"id": "p1"}]}}, "order", "initial"),
        ({"cart": {"items": []}}, "idle", "initial"),
    ],
)
def test_intent_and_step_follow_the_graph(graph: dict[str, Any], intent: str, step: str) -> None:
    said = ConversationStateManager().to_api(graph)
    assert (said["intent"], said["step"]) == (intent, step)


class Payment(Enum):
    CARD = "Card"


@dataclass
class Item:
    id: str
    price: float


def test_a_graph_s_state_may_be_of_objects() -> None:
    state = SimpleNamespace(
        cart=SimpleNamespace(items=[Item("p1", 2.5)], total=float("nan")),
        payment_method=Payment.CARD,
        messages=[("human", "Hi"), SimpleNamespace(type="human", content=[{"type": "text", "text": "Two"}, " parts"])],
    )
    context = ConversationStateManager().to_api(state)["context"]
    assert context["selectedItems"] == [{"id": "p1", "price": 2.5}]
    assert (context["paymentMethod"], context["orderTotal"]) == ("card", None)
    assert context["paymentMethodOriginal"] == "card"
    assert context["lastUserMessage"] == "Two parts"


def test_the_mapping_is_extended_by_a_dictionary() -> None:
    manager = ConversationStateManager(
        {"loyalty.points": "loyaltyPoints", "customer_email": "", "retry_count": "tries"}
    )
    context = manager.to_api({"loyalty": {"points": 7}, "customer_email": "a@b.c", "retry_count": 2})["context"]
    assert context == {"loyaltyPoints": 7, "tries": 2}
