"""Semantic recall: find earlier conversations that fit the person's first message, once, before the first reply.

    dispatcher: claim ─► recall_query (rows) ─► ask_network (waits, bounded) ─► store_recalled (rows) ─► the reply

It is done if the client has turned it on, and comes beside the summaries with which a conversation opens
(core/opening.py). The result goes into the conversation's memory chunk, with its sources. After that global memory is
not asked again. Staff may correct that chunk; the correction counts in this conversation and in later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q

from conversations.models import Chunk, Contact, Conversation, Correction, Role, corrected_text
from conversations.services.core import redaction
from conversations.services.core.appending import SPOKEN_BY_PEOPLE
from conversations.services.core.ledger import SYSTEM, Actor, record
from conversations.services.core.locking import editing_if_there
from conversations.services.core.opening import NOTHING_KNOWN
from memory import recall
from memory.language_models import choosing
from memory.language_models.choosing import Purpose
from memory.language_models.contract import ModelAccess
from memory.recall import NearestVectors, RecalledConversation
from memory.text import one_line
from memory.words import QUERY_CHARACTERS

RECALLED = "recalled"  # in the chunk's metadata: the conversations, why, from which store, how well they fit
PROBLEM = "recall_problem"
RECALLED_HEADING = "Earlier sessions that seem to be about what the person writes now:"
SUMMARY_CHARACTERS = 300

# In SQL: whether earlier conversations are to be recalled for conversation s now. This is so once, before the person's
# first message is answered. A guest has no earlier conversations. `{client}` is its client's id, a value: Citus does
# not derive it within sub-selects.
RECALLS = """CASE WHEN s.recalled_at IS NULL AND s.inbound_sequence > 0 AND NOT s.is_guest
        AND (SELECT c.semantic_recall FROM clients c WHERE c.id = {client})
    THEN NOT EXISTS (
        SELECT FROM conversation_chunks a
        WHERE a.client_id = {client} AND a.conversation_id = s.id AND a.role = 'ai' AND a.position > (
            SELECT min(u.position) FROM conversation_chunks u
            WHERE u.client_id = {client} AND u.conversation_id = s.id AND u.role IN ('user', 'voice')))
    ELSE false END"""


@dataclass(frozen=True, slots=True)
class RecallQuery:
    """A search for what the contact said about `text` in conversations that began at `since` or later."""

    conversation_id: UUID
    client_id: UUID
    contact_id: UUID
    text: str
    since: datetime | None
    embedder: ModelAccess | None = None

    def ask_network(self) -> NearestVectors | None:
        """Return the passages nearest in meaning, within RECALL_SECONDS. Touches no row and never raises."""
        return recall.find_nearest(self.client_id, self.contact_id, self.text, settings.RECALL_SECONDS, self.embedder)


def recall_query(client_id: UUID, conversation_id: UUID) -> RecallQuery | None:
    """Return the search for what the person has written so far; None if they have written nothing."""
    theirs = Conversation.objects.select_related("client", "contact").filter(client_id=client_id)
    conversation = theirs.filter(pk=conversation_id).first()
    if conversation is None:
        return None
    said = Chunk.objects.filter(conversation=conversation, role__in=SPOKEN_BY_PEOPLE).order_by("position")
    words = said.annotate(words=corrected_text(client_id)).values_list("words", flat=True)[:10]
    text = "\n".join(words)[:QUERY_CHARACTERS]
    text = redaction.rules_of(conversation.client).clean(text)
    if not text.strip():
        return None
    since = conversation.contact.known_until
    embedder = choosing.access_for(conversation.client_id, Purpose.EMBEDDINGS)
    return RecallQuery(conversation.pk, conversation.client_id, conversation.contact_id, text, since, embedder)


def store_recalled(question: RecallQuery, near: NearestVectors | None, now: datetime) -> int:
    """Add what was found to the conversation's memory chunk, once, and return how many conversations were recalled.

    A chunk that staff have corrected stays as it is.
    """
    # Before the lock: it reads global memory, and nobody needs to wait for that.
    found = recall.recall(question.client_id, question.contact_id, question.text, near, question.since)
    with editing_if_there(question.conversation_id, question.client_id) as conversation:
        if conversation is None or conversation.recalled_at or not conversation.is_open:
            return 0
        conversation.recalled_at = now
        chunk = Chunk.objects.filter(conversation=conversation, position=2, role=Role.MEMORY).first()
        if chunk is None or Correction.objects.filter(chunk=chunk).exists():
            return 0
        _add(conversation, chunk, found, near.problem if near else "")
        if found:
            record(conversation, "recalled", SYSTEM, cause=f"{len(found)} by what the person writes")
    return len(found)


def _add(conversation: Conversation, chunk: Chunk, found: Sequence[RecalledConversation], problem: str) -> None:
    told = chunk.metadata.get(RECALLED, [])
    if found:
        known = {each["session"] for each in told}
        lines = [_line(each, already=str(each.conversation_id) in known) for each in found]
        before = "" if chunk.content == NOTHING_KNOWN else f"{chunk.content}\n\n"
        text = "\n".join([f"{before}{RECALLED_HEADING}", *lines])
        chunk.content = redaction.rules_of(conversation.client).clean(text)
    chunk.metadata = {**chunk.metadata, RECALLED: [*told, *map(_reason, found)]}
    if problem:
        chunk.metadata[PROBLEM] = problem
    chunk.save(update_fields=["content", "metadata"])


def _line(each: RecalledConversation, *, already: bool) -> str:
    summary = "" if already else one_line(each.summary, SUMMARY_CHARACTERS)
    quoted = "" if each.position is None and summary else f"“{one_line(each.text, SUMMARY_CHARACTERS)}”"
    return f"- {each.started_at:%Y-%m-%d}: {' '.join(part for part in (summary, quoted) if part)}"


def _reason(each: RecalledConversation) -> dict[str, Any]:
    return {
        "session": str(each.conversation_id),
        "on": f"{each.started_at:%Y-%m-%d}",
        "why": "by meaning" if each.store == "pinecone" else "by its words",
        "store": each.store,
        "score": each.score,
        "position": each.position,
    }


# --- corrections by staff ---------------------------------------------------------------------------------------------
def store_correction(conversation: Conversation, text: str, actor: Actor, now: datetime) -> None:
    """Store the staff's correction of this conversation's memory chunk, with which later conversations open.

    A correction made in a newer conversation stays in force.
    """
    theirs = Contact.objects.filter(client=conversation.client_id, pk=conversation.contact_id)
    not_older = Q(known_until=None) | Q(known_until__lte=conversation.started_at)
    theirs.filter(not_older).update(
        known=text,
        known_until=conversation.started_at,
        known_in=conversation.pk,
        known_by=actor.name[:150],
        known_at=now,
    )


def delete_correction(conversation: Conversation) -> None:
    """Delete the staff's correction of this conversation's memory chunk; later conversations do not open with it."""
    theirs = Contact.objects.filter(client=conversation.client_id, pk=conversation.contact_id)
    theirs.filter(known_in=conversation.pk).update(
        known="", known_until=None, known_in=None, known_by="", known_at=None
    )
