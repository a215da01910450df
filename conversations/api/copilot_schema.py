"""The OpenAPI description of the copilot's answers and streams."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, PolymorphicProxySerializer
from rest_framework import serializers

from conversations.api.rating_serializers import ShownRatingSerializer
from conversations.http.streams import EVENT_STREAM
from conversations.models import Feedback, Status

EVENTS = """Server-sent events. Each has `event:` and `data:` (JSON in one line); comments keep the connection alive.

- `session` comes at once: `session_id`, `turn_id` (null if a colleague will answer), `message_id`, `title`
- `delta`: `text`, and `start`, the number of characters before it. A `start` of 0 begins the reply, or begins it again.
  The event's `id` is the value for `Last-Event-ID`
- `done`: `message` as in the list of messages (null if there is no text), `chunk_id`, `finish_reason` (`stop`,
  `length`, `stopped`, `taken_over`), `usage` (`tokens_in`, `tokens_out`)
- `error`: `error` (a sentence for people), `code`, `retryable`, and `message` (the text before the error, or null)

If a stream ends without `done` or `error`, open it again with `GET /copilot/stream/{turn_id}`."""
STREAM = {(200, EVENT_STREAM): OpenApiResponse(OpenApiTypes.STR, description=EVENTS)}
LAST_EVENT = OpenApiParameter(
    "Last-Event-ID",
    OpenApiTypes.STR,
    OpenApiParameter.HEADER,
    description="The id of the last event that the client read.",
)


class RoleShownSerializer(serializers.Serializer[Any]):
    """An assistant that the user may talk to."""

    role = serializers.CharField()
    name = serializers.CharField()
    client = serializers.CharField(help_text="The client's sub-domain.")
    client_name = serializers.CharField()


class SessionShownSerializer(serializers.Serializer[Any]):
    """A session of the signed-in user."""

    id = serializers.UUIDField()
    title = serializers.CharField(allow_blank=True)
    role = serializers.CharField(allow_blank=True)
    role_name = serializers.CharField(allow_blank=True)
    client = serializers.CharField()
    status = serializers.ChoiceField(choices=[str(status) for status in Status])
    taken_over = serializers.BooleanField(
        help_text="True while a colleague has taken the conversation over and the assistant is silent."
    )
    rating = ShownRatingSerializer(
        allow_null=True,
        help_text="The question about satisfaction of an ended session, where it was asked and the session is read.",
    )
    turn_id = serializers.UUIDField(allow_null=True, help_text="The reply that is being written, or null.")
    started_at = serializers.DateTimeField()
    last_message_at = serializers.DateTimeField()


class FeedbackShownSerializer(serializers.Serializer[Any]):
    """A user's feedback on a reply."""

    rating = serializers.ChoiceField(choices=Feedback.Rating.choices)
    note = serializers.CharField(allow_blank=True)


class MessageShownSerializer(serializers.Serializer[Any]):
    """A message of a session."""

    id = serializers.IntegerField()
    position = serializers.IntegerField()
    role = serializers.ChoiceField(choices=["user", "ai"])
    by_colleague = serializers.BooleanField()
    content = serializers.CharField(allow_blank=True)
    html = serializers.CharField(allow_null=True, help_text="A reply's Markdown as sanitised HTML.")
    partial = serializers.BooleanField()  # type: ignore[assignment]
    state = serializers.CharField(help_text="`whole`, or the reason why the reply is partial.")
    asks_rating = serializers.BooleanField(help_text="True if it asks about satisfaction, or why a rating is low.")
    superseded = serializers.BooleanField(help_text="True if another attempt replaced this reply.")
    feedback = FeedbackShownSerializer(allow_null=True)
    created_at = serializers.DateTimeField()


class SessionsSerializer(serializers.Serializer[Any]):
    """The user's newest sessions."""

    items = SessionShownSerializer(many=True)
    next = serializers.CharField(allow_null=True)


class MessagesSerializer(serializers.Serializer[Any]):
    """A session's messages, oldest first. `next` is the cursor of the following page; `before` is the first position of
    this page if there are earlier messages, else null."""

    session = SessionShownSerializer()
    items = MessageShownSerializer(many=True)
    next = serializers.CharField(allow_null=True)
    before = serializers.IntegerField(allow_null=True)


class DeletedSerializer(serializers.Serializer[Any]):
    """The deleted session."""

    id = serializers.UUIDField()
    deleted = serializers.BooleanField()


class StoppingSerializer(serializers.Serializer[Any]):
    """`stopping` is true if a reply was being written."""

    stopping = serializers.BooleanField()


class RatedSerializer(serializers.Serializer[Any]):
    """The feedback after the change."""

    id = serializers.IntegerField()
    rating = serializers.ChoiceField(choices=Feedback.Rating.choices, allow_null=True)
    note = serializers.CharField(allow_blank=True)


LIST = PolymorphicProxySerializer("CopilotList", [SessionsSerializer, MessagesSerializer], None)
