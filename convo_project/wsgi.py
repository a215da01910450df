"""The web process's way in."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
django_application = get_wsgi_application()

from conversations.front_door import in_front_of  # noqa: E402 - it needs the models, which are ready only now

application = in_front_of(django_application)
