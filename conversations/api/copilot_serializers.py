"""Bodies and answers of the copilot's routes."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from conversations.api.fields import Choice, Text
from conversations.api.rating_serializers import rating_shown
from conversations.http import markdown
from conversations.models import Assistant, Chunk, Conversation, Feedback, Role
from conversations.services.replies.prompt_context import ENDED, SUPERSEDED
from conversations.services.transitions.ratings import QUESTION, WHY, ShownRating

DEFAULT_SESSIONS = 5
DEFAULT_MESSAGES = 50


class QuestionSerializer(serializers.Serializer[Any]):
    """A user's message."""

    message = Text(max_length=500_000, trim_whitespace=False)
    session_id = serializers.UUIDField(required=False, allow_null=True, default=None)
    role = Text(max_length=63, required=False, allow_blank=True, default="")
    client = Text(max_length=63, required=False, allow_blank=True, default="")
    message_id = Text(max_length=200, required=False, allow_blank=True, default="")


class NewSessionSerializer(serializers.Serializer[Any]):
    """A new session with an assistant."""

    role = Text(max_length=63, required=False, allow_blank=True, default="")
    client = Text(max_length=63, required=False, allow_blank=True, default="")


class TitleSerializer(serializers.Serializer[Any]):
    """A session's title."""

    title = Text(max_length=200)


class FeedbackSerializer(serializers.Serializer[Any]):
    """A rating with a note; null removes both."""

    rating = Choice(choices=Feedback.Rating.choices, allow_null=True)
    note = Text(max_length=2_000, required=False, allow_blank=True, default="")


class ReadSerializer(serializers.Serializer[Any]):
    """The query of `GET /copilot`."""

    session_id = serializers.UUIDField(required=False)
    limit = serializers.IntegerField(required=False, min_value=1, max_value=200)
    cursor = serializers.IntegerField(required=False, min_value=0, max_value=2**31 - 1)
    last = serializers.IntegerField(required=False, min_value=1, max_value=200)
    before = serializers.IntegerField(required=False, min_value=1, max_value=2**31 - 1)


def role_shown(assistant: Assistant) -> dict[str, Any]:
    """Return an assistant that the user may talk to."""
    client = assistant.client
    return {"role": assistant.key, "name": assistant.name, "client": client.sub_domain, "client_name": client.name}


def session_shown(session: Conversation, rating: ShownRating | None = None) -> dict[str, Any]:
    """Return a session; `turn_id` is the reply that is being written. rating: of an ended session that is read."""
    assistant = session.assistant
    running = getattr(session, "running_turn", None)
    return {
        "id": str(session.pk),
        "title": session.topic,
        "role": assistant.key if assistant else "",
        "role_name": assistant.name if assistant else "",
        "client": session.client.sub_domain,
        "status": session.status,
        "taken_over": session.taken_over_at is not None,
        "rating": rating_shown(rating) if rating else None,
        "turn_id": str(running) if running else None,
        "started_at": session.started_at,
        "last_message_at": session.last_message_at,
    }


def message_shown(chunk: Chunk) -> dict[str, Any]:
    """Return a message.

    `state` is `whole`; for a partial reply it is `stopped` or the code of the error, and `partial` is true. `html` is
    the reply's Markdown as sanitised HTML.
    """
    text: str = getattr(chunk, "words", chunk.content)
    feedback = getattr(chunk, "feedback", None)
    return {
        "id": chunk.pk,
        "position": chunk.position,
        "role": "ai" if chunk.role == Role.AI else "user",
        "by_colleague": chunk.author_id is not None,
        "content": text,
        "html": markdown.render(text) if chunk.role == Role.AI else None,
        "partial": ENDED in chunk.metadata,
        "state": chunk.metadata.get(ENDED, "whole"),
        "asks_rating": QUESTION in chunk.metadata or WHY in chunk.metadata,
        "superseded": SUPERSEDED in chunk.metadata,
        "feedback": {"rating": feedback.rating, "note": feedback.note} if feedback else None,
        "created_at": chunk.created_at,
    }
