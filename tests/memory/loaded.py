"""The imports of the processes of `tests.memory.process`."""

import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "convo_project.settings")
django.setup()

import openai  # noqa: E402, F401
import pinecone.async_client.async_index  # noqa: E402, F401

from memory import services  # noqa: E402, F401
