"""The web application as granian serves it."""

import sys

from convo_project import resident, stopping, telemetry
from convo_project.capacity import web_threads
from convo_project.wsgi import application as django_application

# isort: split
# This needs the settings, which are ready only now.
from conversations.endpoints.web_application import WebApplication

# A thread that computes a page gives way to the event loop after 0.2 ms instead of Python's 5. A message asks for the
# interpreter several times, so each page that was being computed cost it 15 ms and more.
SWITCH_SECONDS = 0.0002

sys.setswitchinterval(SWITCH_SECONDS)
application = WebApplication(django_application, web_threads(), stopping.is_noted)
telemetry.start(resident.WEB)
resident.settle(resident.WEB)
