"""A shop whose assistant is an agent of its own."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from conversations.models import Assistant, Client, Conversation, Turn
from conversations.services.replies import late_replies
from tests.conftest import Door
from tests.fakes.agent import FakeAgent


def answers_by_agent(shop: Client, settings: Any, agent: FakeAgent) -> None:
    """Make the fake agent the shop's assistant."""
    settings.ORB_PRIVATE_NETWORKS = ["127.0.0.0/8"]
    assistant = Assistant.objects.get(client=shop, is_default=True)
    assistant.engine, assistant.agent_url = "agent", agent.url
    assistant.agent_secrets = {"current": agent.secret}
    assistant.agent_timeout_seconds = 5
    assistant.save()


def call_back(door: Door, request: Any, *messages: str, **more: Any) -> tuple[int, Any]:
    """Call back with the reply to a request, and return the status and the envelope."""
    body = {"turn_token": request["turn_token"], "messages": list(messages), **more}
    return door.call("POST", f"/conversations/{request['conversation_id']}/replies", body)


def due_now() -> None:
    """Let all replies that are owed be due now."""
    Conversation.objects.filter(reply_owed=True).update(reply_due_at=timezone.now())


def deadlines_pass() -> None:
    """Let the deadlines of all agents pass, and look as a dispatcher does."""
    Turn.objects.exclude(waiting_until=None).update(waiting_until=timezone.now(), lease_until=timezone.now())
    late_replies.end_waiting(timezone.now())
