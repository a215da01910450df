"""A shop whose assistant is an agent at Retell."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from conversations.models import Assistant, Client, Conversation
from tests.fakes.retell import FakeRetell


def answers_by_retell(shop: Client, settings: Any, fake: FakeRetell) -> None:
    """The shop's assistant is an agent of the fake's."""
    settings.RETELL_BASE_URL, settings.RETELL_API_KEYS = fake.url, [fake.key]
    settings.RETELL_TIMEOUT_SECONDS = 5
    Assistant.objects.filter(client=shop).update(engine="retell", retell_agent_id="agent_collections")


def due_now() -> None:
    """What is to be tried again is tried now."""
    Conversation.objects.filter(reply_owed=True).update(reply_due_at=timezone.now())
