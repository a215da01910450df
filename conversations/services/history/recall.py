"""What a session is told of earlier ones, beside what it begins with (session/opening.py): once, with the person's
first message, before the first reply, where the client wants that.

    dispatcher: claim ─► question_of (rows) ─► ask_network (waits, bounded) ─► keep (rows) ─► the reply

It goes into the session's memory chunk with where it came from. From then on global memory is left alone. What staff
make of that chunk counts in this session and in later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q

from conversations.models import Chunk, Contact, Conversation, Correction, Role
from conversations.services.core import redaction
from conversations.services.core.appending import SPOKEN_BY_PEOPLE
from conversations.services.core.ledger import SYSTEM, Actor, record
from conversations.services.core.locking import editing_if_there
from conversations.services.core.opening import NOTHING_KNOWN
from memory import recall
from memory.recall import NearestVectors, RecalledConversation
from memory.text import one_line
from memory.words import QUERY_CHARACTERS

RECALLED = "recalled"  # in the chunk's metadata: what, why, from which store, how well it fits
PROBLEM = "recall_problem"
ON_THE_SAME = "Earlier sessions that seem to be about what the person writes now:"
SUMMARY_CHARACTERS = 300

# In SQL: whether session s is to be told of earlier ones now. Until somebody has answered what the person wrote, and
# never again, it is being opened. A guest has no earlier sessions.
RECALLS = """CASE WHEN s.recalled_at IS NULL AND s.inbound_sequence > 0 AND NOT s.is_guest
        AND (SELECT c.semantic_recall FROM clients c WHERE c.id = s.client_id)
    THEN NOT EXISTS (
        SELECT FROM conversation_chunks a WHERE a.conversation_id = s.id AND a.role = 'ai' AND a.position > (
            SELECT min(u.position) FROM conversation_chunks u
            WHERE u.conversation_id = s.id AND u.role IN ('user', 'voice')))
    ELSE false END"""


@dataclass(frozen=True, slots=True)
class RecallQuery:
    """What is looked for: whatever the contact said about `text` in sessions that began at `since` or later."""

    conversation_id: UUID
    client_id: UUID
    contact_id: UUID
    text: str
    since: datetime | None

    def ask_network(self) -> NearestVectors | None:
        """What is near in meaning, within RECALL_SECONDS. Touches no row, and never raises."""
        return recall.find_nearest(self.client_id, self.contact_id, self.text, settings.RECALL_SECONDS)


def question_of(conversation_id: UUID) -> RecallQuery | None:
    """What the person wants, in their own words; None where they said nothing yet."""
    conversation = Conversation.objects.select_related("client", "contact").filter(pk=conversation_id).first()
    if conversation is None:
        return None
    theirs = Chunk.objects.filter(conversation=conversation, role__in=SPOKEN_BY_PEOPLE).order_by("position")
    text = "\n".join(theirs.values_list("content", flat=True)[:10])[:QUERY_CHARACTERS]
    text = redaction.rules_of(conversation.client).clean(text)
    if not text.strip():
        return None
    since = conversation.contact.known_until
    return RecallQuery(conversation.pk, conversation.client_id, conversation.contact_id, text, since)


def keep(question: RecallQuery, near: NearestVectors | None, now: datetime) -> int:
    """What was found is in the session's memory chunk, once, unless staff said already what that should be. Returns how
    many sessions were recalled."""
    # Before the lock: it reads global memory, and nobody needs to wait for that.
    found = recall.recall(question.client_id, question.contact_id, question.text, near, question.since)
    with editing_if_there(question.conversation_id) as conversation:
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
        text = "\n".join([f"{before}{ON_THE_SAME}", *lines])
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


# --- what staff say ---------------------------------------------------------------------------------------------------
def keep_correction(conversation: Conversation, text: str, actor: Actor, now: datetime) -> None:
    """Later sessions begin with what staff made of this one's memory; a newer session's correction stands."""
    theirs = Contact.objects.filter(pk=conversation.contact_id)
    not_older = Q(known_until=None) | Q(known_until__lte=conversation.started_at)
    theirs.filter(not_older).update(
        known=text,
        known_until=conversation.started_at,
        known_in=conversation.pk,
        known_by=actor.name[:150],
        known_at=now,
    )


def forget_correction(conversation: Conversation) -> None:
    """What staff made of this session's memory is gone, from later sessions too."""
    Contact.objects.filter(pk=conversation.contact_id, known_in=conversation.pk).update(
        known="", known_until=None, known_in=None, known_by="", known_at=None
    )
