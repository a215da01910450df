"""The kinds of events, by the lines of the ledger that they tell of. Lines that are not here are no events."""

from __future__ import annotations

from collections.abc import Mapping

from conversations.models import EventKind as K

OF_LEDGER: Mapping[str, str] = {
    kind: event.value
    for event, kinds in {
        K.OPENED: ("opened",),
        K.REVIVED: ("revived",),
        K.STALE: ("stale",),
        K.ENDED: ("closed", "expired"),
        K.ARCHIVED: ("archived",),
        K.TAKEN_OVER: ("taken_over",),
        K.HANDED_BACK: ("handed_back",),
        K.NEEDS_STAFF: ("needs_staff", "nothing_said", "reply_proposed"),
        K.LABELLED: ("labelled", "unlabelled"),
        K.RATED: ("rated",),
        K.CHANGED: (
            *("assistant_assigned", "details_edited", "intent_changed", "reset", "extended", "order_linked", "joined"),
            *(
                "assigned_to",
                "given_back",
                "prioritised",
                "snoozed",
                "woken",
                "noted",
                "proposal_sent",
                "proposal_discarded",
                "rating_commented",  # its words are the event of its message
            ),  # of the desk; a note without its words
            *("held", "hold_lifted", "account_changed", "transfer_requested", "call_transferred", "transfer_failed"),
            "handover_noted",  # the hand-over itself is K.TAKEN_OVER
        ),
        K.STEP: ("step_added", "step_complete", "step_cancelled", "step_edited", "step_moved"),
        K.TOOL: (
            *("tool_approval_asked", "tool_approved", "tool_refused", "tool_expired"),
            *("tool_answered", "tool_failed", "tool_unknown", "tool_settled"),
        ),
        K.SUMMARY: ("remembered",),
        K.DELIVERY: ("message_failed", "message_unknown", "message_waits", "message_resent", "template_instead"),
        K.MESSAGE_EDITED: ("message_edited",),
        K.MESSAGE_DELETED: ("message_deleted",),
        K.MESSAGE_CORRECTED: ("chunk_corrected", "chunk_redacted", "transcribed"),
        K.CONTACT: (
            *("contact_merged", "address_changed", "opted_in", "opted_out"),
            *("marketing_stopped", "marketing_resumed"),
        ),
    }.items()
    for kind in kinds
}
