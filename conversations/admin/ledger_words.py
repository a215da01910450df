"""The events of the ledger as staff read them."""

from __future__ import annotations

from collections.abc import Mapping

from django.utils.translation import gettext

from conversations.models import ConversationEvent
from conversations.words import lazy as _
from conversations.words import shown

KINDS: Mapping[str, str] = {
    "account_broken": _("account broken"),
    "account_changed": _("account changed"),
    "address_changed": _("address changed"),
    "assigned_to": _("assigned to"),
    "assistant_assigned": _("assistant assigned"),
    "call_transferred": _("call transferred"),
    "chat_analyzed": _("chat analyzed"),
    "chat_ended": _("chat ended"),
    "chat_replaced": _("chat replaced"),
    "chunk_corrected": _("chunk corrected"),
    "chunk_redacted": _("chunk redacted"),
    "closed": _("closed"),
    "details_edited": _("details edited"),
    "disclosed": _("disclosed"),
    "exported": _("exported"),
    "expired": _("expired"),
    "extended": _("extended"),
    "fallback_said": _("fallback said"),
    "given_back": _("given back"),
    "handed_back": _("handed back"),
    "held": _("held"),
    "help_answered": _("help answered"),
    "hold_lifted": _("hold lifted"),
    "intent_changed": _("intent changed"),
    "joined": _("joined"),
    "labelled": _("labelled"),
    "contact_merged": _("contact merged"),
    "marketing_stopped": _("marketing stopped"),
    "message_deleted": _("message deleted"),
    "message_edited": _("message edited"),
    "message_failed": _("message failed"),
    "message_resent": _("message resent"),
    "message_unknown": _("message unknown"),
    "message_waits": _("message waits"),
    "needs_staff": _("needs staff"),
    "noted": _("noted"),
    "nothing_said": _("nothing said"),
    "opened": _("opened"),
    "opted_in": _("opted in"),
    "opted_out": _("opted out"),
    "order_linked": _("order linked"),
    "prioritised": _("prioritised"),
    "rated": _("rated"),
    "rating_asked": _("rating asked"),
    "rating_commented": _("rating commented"),
    "rating_why_asked": _("rating: why asked"),
    "recalled": _("recalled"),
    "remembered": _("remembered"),
    "archived": _("archived"),
    "stale": _("stale"),
    "reset": _("reset"),
    "revived": _("revived"),
    "sent": _("sent"),
    "snoozed": _("snoozed"),
    "step_added": _("step added"),
    "step_edited": _("step edited"),
    "step_moved": _("step moved"),
    "taken_over": _("taken over"),
    "template_instead": _("template instead"),
    "tool_settled": _("tool settled"),
    "transcribed": _("transcribed"),
    "transfer_failed": _("transfer failed"),
    "transfer_requested": _("transfer requested"),
    "unlabelled": _("unlabelled"),
    "woken": _("woken"),
}


# Causes of these are names and texts of the client's own.
NAMED = {"labelled", "unlabelled", "assigned_to", "assistant_assigned", "account_changed", "disclosed", "held"}
CAUSES = (  # which are written by SQL, or where no word can be marked
    _("no message within stale_after"),
    _("no message within expire_after"),
)


def name_of(kind: str) -> str:
    """Return the kind of an event in words."""
    return str(KINDS.get(kind) or kind.replace("_", " "))


def cause_of(event: ConversationEvent) -> str:
    """Return the cause of an event in words."""
    if event.kind in NAMED:
        return event.cause
    position = event.data.get("position")
    if event.cause == f"message {position}":
        return gettext("message %(position)s") % {"position": position}
    return shown(event.cause)
