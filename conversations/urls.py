"""The doors of the domain."""

from django.urls import URLPattern, URLResolver, include, path

from conversations import cron
from conversations.health import healthz, readyz
from conversations.provider_end import provider_end
from conversations.webhooks import inbound_webhook, retell_webhook, status_webhook

urlpatterns: list[URLPattern | URLResolver] = [
    path("webhooks/<str:channel>/inbound", inbound_webhook),
    path("webhooks/<str:channel>/status", status_webhook),
    path("webhooks/retell", retell_webhook),
    path("", include("conversations.api.urls")),
    path("simulator/<uuid:pk>", provider_end),
    path("simulator/<uuid:pk>/<path:rest>", provider_end),
    path("cron/sweep", cron.sweep),
    path("cron/cleanup", cron.cleanup),
    path("healthz", healthz),
    path("readyz", readyz),
]
