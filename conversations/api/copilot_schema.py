"""What the OpenAPI says of the copilot: its answers in fields, and its streams in words."""

from __future__ import annotations

from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, PolymorphicProxySerializer
from rest_framework import serializers

from conversations.http.streams import EVENT_STREAM
from conversations.models import Feedback, Status

EVENTS = """Server-sent events, each with `event:` and `data:`, JSON in one line; comments in between keep it alive.

- `session`, at once: `session_id`, `turn_id` (null where a colleague will answer), `message_id`, `title`
- `delta`: `text`, and `start`, the number of characters before it; 0 begins the reply, anew if there was something. Its
  `id` is what `Last-Event-ID` takes
- `done`: `message` as in the list of messages (null where nothing was said), `chunk_id`, `finish_reason` (`stop`,
  `length`, `stopped`, `taken_over`), `usage` (`tokens_in`, `tokens_out`)
- `error`: `error`, a sentence for people, `code`, `retryable`, and `message`, what was said before, if anything

One that ends without `done` or `error` is to be opened again with `GET /copilot/stream/{turn_id}`."""
STREAM = {(200, EVENT_STREAM): OpenApiResponse(OpenApiTypes.STR, description=EVENTS)}
LAST_EVENT = OpenApiParameter(
    "Last-Event-ID", OpenApiTypes.STR, OpenApiParameter.HEADER, description="The id of the last event that was read."
)


class RoleShownSerializer(serializers.Serializer[Any]):
    """An assistant that one may talk to."""

    role = serializers.CharField()
    name = serializers.CharField()
    client = serializers.CharField(help_text="A sub-domain.")
    client_name = serializers.CharField()


class SessionShownSerializer(serializers.Serializer[Any]):
    """A session of one's own."""

    id = serializers.UUIDField()
    title = serializers.CharField(allow_blank=True)
    role = serializers.CharField(allow_blank=True)
    role_name = serializers.CharField(allow_blank=True)
    client = serializers.CharField()
    status = serializers.ChoiceField(choices=[str(status) for status in Status])
    taken_over = serializers.BooleanField(help_text="Whether a colleague has it: the assistant is silent.")
    turn_id = serializers.UUIDField(allow_null=True, help_text="The reply that is being written.")
    started_at = serializers.DateTimeField()
    last_message_at = serializers.DateTimeField()


class FeedbackShownSerializer(serializers.Serializer[Any]):
    """What one thought of a reply."""

    rating = serializers.ChoiceField(choices=Feedback.Rating.choices)
    note = serializers.CharField(allow_blank=True)


class MessageShownSerializer(serializers.Serializer[Any]):
    """Something that was said."""

    id = serializers.IntegerField()
    position = serializers.IntegerField()
    role = serializers.ChoiceField(choices=["user", "ai"])
    by_colleague = serializers.BooleanField()
    content = serializers.CharField(allow_blank=True)
    html = serializers.CharField(allow_null=True, help_text="A reply's Markdown as harmless HTML.")
    partial = serializers.BooleanField()  # type: ignore[assignment]
    state = serializers.CharField(help_text="`whole`, or why it is partial.")
    superseded = serializers.BooleanField(help_text="Whether another try took its place.")
    feedback = FeedbackShownSerializer(allow_null=True)
    created_at = serializers.DateTimeField()


class SessionsSerializer(serializers.Serializer[Any]):
    """The newest sessions."""

    items = SessionShownSerializer(many=True)
    next = serializers.CharField(allow_null=True)


class MessagesSerializer(serializers.Serializer[Any]):
    """What was said in a session, oldest first. `next` is the cursor of what follows; `before` the first position where
    there are earlier ones."""

    session = SessionShownSerializer()
    items = MessageShownSerializer(many=True)
    next = serializers.CharField(allow_null=True)
    before = serializers.IntegerField(allow_null=True)


class DeletedSerializer(serializers.Serializer[Any]):
    """The session that is no more."""

    id = serializers.UUIDField()
    deleted = serializers.BooleanField()


class StoppingSerializer(serializers.Serializer[Any]):
    """Whether a reply was being written."""

    stopping = serializers.BooleanField()


class RatedSerializer(serializers.Serializer[Any]):
    """The feedback as it is now."""

    id = serializers.IntegerField()
    rating = serializers.ChoiceField(choices=Feedback.Rating.choices, allow_null=True)
    note = serializers.CharField(allow_blank=True)


LIST = PolymorphicProxySerializer("CopilotList", [SessionsSerializer, MessagesSerializer], None)
