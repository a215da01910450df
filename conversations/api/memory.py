"""The search in global memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.request import Request
from rest_framework.response import Response

from channels_out.kinds import Channel
from conversations.api.fields import Choice, Text, read
from conversations.http.auth import key_of
from conversations.models import Conversation, Scope
from conversations.services.contacts import contacts
from memory import services as memory
from memory.records import Filters, SearchResult

LONGEST_QUERY = 500


class SearchSerializer(serializers.Serializer[Any]):
    """A search: words, "several in a row", -not_this; narrowed by person, channel and time (ISO 8601)."""

    q = Text(max_length=LONGEST_QUERY)
    user_id = serializers.CharField(required=False, max_length=200)
    channel = Choice(choices=[c.value for c in Channel], required=False)
    ended_after = serializers.DateTimeField(required=False, default=None)
    ended_before = serializers.DateTimeField(required=False, default=None)
    limit = serializers.IntegerField(default=20, min_value=1, max_value=100)


class FoundSerializer(serializers.Serializer[Any]):
    """An ended conversation that matches, with the matching words."""

    conversation_id = serializers.UUIDField()
    contact_id = serializers.UUIDField()
    channel = serializers.CharField()
    started_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField()
    summary = serializers.CharField()
    score = serializers.FloatField(help_text="A higher score is a better match. Scores compare within one answer only.")
    position = serializers.IntegerField(
        allow_null=True, help_text="Position of the chunk that matches best; null if it is the summary."
    )
    snippet = serializers.CharField(help_text="Plain text of that chunk or summary.")
    highlights = serializers.ListField(
        child=serializers.ListField(child=serializers.IntegerField(), min_length=2, max_length=2),
        help_text="The words searched for, as pairs of offsets into the snippet, in characters.",
    )
    by = serializers.ChoiceField(["text", "meaning", "both"])


class AnswerSerializer(serializers.Serializer[Any]):
    """The matches, best first, on one page."""

    items = FoundSerializer(many=True)
    next = serializers.CharField(allow_null=True, help_text="Always null: there is one page.")
    problem = serializers.CharField(
        allow_null=True,
        help_text="Why the search by meaning failed although it is configured, such as `timeout`. The answer then holds"
        " the matches by words. Null if nothing failed.",
    )


class MemoryViewSet(viewsets.GenericViewSet[Conversation]):
    """Memory of the ended conversations of the key's client."""

    serializer_class = AnswerSerializer
    http_method_names = ["get", "head"]
    queryset = Conversation.objects.none()
    scopes = {"search": Scope.MEMORY_READ}

    @extend_schema(parameters=[SearchSerializer], responses=AnswerSerializer)
    def search(self, request: Request) -> Response:
        """Search ended conversations by words and, if Pinecone is configured, by meaning. Best match first."""
        wanted = read(SearchSerializer, request.query_params.dict())
        client_id = key_of(request).client_id
        filters = Filters(
            channel=wanted.get("channel", ""), ended_from=wanted["ended_after"], ended_before=wanted["ended_before"]
        )
        if user_id := wanted.get("user_id"):
            contact = contacts.find_by_user_id(client_id, user_id)
            if contact is None:
                return _answer(SearchResult())
            filters = Filters(contact.pk, filters.channel, filters.ended_from, filters.ended_before)
        found = memory.search(client_id, wanted["q"], wanted["limit"], filters=filters)
        return _answer(found if key_of(request).allows(Scope.PRIVATE_READ) else _without_private(client_id, found))


def _without_private(client_id: UUID, found: SearchResult) -> SearchResult:
    ids = [each.conversation_id for each in found.items]
    private = set(Conversation.objects.of(client_id).private().filter(pk__in=ids).values_list("pk", flat=True))
    return replace(found, items=tuple(each for each in found.items if each.conversation_id not in private))


def _answer(found: SearchResult) -> Response:
    answer = {"items": found.items, "next": None, "problem": found.problem or None}
    return Response(AnswerSerializer(answer).data)
