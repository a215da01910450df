"""A turn that begins tool calls: what the tests of a call's row share."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from django.utils import timezone

from conversations.models import Client, Conversation, ConversationEvent, Tool, ToolCall
from conversations.services.core.ledger import Actor
from conversations.services.replies import leases, tool_calls
from conversations.services.replies.tool_calls import CallToMake
from conversations.services.tenants import tools
from tests import factories

HOUR = timedelta(hours=1)
GRACE = Actor("staff", "grace")
ORDER = {"order": "order-1", "amount": 5}
CARD = "4111 1111 1111 1111"


@pytest.fixture
def conversation(door: Any) -> Conversation:
    """An open conversation whose message is to be answered."""
    door.says("Charge me")
    return Conversation.objects.get()


@pytest.fixture
def tool(shop: Client) -> Tool:
    """The shop's tool that charges a card."""
    return tools.create_tool(shop, "charge_card", url="https://shop.example/charge", timeout_seconds=2)[0]


@pytest.fixture
def turn(conversation: Conversation) -> leases.OwedTurn:
    """The turn that writes the reply."""
    [claimed] = leases.claim(timezone.now(), 10)
    return claimed


def call_of(conversation: Conversation, tool: Tool | None = None, status: str = "answered", **more: Any) -> ToolCall:
    values = {"name": "charge_card", "key": uuid4().hex, "arguments": ORDER, **more}
    return ToolCall.objects.create(
        client_id=conversation.client_id, conversation=conversation, tool=tool, status=status, **values
    )


def someone_else(shop: Client) -> Conversation:
    """Another conversation of the shop's."""
    return factories.ConversationFactory(client=shop)


def begun(turn: Any, tool: Tool, arguments: dict[str, Any] = ORDER, *seconds: float) -> CallToMake:
    made = tool_calls.begin(turn, tool.pk, arguments, *seconds)
    assert isinstance(made, CallToMake)
    return made


def events(conversation: Conversation) -> list[str]:
    """The kinds of what the ledger says of tools."""
    found = ConversationEvent.objects.filter(conversation=conversation, kind__startswith="tool_")
    return list(found.order_by("pk").values_list("kind", flat=True))
