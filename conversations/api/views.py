"""The API's conversations. Each view parses the request, calls one service and answers."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any
from uuid import UUID

import orjson
from django.db.models import Prefetch
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import viewsets
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.fields import read
from conversations.api.paging import page_of_conversations, page_of_templates
from conversations.api.rating_serializers import GivenRatingSerializer, ShownRatingSerializer, rating_shown
from conversations.api.request_serializers import (
    AgentReplySerializer,
    ChunksShownSerializer,
    CloseSerializer,
    ConversationFilterSerializer,
    DecisionSerializer,
    HandbackSerializer,
    NewStepSerializer,
    OpenSerializer,
    PageSerializer,
    SendSerializer,
    StepChangeSerializer,
    TakeoverSerializer,
)
from conversations.api.serializers import (
    LISTED,
    AcceptedReplySerializer,
    ChunkWithFilesSerializer,
    ConversationDetailSerializer,
    ConversationSerializer,
    MessageSerializer,
    SentSerializer,
    StepSerializer,
    TemplateSerializer,
    ToolCallSerializer,
)
from conversations.api.transcript_serializers import TranscriptFormatSerializer, TranscriptSerializer
from conversations.http.auth import actor, key_of, service_key
from conversations.http.downloads import Download
from conversations.http.idempotency import OncePerKey
from conversations.http.own_webhook import NO_CLIENT
from conversations.http.throttling import count_request
from conversations.models import OPEN, Activity, Chunk, Client, Conversation, MessageTemplate, Scope, ToolCall
from conversations.services.contacts import contacts
from conversations.services.core import detail_sql
from conversations.services.core.errors import NotFoundError
from conversations.services.core.statements import THIS_THREAD, finish
from conversations.services.export.transcripts import FORMATS
from conversations.services.media import shown
from conversations.services.replies import late_replies
from conversations.services.staff_actions import outreach, tool_decisions
from conversations.services.staff_actions import send as sending
from conversations.services.staff_actions.outreach import Outreach
from conversations.services.tenants import api_keys
from conversations.services.transitions import closing, ratings, steps, takeover

DEFAULT_CHUNKS = 10


class ConversationViewSet(OncePerKey, viewsets.GenericViewSet[Conversation]):
    """Conversations of the key's client. Another client's id is a 404."""

    serializer_class = ConversationSerializer
    http_method_names = ["get", "head", "post", "patch"]
    queryset = Conversation.objects.none()  # what a request sees is the client's: see _conversations
    lookup_value_regex = "[0-9a-f-]{36}"
    scopes = {
        **dict.fromkeys(
            ("list", "retrieve", "chunks", "transcript", "tool_calls", "templates", "rating"), Scope.CONVERSATIONS_READ
        ),
        **dict.fromkeys(("send", "replies", "rate"), Scope.MESSAGES_WRITE),
        **dict.fromkeys(("create", "close", "takeover", "handback"), Scope.CONVERSATIONS_WRITE),
        **dict.fromkeys(("add_step", "update_step"), Scope.CONVERSATIONS_WRITE),
        **dict.fromkeys(("approve_tool_call", "refuse_tool_call"), Scope.CONVERSATIONS_WRITE),
    }
    audited = ("create", "close", "takeover", "handback", "approve_tool_call", "refuse_tool_call")
    # Those that read look for themselves; the token of the turn is what an own agent is let in by.
    for_private = ("retrieve", "chunks", "transcript", "tool_calls", "replies")

    def _client(self) -> Client:
        return key_of(self.request).client

    def _conversation(self, pk: UUID) -> Conversation:
        conversation = Conversation.objects.of(self._client()).filter(pk=pk).first()
        if conversation is None:
            raise NotFoundError("There is no such conversation.")
        if conversation.is_private:
            api_keys.require_scope(key_of(self.request), Scope.PRIVATE_READ)
        return conversation

    @extend_schema(parameters=[ConversationFilterSerializer], responses=ConversationSerializer(many=True))
    def list(self, request: Request) -> Response:
        """List conversations, newest first. `status=open` stands for active and stale."""
        wanted = read(ConversationFilterSerializer, request.query_params.dict())
        found = Conversation.objects.of(self._client()).select_related("contact").only(*LISTED)
        if not key_of(request).allows(Scope.PRIVATE_READ):
            found = found.not_private()
        if status := wanted.get("status"):
            found = found.filter(status__in=OPEN if status == "open" else [status])
        if channel := wanted.get("channel"):
            found = found.filter(channel=channel)
        if user_id := wanted.get("user_id"):
            found = found.filter(contact=contacts.find_by_user_id(self._client(), user_id))
        if after := wanted.get("started_after"):
            found = found.filter(started_at__gte=after)
        if before := wanted.get("started_before"):
            found = found.filter(started_at__lt=before)
        items, following = page_of_conversations(found, wanted.get("cursor"), wanted["limit"])
        return Response({"items": ConversationSerializer(items, many=True).data, "next": following})

    @extend_schema(request=OpenSerializer, responses={201: ConversationSerializer})
    def create(self, request: Request) -> Response:
        """Open a conversation from our side. The assistant sends the first message, unless `greet` is false."""
        wanted, client = read(OpenSerializer, request.data), self._client()
        if wanted.pop("client_id", client.pk) != client.pk:
            raise NotFoundError(NO_CLIENT, code="client_not_found")
        conversation = outreach.start_outreach(client, Outreach(**wanted), actor=actor(request), now=timezone.now())
        return Response(ConversationSerializer(conversation).data, status=201)

    @extend_schema(parameters=[ChunksShownSerializer], responses=ConversationDetailSerializer)
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """Return a conversation with its goal, summary, steps and newest chunks, with their files."""
        wanted = read(ChunksShownSerializer, request.query_params.dict())
        key = key_of(request)
        private = key.allows(Scope.PRIVATE_READ)
        detail = detail_sql.conversation_of(key.client_id, pk, wanted["chunks"], private=private)
        if detail is None:
            api_keys.require_sight(key, pk)
            raise NotFoundError("There is no such conversation.")
        return Response(orjson.Fragment(shown.whole(detail)))

    @extend_schema(parameters=[PageSerializer], responses=ChunkWithFilesSerializer(many=True))
    def chunks(self, request: Request, pk: UUID) -> Response:
        """List a conversation's chunks, with their files. For the next page give `next` back as `cursor`."""
        wanted = read(PageSerializer, request.query_params.dict())
        conversation = self._conversation(pk)
        found = Chunk.objects.filter(conversation=conversation, position__gt=_position(wanted.get("cursor")))
        activities = Activity.objects.filter(client=conversation.client_id)
        items = list(
            found.prefetch_related(Prefetch("activities", activities)).order_by("position")[: wanted["limit"] + 1]
        )
        page = items[: wanted["limit"]]
        following = str(page[-1].position) if len(items) > len(page) else None
        known = {"files": shown.of_chunks(conversation.client_id, [chunk.pk for chunk in page])}
        return Response({"items": ChunkWithFilesSerializer(page, many=True, context=known).data, "next": following})

    @extend_schema(
        parameters=[TranscriptFormatSerializer],
        responses={
            (200, "application/json"): TranscriptSerializer,
            (200, "text/csv"): str,
            (200, "text/html"): str,
        },
    )
    def transcript(self, request: Request, pk: UUID) -> HttpResponseBase:
        """Return the whole transcript with corrections applied, also of an archived conversation: as JSON, as CSV for
        spreadsheets, or as a page to print."""
        wanted = read(TranscriptFormatSerializer, request.query_params.dict())
        return Download(**FORMATS[wanted["format"]].file_of(self._conversation(pk)))

    @extend_schema(request=SendSerializer, responses={201: SentSerializer})
    def send(self, request: Request, pk: UUID) -> Response:
        """Send a message in the assistant's place: a text, or an approved template. It is appended as an `ai` chunk, a
        template as the person reads it, and sent over the channel."""
        wanted = read(SendSerializer, request.data)
        by: dict[str, Any] = {"actor": actor(request), "now": timezone.now(), "client": self._client()}
        if "template" in wanted:
            chunk, messages = sending.send_template(pk, wanted["template"], **by)
        else:
            files = [(each["url"], each["name"]) for each in wanted["attachments"]]
            words, choices = wanted.get("content", ""), wanted.get("choices")
            chunk, messages = sending.send(pk, words, choices=choices, files=files, **by)
        known = {"files": shown.of_chunks(chunk.client_id, [chunk.pk])} if wanted["attachments"] else {}
        data = {
            "chunk": ChunkWithFilesSerializer(chunk, context=known).data,
            "messages": MessageSerializer(messages, many=True).data,
        }
        return Response(data, status=201)

    @extend_schema(parameters=[PageSerializer], responses=TemplateSerializer(many=True))
    def templates(self, request: Request) -> Response:
        """List the templates of all accounts as their providers list them, approved or not."""
        wanted = read(PageSerializer, request.query_params.dict())
        found = MessageTemplate.objects.filter(client=self._client()).select_related("channel_account")
        items, following = page_of_templates(found, wanted.get("cursor"), wanted["limit"])
        return Response({"items": TemplateSerializer(items, many=True).data, "next": following})

    @extend_schema(request=AgentReplySerializer, responses=AcceptedReplySerializer)
    def replies(self, request: Request, pk: UUID) -> Response:
        """Give the reply that the client's own agent announced with `later`. The same call again changes nothing and
        gets the same answer. A 409 says why a reply is not said: the person has written again, say."""
        wanted = read(AgentReplySerializer, request.data)
        turn = late_replies.accept_reply(
            pk, wanted.pop("turn_token"), wanted, client=self._client(), now=timezone.now()
        )
        return Response(AcceptedReplySerializer(turn).data)

    @extend_schema(responses=ShownRatingSerializer)
    def rating(self, request: Request, pk: UUID) -> Response:
        """Return the question about satisfaction that was asked in the ended conversation, its choices and the answer,
        for a page that shows the conversation. A 404 `not_asked` where the person was not asked."""
        found = ratings.shown(self._conversation(pk), timezone.now())
        if found is None:
            raise NotFoundError("Nobody was asked about this conversation.", code="not_asked")
        return Response(rating_shown(found))

    @extend_schema(request=GivenRatingSerializer, responses=ShownRatingSerializer)
    def rate(self, request: Request, pk: UUID) -> Response:
        """Pass on the person's answer to the question about satisfaction. It opens no conversation. The first answer
        counts: the same again changes nothing, and another one is a 409 `rated`."""
        wanted = read(GivenRatingSerializer, request.data)
        client_id = self._client().pk
        found = ratings.answer(client_id, pk, **wanted, actor=actor(request), now=timezone.now())
        return Response(rating_shown(found))

    @extend_schema(request=CloseSerializer, responses=ConversationSerializer)
    def close(self, request: Request, pk: UUID) -> Response:
        """Close a conversation. Queued messages are cancelled. Closing it again changes nothing."""
        wanted = read(CloseSerializer, request.data)
        conversation = closing.close(
            pk,
            ended_by=wanted["ended_by"],
            reason=wanted["reason"],
            actor=actor(request),
            now=timezone.now(),
            client=self._client(),
        )
        return Response(ConversationSerializer(conversation).data)

    @extend_schema(request=TakeoverSerializer, responses=ConversationSerializer)
    def takeover(self, request: Request, pk: UUID) -> Response:
        """Take a conversation over for a person. The assistant stays silent until the conversation is handed back. A
        second takeover by the same name extends the first."""
        wanted = read(TakeoverSerializer, request.data)
        conversation = takeover.take_over(pk, **wanted, actor=actor(request), now=timezone.now(), client=self._client())
        return Response(ConversationSerializer(conversation).data)

    @extend_schema(request=HandbackSerializer, responses=ConversationSerializer)
    def handback(self, request: Request, pk: UUID) -> Response:
        """Hand a conversation back to its assistant, which answers what is unanswered. Repeating it changes nothing."""
        wanted = read(HandbackSerializer, request.data)
        conversation = takeover.hand_back(
            pk, reason=wanted["reason"], actor=actor(request), now=timezone.now(), client=self._client()
        )
        return Response(ConversationSerializer(conversation).data)

    @extend_schema(request=NewStepSerializer, responses={201: StepSerializer})
    def add_step(self, request: Request, pk: UUID) -> Response:
        """Add a step to a conversation. Its status is `pending`."""
        wanted = read(NewStepSerializer, request.data)
        step = steps.add_step(pk, wanted["description"], actor(request), self._client())
        return Response(StepSerializer(step).data, status=201)

    @extend_schema(request=StepChangeSerializer, responses=StepSerializer)
    def update_step(self, request: Request, pk: UUID, step_id: int) -> Response:
        """Complete or cancel a step. Both are final; the same status again changes nothing."""
        wanted = read(StepChangeSerializer, request.data)
        step = steps.update_step(step_id, wanted["status"], actor(request), self._client(), pk)
        return Response(StepSerializer(step).data)

    @extend_schema(parameters=[PageSerializer], responses=ToolCallSerializer(many=True))
    def tool_calls(self, request: Request, pk: UUID) -> Response:
        """List a conversation's tool calls, oldest first. Those with the status `waiting` wait for approval."""
        wanted = read(PageSerializer, request.query_params.dict())
        start = _position(wanted.get("cursor"))
        found = ToolCall.objects.filter(conversation=self._conversation(pk)).order_by("created_at", "id")
        items = list(found[start : start + wanted["limit"] + 1])
        page = items[: wanted["limit"]]
        following = str(start + len(page)) if len(items) > len(page) else None
        return Response({"items": ToolCallSerializer(page, many=True).data, "next": following})

    @extend_schema(request=DecisionSerializer, responses=ToolCallSerializer)
    def approve_tool_call(self, request: Request, pk: UUID, call_id: UUID) -> Response:
        """Approve a tool call that waits. The assistant makes it and replies at once. Repeating it changes nothing."""
        return self._decide(request, pk, call_id, tool_decisions.approve)

    @extend_schema(request=DecisionSerializer, responses=ToolCallSerializer)
    def refuse_tool_call(self, request: Request, pk: UUID, call_id: UUID) -> Response:
        """Refuse a tool call that waits. The assistant is told so and replies at once. Repeating it changes nothing."""
        return self._decide(request, pk, call_id, tool_decisions.refuse)

    def _decide(self, request: Request, pk: UUID, call_id: UUID, decide: Callable[..., ToolCall]) -> Response:
        wanted = read(DecisionSerializer, request.data)
        call = decide(
            pk, call_id, reason=wanted["reason"], actor=actor(request), now=timezone.now(), client=self._client()
        )
        return Response(ToolCallSerializer(call).data)


def _position(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 9:
        raise ValidationError({"cursor": ["Must be the `next` of the page before."]})
    return int(cursor)


_retrieve = ConversationViewSet.as_view({"get": "retrieve"})


@wraps(_retrieve, assigned=())  # csrf_exempt as it is, and the viewset for the schema to find
def conversation_detail(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    """Answer `GET /conversations/{id}` by one statement that also checks the key.

    Every other case (an unknown conversation, a bad key, a parameter, a limit) is left to the viewset.
    """
    key = service_key(request)
    if request.method == "GET" and key and not request.GET:
        detail = finish(detail_sql.conversation_by_key(THIS_THREAD, api_keys.key_hash(key), pk, DEFAULT_CHUNKS))
        if detail and detail.key_id and count_request(detail.key_id):
            api_keys.note_use(detail.key_id)
            return HttpResponse('{"success":true,"data":' + shown.whole(detail) + "}", content_type="application/json")
    return _retrieve(request, pk=pk)
