"""The sessions: their list (session_list.py), what is done to many (bulk.py), and the page of each (transcript.py)."""

from __future__ import annotations

from django.contrib import admin

from conversations.admin import rows  # noqa: F401 - registers the tables behind the sessions
from conversations.admin.bulk import BulkPages
from conversations.admin.transcript import TranscriptPage
from conversations.models import Conversation


@admin.register(Conversation)
class ConversationAdmin(TranscriptPage, BulkPages):
    """Sessions."""
