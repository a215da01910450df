"""Missed calls: the caller hung up before anybody answered, or the call was never asked about."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from channels_out.calls import CallRequest
from channels_out.events import Activity
from channels_out.kinds import ActivityKind
from conversations.models import ChannelAccount
from conversations.services.core.errors import ConflictError
from conversations.services.core.ledger import CONTACT
from conversations.services.core.locking import editing
from conversations.services.inbound import placeholders
from conversations.services.transitions import closing


def keep(account: ChannelAccount, call: CallRequest, now: datetime) -> bool:
    """Keep the call as a conversation that says that it was missed and has ended; return whether that is done.

    Its summary says so too: the person's next conversation begins with it.
    """
    metadata = {"cause": call.cause[:200]} if call.cause else {}
    happened = Activity(
        *(ActivityKind.MISSED_CALL, call.caller),
        text=placeholders.CALLED,
        message_id=call.call_id,
        metadata=metadata,
    )
    settled = placeholders.keep(account, happened, now, thread=call.call_id)
    if settled is None:
        return False
    if settled.created and settled.conversation_id:
        with editing(settled.conversation_id, account.client_id) as conversation:
            conversation.summary = placeholders.WANTS_STAFF
        with suppress(ConflictError):
            reason = f"nobody answered {call.cause}".strip()[:200]
            closing.close(
                settled.conversation_id, ended_by="user", actor=CONTACT, now=now, reason=reason, client=account.client
            )
    return True
