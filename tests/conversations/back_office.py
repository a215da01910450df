"""Sign in to the admin, open the page of a conversation, post its forms."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth import get_user_model
from django.test import Client as HttpClient
from django.urls import reverse

from conversations.models import Client, Conversation, Membership


def sign_in(name: str, client: Client | None = None, role: str = "") -> HttpClient:
    """Return a client that is signed in as a member of the client's staff, or as a superuser if no client is given."""
    users = get_user_model().objects
    if client is None:
        user = users.create_superuser(name, "", "a-long-password")
    else:
        user = users.create_user(name, password="a-long-password", is_staff=True)
        Membership.objects.create(user=user, client=client, role=role)
    http = HttpClient(raise_request_exception=False)
    http.force_login(user)
    return http


def page_of(conversation: Conversation) -> str:
    return reverse("admin:conversations_conversation_change", args=[conversation.pk])


def do(http: HttpClient, conversation: Conversation, action: str, **fields: Any) -> tuple[int, Any]:
    """Post a form of the page and return the status and the JSON of the answer."""
    answer = http.post(reverse("admin:conversations_conversation_do", args=[conversation.pk, action]), fields)
    return answer.status_code, json.loads(answer.content)


def news(http: HttpClient, conversation: Conversation, after: int = 0, seen: str = "") -> Any:
    path = reverse("admin:conversations_conversation_news", args=[conversation.pk])
    return http.get(path, {"after": after, "seen": seen})
