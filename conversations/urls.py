"""The routes of the domain. `convo_project/urls.py` adds the admin's."""

from django.urls import URLPattern, URLResolver, include, path

from conversations.endpoints import copilot_pages, cron, mail_pages
from conversations.endpoints.health import healthz, readyz
from conversations.endpoints.media import media_file
from conversations.endpoints.metrics import metrics
from conversations.endpoints.simulated_providers import provider_end
from conversations.endpoints.start_page import start_page
from conversations.endpoints.webhooks import inbound_webhook, retell_webhook, status_webhook
from conversations.endpoints.words import words

urlpatterns: list[URLPattern | URLResolver] = [
    path("", start_page),
    path("webhooks/<str:channel>/inbound", inbound_webhook),
    path("webhooks/<str:channel>/status", status_webhook),
    path("webhooks/retell", retell_webhook),
    path("media/<str:token>", media_file),
    path("", include("conversations.api.urls")),
    path("simulator/<uuid:pk>", provider_end),
    path("simulator/<uuid:pk>/<path:rest>", provider_end),
    path("words/<str:language>.js", words, name="words"),
    path("copilot/panel", copilot_pages.panel),
    path("copilot/app", copilot_pages.app),
    path("copilot/login", copilot_pages.login),
    path("copilot/logout", copilot_pages.logout),
    path("cron/sweep", cron.sweep),
    path("cron/cleanup", cron.cleanup),
    path("mail/unsubscribe/<str:token>", mail_pages.unsubscribe, name="mail_unsubscribe"),
    path("metrics", metrics),
    path("healthz", healthz),
    path("readyz", readyz),
]
