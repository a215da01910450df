"""The WSGI application."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
django_application = get_wsgi_application()

# These need the models, which are ready only now.
from conversations.endpoints.fast_path import in_front_of  # noqa: E402
from conversations.http.request_slots import RequestSlots  # noqa: E402
from convo_project.capacity import web_threads  # noqa: E402

application = in_front_of(django_application)
served = RequestSlots(application, web_threads())  # for a server that has more threads than there are to be connections
