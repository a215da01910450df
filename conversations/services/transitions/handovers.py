"""Hand-overs from the assistant to a person: at once, or at the next opening where the client wants that.

    the assistant cannot or should not answer ──► takeover.take          within the hours, or the client waits for none
                                             └──► noted, and told when ──► takeover.take   the task of each minute

While a hand-over is noted the assistant goes on answering, and the conversation does not expire. Phone calls are always
handed over at once: a call cannot wait.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

from channels_out.kinds import Channel
from conversations.models import Conversation, Role
from conversations.services.core import hours
from conversations.services.core.appending import write_chunks
from conversations.services.core.cluster import of_each
from conversations.services.core.ledger import Actor, record
from conversations.services.core.locking import editing_if_there
from conversations.services.core.rotation import clients_in
from conversations.services.core.sql import column
from conversations.services.delivery import disclosure, outbox
from conversations.services.tenants import client_hours
from conversations.services.tenants.client_hours import Outside, Terms
from conversations.services.transitions import pending_handovers, takeover

MARGIN = timedelta(hours=1)  # for which a conversation stays open after the opening, should the task be late
AT_ONCE = 1_000  # of one client in a run

_DUE = """
    SELECT conversation_id FROM desk_handovers WHERE client_id = $1 AND due_at <= $2 ORDER BY due_at LIMIT $3"""


def hand_over(
    conversation: Conversation,
    actor: Actor,
    now: datetime,
    *,
    reason: str = "",
    tell: bool = False,
    is_wish: bool = False,
) -> bool:
    """Give the locked open conversation to nobody yet, at once or at the next opening; return whether at once.

    Call it within `locking.saving`. Where it waits, a reply that is owed stays owed by the assistant: the caller says
    whether the person has got an answer.

    tell: the person hears nothing else about it: send them the sentence that says so
    is_wish: the person asked for a person
    """
    terms = client_hours.terms(conversation.client_id)
    opens_at = waits_until(terms, conversation.channel, now, is_wish=is_wish)
    if opens_at is None:
        takeover.take(conversation, actor, now, reason=reason, tell=tell)
        return True
    is_new = pending_handovers.note(conversation, actor, reason, opens_at)
    if is_new:
        stays = opens_at + MARGIN
        conversation.extended_until = max(conversation.extended_until or stays, stays)
        when = client_hours.when_in_words(terms, opens_at, now=now)
        record(conversation, "handover_noted", actor, cause=reason[:200], due_at=opens_at.isoformat(), when=when)
    if tell or is_new:
        _tell(conversation, terms, now)
    return False


def waits_until(terms: Terms, channel: str, now: datetime, *, is_wish: bool) -> datetime | None:
    """Return the next opening, for which a hand-over waits; None if it waits for none."""
    if terms.outside == Outside.ALWAYS or channel == Channel.VOICE or (is_wish and terms.outside == Outside.WISH):
        return None
    opens_at = hours.next_opening(terms.hours, now)
    return opens_at if opens_at and opens_at > now else None


def _tell(conversation: Conversation, terms: Terms, now: datetime) -> None:
    """Say when the conversation is handed over: what was noted first holds."""
    pending = pending_handovers.of(conversation)
    sentence = client_hours.sentence_about(terms, pending.due_at, now=now) if pending else ""
    if sentence:
        first = disclosure.due(conversation)
        metadata = {"said_at": "outside_hours", **disclosure.metadata(first)}
        [chunk] = write_chunks(conversation, [(Role.AI, disclosure.before(sentence, first))], now, metadata=metadata)
        disclosure.note(conversation, chunk, first)
        outbox.queue(conversation, chunk, now, unconditional=True)


def make_due(now: datetime) -> int:
    """Make the hand-overs that are due, and return how many there were.

    Each is a transaction of its own that deletes its row and takes the conversation from the assistant. Run again, or
    twice at a time, it does no more than once.
    """
    clients = [(client_id, now) for client_id in clients_in("desk_handovers")]
    return sum(of_each(clients, _make_due_of))


def _make_due_of(client_id: UUID, now: datetime) -> int:
    return sum(_make(client_id, pk, now) for pk in column(_DUE, client_id, now, AT_ONCE))


def _make(client_id: UUID, conversation_id: UUID, now: datetime) -> bool:
    with editing_if_there(conversation_id, client_id) as conversation:
        pending = pending_handovers.of(conversation) if conversation else None
        if conversation is None or pending is None or pending.due_at > now:
            return False
        goes_on = conversation.is_open and conversation.taken_over_at is None
        opens_at = hours.next_opening(client_hours.terms(client_id).hours, now) if goes_on else now
        if opens_at and opens_at > now:  # the hours were changed since
            pending.due_at = opens_at
            pending.save(update_fields=["due_at"])
            conversation.extended_until = max(conversation.extended_until or opens_at, opens_at + MARGIN)
            return False
        pending_handovers.drop(conversation)
        if goes_on:
            actor = Actor(pending.actor, pending.actor_name)
            takeover.take(conversation, actor, now, reason=pending.reason)
        return goes_on
