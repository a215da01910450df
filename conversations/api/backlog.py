"""The backlog by HTTP: of all clients with METRICS_KEY, of one client with its own API key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.conf import settings
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from drf_spectacular.utils import extend_schema
from rest_framework import serializers, viewsets
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response

from conversations.http.auth import HasServiceKey, ServiceKeyAuthentication
from conversations.models import ApiKey, Client, Scope
from conversations.services.jobs import backlog
from conversations.services.jobs.backlog import ClientBacklog, Waiting


class MetricsKey:
    """The caller of a request with METRICS_KEY, in place of a client's API key."""


class MetricsKeyAuthentication(ServiceKeyAuthentication):
    """DRF's authentication by METRICS_KEY as a bearer token, or else by a client's API key."""

    def authenticate(self, request: Request) -> tuple[Any, Any] | None:
        """Return (None, MetricsKey()) or (None, ApiKey), or None without a key. Raises AuthenticationFailed."""
        scheme, _, token = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        key = settings.METRICS_KEY
        if key and scheme.lower() == "bearer" and constant_time_compare(token.strip(), key):
            return None, MetricsKey()
        return super().authenticate(request)


class HasAnyKey(BasePermission):
    """DRF's permission for requests with METRICS_KEY or an API key."""

    def has_permission(self, request: Request, view: Any) -> bool:
        """Return True. Raises what HasServiceKey raises."""
        return isinstance(request.auth, MetricsKey) or HasServiceKey().has_permission(request, view)


class WaitingSerializer(serializers.Serializer[Any]):
    """The work of one kind that waits."""

    count = serializers.IntegerField(help_text="At most 1000.")
    more = serializers.BooleanField(help_text="True if more than 1000 wait.")
    oldest_seconds = serializers.FloatField(help_text="For how long the oldest has been waiting; 0 for none.")


class KindsSerializer(serializers.Serializer[Any]):
    """The work that waits, by kind."""

    replies = WaitingSerializer(help_text="Replies that are due and not written.")
    sends = WaitingSerializer(help_text="Messages that are due and not sent.")
    summaries = WaitingSerializer(help_text="Rolling summaries that are due.")
    remembering = WaitingSerializer(help_text="Ended conversations that are not in memory yet.")
    archiving = WaitingSerializer(help_text="Conversations whose archiving is due.")
    events = WaitingSerializer(help_text="Provider events that could not be processed.")


class ClientBacklogSerializer(serializers.Serializer[Any]):
    """The work of one client that waits."""

    client_id = serializers.UUIDField(allow_null=True, help_text="Null for events that belong to no client.")
    sub_domain = serializers.CharField()
    waiting = KindsSerializer()


class BacklogSerializer(serializers.Serializer[Any]):
    """The work that waits."""

    complete = serializers.BooleanField(
        help_text="False if so much waits that not all was read: figures are then the least that they can be."
    )
    total = KindsSerializer(help_text="Of all clients that the key sees.")
    clients = ClientBacklogSerializer(many=True, help_text="The clients at which something waits.")


class BacklogViewSet(viewsets.GenericViewSet[Client]):
    """The work that is due and not done."""

    authentication_classes = [MetricsKeyAuthentication]
    permission_classes = [HasAnyKey]
    serializer_class = BacklogSerializer
    http_method_names = ["get", "head"]
    schema_group = "health"
    scopes = {"backlog": Scope.CONVERSATIONS_READ}
    queryset = Client.objects.none()

    @extend_schema(responses=BacklogSerializer)
    def backlog(self, request: Request) -> Response:
        """Say what waits, by client and kind. An API key sees its own client, METRICS_KEY (bearer) sees all clients."""
        now = timezone.now()
        client_ids = [request.auth.client_id] if isinstance(request.auth, ApiKey) else None
        found = backlog.backlog(client_ids, now)
        clients = [_client(each, now) for each in found.clients]
        return Response({"complete": found.complete, "total": _kinds(found.total, now), "clients": clients})


def _client(each: ClientBacklog, now: datetime) -> dict[str, Any]:
    return {"client_id": each.client_id, "sub_domain": each.sub_domain, "waiting": _kinds(each.waiting, now)}


def _kinds(waiting: Mapping[str, Waiting], now: datetime) -> dict[str, Any]:
    return {
        kind: {
            "count": each.count,
            "more": each.more,
            "oldest_seconds": round(max((now - each.since).total_seconds(), 0), 1) if each.since else 0.0,
        }
        for kind, each in waiting.items()
    }
