"""The web application as granian serves it."""

from convo_project import resident, stopping, telemetry
from convo_project.capacity import web_threads
from convo_project.wsgi import application as django_application

# isort: split
# This needs the settings, which are ready only now.
from conversations.endpoints.web_application import WebApplication

application = WebApplication(django_application, web_threads(), stopping.is_noted)
telemetry.start(resident.WEB)
resident.settle(resident.WEB)
