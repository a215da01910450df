"""The sync protocol's routes, `/api/v1/…`. Each view parses the request, calls `services/agent_sync` and answers."""

from __future__ import annotations

import re
from typing import Any
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import viewsets
from rest_framework.exceptions import PermissionDenied, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.api.fields import read
from conversations.api.sync_serializers import (
    ContextSerializer,
    ExtendSerializer,
    FindSerializer,
    IntentSerializer,
    ListSerializer,
    LookupSerializer,
    NewMessageSerializer,
    NewOrderSerializer,
    OrdersSerializer,
    PlainSerializer,
    ResetSerializer,
    StartSerializer,
    StateSerializer,
    StatesSerializer,
    SyncSerializer,
    TenantSerializer,
    WhoseSerializer,
)
from conversations.http.auth import actor, key_of
from conversations.http.idempotency import OncePerKey
from conversations.models import Client, Scope
from conversations.services.agent_sync import state as sync_state
from conversations.services.agent_sync import sync
from conversations.services.agent_sync.state import SessionState, as_json
from conversations.services.agent_sync.sync import Caller
from conversations.services.core.errors import NotFoundError

IF_MATCH = OpenApiParameter(
    "If-Match",
    {"type": "string", "pattern": r'^(\*|"?[0-9]{1,9}"?)$'},
    OpenApiParameter.HEADER,
    description="The `version` that the change is based on. If the state has another version, the answer is 409"
    " (`version_conflict`).",
)
_VERSION = re.compile(r'(?:W/)?"?([0-9]{1,9})"?')


