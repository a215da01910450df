"""A shop whose assistant may call tools: what the tests of tools share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.utils import timezone

from conversations.engines.registry import ask
from conversations.models import Assistant, Tool
from conversations.services.core.ledger import Actor
from conversations.services.replies import leases, pipeline
from conversations.services.tenants import tools
from tests.fakes.openai import FakeOpenAI
from tests.fakes.paid_tool import SCHEMA, PaidTool

STAFF = Actor("staff", "grace")
CHARGE = ("charge_card", {"order": "order-1", "amount": 5})


@pytest.fixture
def model(shop: Any, settings: Any) -> Iterator[FakeOpenAI]:
    """A model that writes the shop's replies."""
    Assistant.objects.filter(client=shop).update(engine="openai", model="tiny")
    with FakeOpenAI() as fake:
        settings.OPENAI_BASE_URL = fake.base_url
        yield fake


@pytest.fixture
def server(settings: Any) -> Iterator[PaidTool]:
    """The server of the shop's tool, on this machine."""
    settings.TOOL_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    with PaidTool() as fake:
        yield fake


@pytest.fixture
def tool(shop: Any, server: PaidTool) -> Tool:
    """The shop's tool that charges a card."""
    made, server.secret = tools.create_tool(
        shop, "charge_card", url=server.url, description="Charge the card.", parameters=SCHEMA, timeout_seconds=2
    )
    return made


def change(tool: Tool, **fields: Any) -> None:
    Tool.objects.filter(pk=tool.pk).update(**fields)


def draft() -> tuple[Any, Any]:
    """The claim of the reply that is due, and what the engine writes."""
    [claim] = leases.claim(timezone.now(), 10)
    request, engine = pipeline.prepare(claim)
    return claim, ask(engine, request)


def answers(model: FakeOpenAI, request: int = -1) -> list[str]:
    """The answers that the model was given to its calls."""
    return [each["content"] for each in model.requests[request].body["messages"] if each["role"] == "tool"]


def background(model: FakeOpenAI, request: int = -1) -> str:
    """The part of a draft's prompt about the calls before it."""
    told = [message["content"] or "" for message in model.requests[request].body["messages"]]
    found = [each for each in told if "[Tools that were called" in each]
    assert len(found) <= 1
    return found[0] if found else ""
