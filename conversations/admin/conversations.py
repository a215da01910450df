"""The admin of the conversations: it composes the pages, each of which is a module of its own."""

from __future__ import annotations

from django.contrib import admin

from conversations.admin.bulk_actions import BulkActionPages
from conversations.admin.forecast import ForecastPage
from conversations.admin.outreach import OutreachPage
from conversations.admin.prompt_snapshot import PromptSnapshotPages
from conversations.admin.send_template import SendTemplatePage
from conversations.admin.transcript import TranscriptPages
from conversations.models import Conversation


@admin.register(Conversation)
class ConversationAdmin(
    TranscriptPages, SendTemplatePage, ForecastPage, PromptSnapshotPages, OutreachPage, BulkActionPages
):
    """The list of conversations (through BulkActionPages) and the pages of each conversation."""