class SyncViewSet(OncePerKey, viewsets.ViewSet):
    """Sessions of the key's client, as agents elsewhere keep them."""

    http_method_names = ["get", "head", "post", "patch", "put"]
    schema_group = "sync"
    audited = ("end",)
    scopes = {
        **dict.fromkeys(("open_sessions", "retrieve", "of_user", "orders"), Scope.CONVERSATIONS_READ),
        **dict.fromkeys(("tenant_of", "conversation_of"), Scope.CONVERSATIONS_READ),
        **dict.fromkeys(("message", "agent_message"), Scope.MESSAGES_WRITE),
        **dict.fromkeys(("start", "intent", "context", "reset", "extend"), Scope.CONVERSATIONS_WRITE),
        **dict.fromkeys(("link_order", "end", "sync"), Scope.CONVERSATIONS_WRITE),
    }

    def _client(self, said: dict[str, Any]) -> Client:
        client = key_of(self.request).client
        if (said.get("subDomain") or client.sub_domain) != client.sub_domain:
            raise PermissionDenied("This API key belongs to another client than this subDomain.")
        return client

    def _caller(self, said: dict[str, Any]) -> Caller:
        return Caller(
            client=self._client(said),
            actor=actor(self.request),
            now=timezone.now(),
            local_id=said.get("localId") or "",
            version=_version(self.request),
        )

    @extend_schema(request=StartSerializer, responses={200: StateSerializer, 201: StateSerializer})
    def start(self, request: Request) -> Response:
        """Open a session for a person (201), or return the one that is open (200)."""
        said = read(StartSerializer, request.data)
        state, new = sync.start(
            self._caller(said), said["userId"], bot_id=said.get("botId") or "", metadata=said.get("metadata")
        )
        return _shown(state, status=201 if new else 200)

    @extend_schema(parameters=[ListSerializer], responses=StatesSerializer)
    def open_sessions(self, request: Request) -> Response:
        """List open sessions, newest first."""
        said = read(ListSerializer, request.query_params.dict())
        found, count = sync_state.open_sessions(
            self._client(said),
            local_id=said.get("localId", ""),
            bot_id=said.get("botId", ""),
            intent=said.get("intent", ""),
            limit=said["limit"],
            offset=said["offset"],
        )
        return Response({"conversations": [as_json(each) for each in found], "count": count})

    @extend_schema(parameters=[WhoseSerializer], responses=StateSerializer)
    def retrieve(self, request: Request, pk: UUID) -> Response:
        """Return a session's state, also after its end."""
        said = read(WhoseSerializer, request.query_params.dict())
        return _shown(sync_state.session_state(self._client(said), pk, said.get("localId", "")))

    @extend_schema(parameters=[FindSerializer], responses=StateSerializer)
    def of_user(self, request: Request, phone: str) -> Response:
        """Return the open session of a person."""
        said = read(FindSerializer, request.query_params.dict())
        return _shown(
            sync_state.open_session_of(
                self._client(said), _phone(phone), local_id=said.get("localId", ""), bot_id=said.get("botId", "")
            )
        )

    @extend_schema(request=IntentSerializer, responses=StateSerializer, parameters=[IF_MATCH])
    def intent(self, request: Request, pk: UUID) -> Response:
        """Set the intent and the step. The previous pair is kept as `previousIntent` and `previousStep`."""
        said = read(IntentSerializer, request.data)
        return _shown(sync.set_intent(self._caller(said), pk, said["intent"], said.get("step") or ""))

    @extend_schema(request=ContextSerializer, responses=StateSerializer, parameters=[IF_MATCH])
    def context(self, request: Request, pk: UUID) -> Response:
        """Merge an object into the context, or replace the context."""
        said = read(ContextSerializer, request.data)
        merge = said.get("merge") is not False
        return _shown(sync.set_context(self._caller(said), pk, said["context"], merge=merge))

    @extend_schema(request=NewMessageSerializer, responses={201: StateSerializer})
    def message(self, request: Request, pk: UUID) -> Response:
        """Append a message of the user or the bot to the session."""
        said = read(NewMessageSerializer, request.data)
        message_id = said.get("messageId") or ""
        return _shown(sync.add_message(self._caller(said), pk, said["role"], said["content"], message_id), status=201)

    @extend_schema(request=ResetSerializer, responses=StateSerializer)
    def reset(self, request: Request, pk: UUID) -> Response:
        """Clear the context. Earlier messages are no longer shown, unless `keepHistory` is true; nothing is deleted."""
        said = read(ResetSerializer, request.data)
        return _shown(sync.reset(self._caller(said), pk, keep_history=bool(said.get("keepHistory"))))

    @extend_schema(request=ExtendSerializer, responses=StateSerializer)
    def extend(self, request: Request, pk: UUID) -> Response:
        """Move the session's expiry to so many hours from now, and never to an earlier time."""
        said = read(ExtendSerializer, request.data)
        return _shown(sync.extend(self._caller(said), pk, said.get("hours") or 24))

    @extend_schema(request=NewOrderSerializer, responses={201: StateSerializer})
    def link_order(self, request: Request, pk: UUID) -> Response:
        """Link an order to the session. It becomes the current order."""
        said = read(NewOrderSerializer, request.data)
        return _shown(sync.link_order(self._caller(said), pk, said["orderId"]), status=201)

    @extend_schema(parameters=[WhoseSerializer], responses=OrdersSerializer)
    def orders(self, request: Request, pk: UUID) -> Response:
        """List the session's orders in the order in which they were linked."""
        said = read(WhoseSerializer, request.query_params.dict())
        state = as_json(sync_state.session_state(self._client(said), pk, said.get("localId", "")))
        return Response({name: state[name] for name in ("currentOrderId", "orderHistory")})

    @extend_schema(request=PlainSerializer, responses=StateSerializer)
    def end(self, request: Request, pk: UUID) -> Response:
        """End a session. Ending it again changes nothing."""
        return _shown(sync.end(self._caller(read(PlainSerializer, request.data)), pk))

    @extend_schema(responses=TenantSerializer)
    def tenant_of(self, request: Request, phone: str) -> Response:
        """Return the tenant of a person's newest session."""
        state = as_json(sync_state.newest_session_of(self._client({}), _phone(phone)))
        return Response({name: state[name] for name in ("subDomain", "botId", "sessionId", "isActive")})

    @extend_schema(parameters=[LookupSerializer], responses=StateSerializer)
    def conversation_of(self, request: Request, phone: str) -> Response:
        """Return the open session of a person."""
        said = read(LookupSerializer, request.query_params.dict())
        bot_id = said.get("botId", "")
        return _shown(sync_state.open_session_of(self._client(said), _phone(phone), bot_id=bot_id))

    @extend_schema(request=SyncSerializer, responses=StateSerializer, parameters=[IF_MATCH])
    def sync(self, request: Request, pk: UUID) -> Response:
        """Store an agent's whole state at once. Absent fields stay unchanged."""
        said = read(SyncSerializer, request.data)
        state = sync.sync(
            self._caller(said),
            pk,
            intent=said.get("intent") or "",
            step=said.get("step") or "",
            context=said.get("context"),
            metadata=said.get("metadata"),
            is_active=said.get("isActive") is not False,
        )
        return _shown(state)

    @extend_schema(request=NewMessageSerializer, responses={201: StateSerializer})
    def agent_message(self, request: Request, pk: UUID) -> Response:
        """Append a message of the user or the bot to the session."""
        return self.message(request, pk)


def _shown(state: SessionState, status: int = 200) -> Response:
    data = as_json(state)
    return Response(data, status=status, headers={"ETag": f'"{data["version"]}"'})


def _phone(raw: str) -> str:
    """Return the path's phone number; a blank may stand for the plus. Raises NotFoundError if it is none."""
    phone = sync_state.person_of(raw)
    if phone is None:
        raise NotFoundError("This is no phone number with its country code, such as +51999999999.")
    return phone


def _version(request: Request) -> int | None:
    """Return the version that `If-Match` names. Raises ValidationError if it is none."""
    said = request.headers.get("If-Match", "*").strip()
    if said == "*":
        return None
    match = _VERSION.fullmatch(said)
    if not match:
        raise ValidationError({"If-Match": ["Must be a version of the state."]})
    return int(match[1])
