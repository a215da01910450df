"""A firm whose members use the copilot, what they have there, and every route that names something of theirs."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from django.test import Client as HttpClient
from django.utils import timezone
from psycopg import sql

from conversations.engines.contract import Reply
from conversations.models import Membership
from conversations.services.copilot import turns
from conversations.services.copilot.sessions import User
from conversations.services.copilot.turns import UserMessage
from conversations.services.replies.leases import claim_streamed
from conversations.services.replies.pipeline import commit

NEVER = "5f0c7a52-0000-4000-8000-000000000000"


def as_user(who: Any) -> User:
    return User(who.pk, who.username)


def act_as(raw: psycopg.Connection[Any], *who: Any) -> None:
    """Until its end the transaction of the copilot's role is these users'.

    Only SET LOCAL reaches the servers of a cluster.
    """
    raw.execute("SET LOCAL citus.propagate_set_commands = 'local'")
    clients = Membership.objects.filter(user__in=who, client__is_active=True).values_list("client", flat=True)
    for name, ids in (("logins", [each.pk for each in who]), ("clients", clients)):
        raw.execute(sql.SQL("SET LOCAL {} = {}").format(sql.SQL(f"convo.{name}"), ",".join(map(str, ids))))


def answered(who: Any, message: str = "Hello", **more: Any) -> turns.RequestedReply:
    """A session of theirs with a whole reply."""
    asked = turns.ask(as_user(who), UserMessage(message, **more), timezone.now())
    [mine] = claim_streamed(timezone.now(), 10)
    commit(mine, Reply(text=f"Reply to {message}", engine="offline"), timezone.now())
    return asked


def http_of(who: Any, **options: Any) -> HttpClient:
    http = HttpClient(raise_request_exception=False, **options)
    http.force_login(who)
    return http


def calls(session_id: Any, turn_id: Any, chunk_id: Any) -> list[tuple[str, str, Any]]:
    """Every route that names something, with a body that it takes."""
    return [
        ("GET", f"/copilot?session_id={session_id}", None),
        ("GET", f"/copilot?session_id={session_id}&last=10", None),
        ("POST", "/copilot", {"message": "Hello", "session_id": str(session_id)}),
        ("PATCH", f"/copilot/sessions/{session_id}", {"title": "Mine"}),
        ("DELETE", f"/copilot/sessions/{session_id}", None),
        ("POST", f"/copilot/sessions/{session_id}/stop", None),
        ("POST", f"/copilot/sessions/{session_id}/retry", None),
        ("PUT", f"/copilot/sessions/{session_id}/rating", {"score": 5}),
        ("PUT", f"/copilot/messages/{chunk_id}/feedback", {"rating": "up"}),
        ("GET", f"/copilot/stream/{turn_id}", None),
    ]


def as_json(body: Any) -> str:
    return json.dumps(body) if body is not None else ""
