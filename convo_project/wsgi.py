"""Django's WSGI application, which answers what the event loop does not (rsgi.py)."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
application = get_wsgi_application()
