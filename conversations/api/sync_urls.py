"""Routes of the state-sync protocol."""

from django.urls import URLPattern, path

from conversations.api.sync import SyncViewSet

view = SyncViewSet.as_view

urlpatterns: list[URLPattern] = [
    path("conversations", view({"post": "start", "get": "open_sessions"})),
    path("conversations/<uuid:pk>", view({"get": "retrieve"})),
    path("conversations/user/<str:phone>", view({"get": "of_user"})),
    path("conversations/<uuid:pk>/intent", view({"patch": "intent"})),
    path("conversations/<uuid:pk>/context", view({"patch": "context"})),
    path("conversations/<uuid:pk>/messages", view({"post": "message"})),
    path("conversations/<uuid:pk>/reset", view({"post": "reset"})),
    path("conversations/<uuid:pk>/extend", view({"post": "extend"})),
    path("conversations/<uuid:pk>/orders", view({"post": "link_order", "get": "orders"})),
    path("conversations/<uuid:pk>/end", view({"post": "end"})),
    path("whatsapp/lookup/tenant/<str:phone>", view({"get": "tenant_of"})),
    path("whatsapp/lookup/conversation/<str:phone>", view({"get": "conversation_of"})),
    path("whatsapp/agent/conversations/<uuid:pk>/sync", view({"put": "sync"})),
    path("whatsapp/agent/conversations/<uuid:pk>/messages", view({"post": "agent_message"})),
]
