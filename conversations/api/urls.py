"""The API's routes."""

from typing import Any

from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import SpectacularSwaggerSplitView
from rest_framework.renderers import TemplateHTMLRenderer

from conversations.api import copilot
from conversations.api.backlog import BacklogViewSet
from conversations.api.events import EventViewSet
from conversations.api.memory import MemoryViewSet
from conversations.api.reports import ReportViewSet
from conversations.api.schema import openapi
from conversations.api.views import ConversationViewSet, conversation_detail
from conversations.http.envelope import get_only

OPEN_TO_ALL: dict[str, list[Any]] = {"authentication_classes": [], "permission_classes": [], "throttle_classes": []}

urlpatterns: list[URLPattern | URLResolver] = [
    path("conversations", ConversationViewSet.as_view({"get": "list", "post": "create"})),
    path("conversations/<uuid:pk>", conversation_detail),
    path("conversations/<uuid:pk>/chunks", ConversationViewSet.as_view({"get": "chunks"})),
    path("conversations/<uuid:pk>/transcript", ConversationViewSet.as_view({"get": "transcript"})),
    path("conversations/<uuid:pk>/send", ConversationViewSet.as_view({"post": "send"})),
    path("conversations/<uuid:pk>/replies", ConversationViewSet.as_view({"post": "replies"})),
    path("conversations/<uuid:pk>/rating", ConversationViewSet.as_view({"get": "rating", "post": "rate"})),
    path("conversations/<uuid:pk>/close", ConversationViewSet.as_view({"post": "close"})),
    path("conversations/<uuid:pk>/takeover", ConversationViewSet.as_view({"post": "takeover"})),
    path("conversations/<uuid:pk>/handback", ConversationViewSet.as_view({"post": "handback"})),
    path("conversations/<uuid:pk>/steps", ConversationViewSet.as_view({"post": "add_step"})),
    path(
        "conversations/<uuid:pk>/steps/<int:step_id>",
        ConversationViewSet.as_view({"patch": "update_step"}),
    ),
    path("conversations/<uuid:pk>/tool-calls", ConversationViewSet.as_view({"get": "tool_calls"})),
    path(
        "conversations/<uuid:pk>/tool-calls/<uuid:call_id>/approve",
        ConversationViewSet.as_view({"post": "approve_tool_call"}),
    ),
    path(
        "conversations/<uuid:pk>/tool-calls/<uuid:call_id>/refuse",
        ConversationViewSet.as_view({"post": "refuse_tool_call"}),
    ),
    path("templates", ConversationViewSet.as_view({"get": "templates"})),
    path("events", EventViewSet.as_view({"get": "feed"})),
    path("memory/search", MemoryViewSet.as_view({"get": "search"})),
    path("reports", ReportViewSet.as_view({"get": "report"})),
    path("health/backlog", BacklogViewSet.as_view({"get": "backlog"})),
    path("api/v1/", include("conversations.api.sync_urls")),
    *(path(route, view.as_view()) for route, view in copilot.routes.items()),
    path("schema/", openapi, name="schema"),
    path(
        "docs/",
        get_only(
            SpectacularSwaggerSplitView.as_view(
                renderer_classes=[TemplateHTMLRenderer], url_name="schema", **OPEN_TO_ALL
            )
        ),
        name="docs",
    ),
]
