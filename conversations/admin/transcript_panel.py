"""The content of the panel beside the transcript: the timeline, the turns, the tool calls and the steps."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext

from conversations.admin import ledger_words
from conversations.admin.transcript_view import plain_text
from conversations.models import Conversation, ConversationEvent, Status, Step, ToolCall, Turn
from conversations.services.jobs import overdue
from conversations.words import lazy as _

TIMELINE_EVENTS = 200
TURNS = 50
TOOL_CALLS = 50

CALL_HINTS = {
    "private_address": _(
        "Its address is not public. If it is a network of your own, list it in TOOL_PRIVATE_NETWORKS."
    ),
    "http_401": _("The tool refuses the signature. Enter the tool's secret there, or replace it."),
    "http_404": _("There is nothing at the tool's URL. Check the URL."),
}
C = ToolCall.Status
OUTCOMES = {
    # status of a tool call: (label for staff, severity)
    C.WAITING: (_("waits for approval"), "waiting"),
    C.APPROVED: (_("approved, about to be made"), "waiting"),
    C.REFUSED: (_("refused"), "fine"),
    C.EXPIRED: (_("expired, and not made"), "fine"),
    C.REQUESTED: (_("could not be reached yet"), "waiting"),
    C.CALLING: (_("being made"), "waiting"),
    C.ANSWERED: (_("answered"), "fine"),
    C.FAILED: (_("failed"), "grave"),
    C.UNKNOWN: (_("unclear whether it was done"), "grave"),
}


@dataclass(frozen=True, slots=True)
class TimelineEvent:
    """One event of the ledger in words."""

    at: datetime
    what: str
    who: str
    why: str


def timeline_event(event: ConversationEvent) -> TimelineEvent:
    """Return an event of the ledger in words."""
    what = ledger_words.name_of(event.kind)
    if event.from_status and event.to_status and event.kind not in (event.to_status, "revived"):
        before, after = (_status(each) for each in (event.from_status, event.to_status))
        what = gettext("%(what)s: %(before)s to %(after)s") % {"what": what, "before": before, "after": after}
    kind = event.get_actor_display().lower() if event.actor != ConversationEvent.Actor.API else "api"
    who = f"{event.actor_name} ({kind})" if event.actor_name else kind
    return TimelineEvent(event.created_at, what, who, ledger_words.cause_of(event))


def _status(word: str) -> str:
    return str(Status(word).label).lower() if word in Status else word


def turns_of(conversation: Conversation) -> list[Turn]:
    """Return the newest turns, newest first, without prompts and drafts. `has_prompt` says whether a prompt is kept."""
    found = conversation.turns.defer("prompt", "draft").annotate(has_prompt=Q(prompt__isnull=False))
    return list(found.order_by("-started_at")[:TURNS])


@dataclass(frozen=True, slots=True)
class ShownCall:
    """One tool call as the page shows it. `arguments` is its JSON on several lines."""

    call: ToolCall
    label: str
    gravity: str
    arguments: str
    answer: str

    @property
    def hint(self) -> str:
        """Return what to do about the call's code, or an empty string."""
        return CALL_HINTS.get(self.call.code, "")

    @property
    def waits(self) -> bool:
        """Return whether a colleague must approve or refuse it."""
        return self.call.status == C.WAITING

    @property
    def is_unclear(self) -> bool:
        """Return whether nobody knows if it was done."""
        return self.call.status == C.UNKNOWN


def calls_of(conversation: Conversation) -> list[ShownCall]:
    """Return the newest tool calls, newest first."""
    found = ToolCall.objects.filter(conversation=conversation).order_by("-created_at")[:TOOL_CALLS]
    return [
        ShownCall(
            call,
            *OUTCOMES[C(call.status)],
            arguments=plain_text(json.dumps(call.arguments, indent=2, ensure_ascii=False)),
            answer=plain_text(call.answer),
        )
        for call in found
    ]


def waits_for(conversation: Conversation) -> str:
    """Return what the conversation waits for: "a person" (of the staff), "a reply" (of the assistant), or ""."""
    if conversation.waits_for_staff_since:
        return gettext("a person")
    if conversation.is_open and conversation.reply_owed:
        return gettext("a reply")
    return ""


def side_panel(conversation: Conversation) -> dict[str, Any]:
    """Return the template values of the panel beside the transcript."""
    turns, calls = turns_of(conversation), calls_of(conversation)
    steps: list[Step] = list(conversation.steps.all())
    events = conversation.events.order_by("-id")[:TIMELINE_EVENTS]
    return {
        "contact": plain_text(str(conversation.contact)),
        "steps": steps,
        "timeline": [timeline_event(event) for event in events],
        "turns": turns,
        "calls": calls,
        "requests": [each for each in calls if each.waits or each.is_unclear],
        "unattended_since": overdue.unattended_since(conversation, turns, timezone.now()),
        "waits_for": waits_for(conversation),
        "opted_out": conversation.contact.opted_out.get(conversation.channel),
        "waits_since": conversation.waits_for_staff_since,
    }
