"""Proposals of a conversation: what an assistant proposed, and what makes it void (models/proposal.py).

Every function takes the conversation locked, within `locking.saving`. A colleague's decision is made in
staff_actions/proposals.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.utils.translation import gettext_noop

from conversations.models import Conversation, Proposal
from conversations.services.core.ledger import Actor, assistant_actor, record

S = Proposal.State
APPROVAL = gettext_noop("A reply waits for approval.")  # why a conversation needs a person


def propose(
    conversation: Conversation,
    text: str,
    now: datetime,
    *,
    turn_id: UUID,
    inbound_sequence: int,
    metadata: Mapping[str, Any],
    files: Sequence[UUID] = (),
    links: Sequence[tuple[str, str]] = (),
) -> Proposal:
    """Keep the reply as the conversation's open proposal and return it. The conversation needs a person from then on.

    inbound_sequence: the number of the newest message that it answers
    """
    outdate(conversation, now)
    proposal = Proposal.objects.create(
        conversation=conversation,
        text=text,
        metadata=dict(metadata),
        files=[str(pk) for pk in files],
        links=[list(each) for each in links],
        inbound_sequence=inbound_sequence,
        turn_id=turn_id,
        created_at=now,
    )
    conversation.needs_staff_reason = conversation.needs_staff_reason if conversation.needs_staff_since else APPROVAL
    conversation.needs_staff_since = conversation.needs_staff_since or now
    record(conversation, "reply_proposed", assistant_actor(conversation.assistant), proposal=proposal.pk)
    return proposal


def open_proposal(conversation: Conversation) -> Proposal | None:
    """Return the proposal that waits in the conversation, also one that is out of date; None if there is none."""
    return Proposal.objects.filter(conversation=conversation, state=S.OPEN).first()


def is_current(conversation: Conversation, proposal: Proposal) -> bool:
    """Return whether the proposal answers the person's newest message, in a conversation that is open."""
    return conversation.is_open and proposal.inbound_sequence == conversation.inbound_sequence


def outdate(conversation: Conversation, now: datetime) -> None:
    """End the open proposal because the person wrote again and something newer is there."""
    Proposal.objects.filter(conversation=conversation, state=S.OPEN).update(state=S.OUTDATED, decided_at=now)


def end_outdated(conversation: Conversation, now: datetime) -> None:
    """End the open proposal, and the wait for its approval: the assistant has answered without a colleague."""
    if conversation.needs_staff_since:
        outdate(conversation, now)
        note_decided(conversation)


def let_end(conversation: Conversation) -> None:
    """Note that the conversation is over once its open proposal is sent."""
    Proposal.objects.filter(conversation=conversation, state=S.OPEN).update(ends=True)


def discard_open(conversation: Conversation, actor: Actor, now: datetime) -> None:
    """Discard the open proposal, if there is one: a person answers in its place."""
    waiting = Proposal.objects.filter(conversation=conversation, state=S.OPEN)
    decided = {"decided_at": now, "decided_by_id": actor.user_id, "decided_by_name": actor.name[:150]}
    if waiting.update(state=S.DISCARDED, **decided):
        note_decided(conversation)
        record(conversation, "proposal_discarded", actor, cause=gettext_noop("a person answers"))


def note_decided(conversation: Conversation) -> None:
    """Note that the conversation does not wait for an approval any more. It may need a person for another reason."""
    if conversation.needs_staff_reason == APPROVAL:
        conversation.needs_staff_since, conversation.needs_staff_reason = None, ""
