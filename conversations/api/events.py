"""The feed of events, as pages and as a stream of server-sent events."""

from __future__ import annotations

import re
from typing import Any

from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers, viewsets
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.fields import read
from conversations.http.auth import key_of
from conversations.http.streams import EVENT_STREAM, RETRY_SECONDS, EventStream, event, stream_limit
from conversations.models import ApiKey, Event, EventKind, Scope
from conversations.services.core.errors import TooManyError
from conversations.services.events.feed import EventReader, page
from conversations.services.events.feed import feed as event_feed

LAST_POSITION = 2**53 - 1
LAST_EVENT = OpenApiParameter(
    "Last-Event-ID",
    {"type": "string", "pattern": "^[0-9]{1,15}$"},
    OpenApiParameter.HEADER,
    description="Of a stream: the `id` of the last event that was read. The stream goes on after it, whatever `after`"
    " says.",
)


_ONE = "|".join(re.escape(kind) for kind in EventKind.values)


@extend_schema_field({"type": "string", "maxLength": 1000, "pattern": f"^(({_ONE})(,({_ONE}))*)?$"})
class _Types(serializers.CharField):
    """Types of events, separated by commas."""


class EventsAskedSerializer(serializers.Serializer[Any]):
    """Which events to return."""

    after = serializers.IntegerField(
        default=0,
        min_value=0,
        max_value=LAST_POSITION,
        help_text="A position. The events after it are returned; 0 for all that are kept.",
    )
    limit = serializers.IntegerField(default=100, min_value=1, max_value=500)
    types = _Types(required=False, max_length=1000, help_text="Types of events, separated by commas. Default: all.")

    def validate_types(self, value: str) -> list[str]:
        """Return the types as a list. Refuse unknown ones."""
        wanted = [each.strip() for each in value.split(",") if each.strip()]
        if not set(wanted) <= set(EventKind.values):
            raise serializers.ValidationError(f"Use {', '.join(EventKind.values)}.")
        return wanted


class EventSerializer(serializers.Serializer[Any]):
    """An event."""

    id = serializers.CharField(help_text="The same each time that the event is posted or read.")
    type = serializers.ChoiceField(EventKind.values)
    timestamp = serializers.DateTimeField(help_text="When it happened.")
    client_id = serializers.UUIDField()
    position = serializers.IntegerField(help_text="Counts up by one for each event of the client.")
    data = serializers.DictField(  # type: ignore[assignment]
        help_text="What happened. `deleted` is true if what the event told of was deleted since."
    )


class EventsSerializer(serializers.Serializer[Any]):
    """Some events, in the order of their positions."""

    items = EventSerializer(many=True)
    next = serializers.CharField(allow_null=True, help_text="The `after` of the next page; null if there is none yet.")
    position = serializers.IntegerField(help_text="The position to give as `after` the next time.")


class EventViewSet(viewsets.GenericViewSet[Event]):
    """Events of the key's client."""

    serializer_class = EventsSerializer
    http_method_names = ["get", "head"]
    schema_group = "events"
    queryset = Event.objects.none()
    scopes = {"feed": Scope.CONVERSATIONS_READ}

    @extend_schema(parameters=[EventsAskedSerializer, LAST_EVENT], responses=EventsSerializer)
    def feed(self, request: Request) -> HttpResponseBase:
        """List events after a position, oldest first. A position is given after the commit of what the event tells, so
        a reader that goes on from `position` misses nothing. With `Accept: text/event-stream` the answer is a stream of
        server-sent events, each with its position as `id`; open it again with `Last-Event-ID` and nothing is missed."""
        key, wanted = key_of(request), read(EventsAskedSerializer, request.query_params.dict())
        if EVENT_STREAM in request.headers.get("Accept", ""):
            after = _position(request.headers.get("Last-Event-ID", "").strip(), wanted["after"])
            return _stream(key, after, wanted.get("types", []))
        private = key.allows(Scope.PRIVATE_READ)
        found = page(key.client_id, wanted["after"], wanted["limit"], kinds=wanted.get("types", []), private=private)
        following = str(found.position) if found.has_more else None
        return Response({"items": found.items, "next": following, "position": found.position})


def _position(said: str, otherwise: int) -> int:
    if not said:
        return otherwise
    if not (said.isascii() and said.isdigit() and int(said[:20]) <= LAST_POSITION):
        raise ValidationError({"Last-Event-ID": ["Must be the id of an event of this stream."]})
    return int(said)


def _stream(key: ApiKey, after: int, kinds: list[str]) -> EventStream:
    counted = -key.pk  # apart from the users of the copilot, whose ids are positive
    if not stream_limit.enter(counted):
        raise TooManyError("This server has no more streams.", code="too_many_streams", retry_after=RETRY_SECONDS)
    try:
        reader = event_feed.read(EventReader(key.client_id, after, kinds, key.allows(Scope.PRIVATE_READ)))
    except BaseException:
        stream_limit.leave(counted)
        raise

    def closed() -> None:
        event_feed.leave(reader)
        stream_limit.leave(counted)

    return EventStream(_Events(reader), closed)


class _Events:
    """The events of a client as they come. They never end by themselves."""

    is_over = False

    def __init__(self, reader: EventReader) -> None:
        self._reader = reader
        self.call_when_ready = reader.call_when_ready

    def first(self) -> bytes:
        """Return the time after which a reader that lost the stream comes back."""
        return f"retry: {RETRY_SECONDS * 1000}\n\n".encode()

    def next(self) -> bytes | None:
        """Return the next event, or None if there is none yet."""
        found = self._reader.take()
        return event(found["type"], found, str(found["position"])) if found else None
