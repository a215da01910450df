"""The sessions: their list (session_list.py), what is done to many (bulk.py), the page of each (transcript.py), what a
model was given (context_receipt.py), what happens next (clock.py), how one is opened from our side (outreach.py)."""

from __future__ import annotations

from django.contrib import admin

from conversations.admin import rows  # noqa: F401 - registers the tables behind the sessions
from conversations.admin.bulk import BulkPages
from conversations.admin.clock import ClockPages
from conversations.admin.context_receipt import ReceiptPages
from conversations.admin.outreach import OutreachPages
from conversations.admin.transcript import TranscriptPage
from conversations.models import Conversation


@admin.register(Conversation)
class ConversationAdmin(TranscriptPage, ClockPages, ReceiptPages, OutreachPages, BulkPages):
    """Sessions."""
