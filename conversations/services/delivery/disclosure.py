"""Disclosure: the assistant's sentence that says it is a machine goes before its first words in a conversation.

It is a part of these words, so that no channel can deliver them without it: in the same message, in the same template.
The ledger says when and in which chunk it was said. If that never arrived, the next words say it again. The EU requires
it of those who deploy an assistant since 2 August 2026 (Regulation 2024/1689, article 50).
"""

from __future__ import annotations

from typing import Any

from conversations.models import Chunk, Conversation, Message
from conversations.services.core.ledger import assistant_actor, record

DISCLOSURE = "disclosure"  # in a chunk's metadata: the sentence with which it begins
S = Message.Status


def due(conversation: Conversation) -> str:
    """Return the sentence that goes before the assistant's next words in the locked conversation, '' if none does."""
    sentence = conversation.assistant.disclosure.strip() if conversation.assistant else ""
    if not sentence or conversation.disclosed_in is None:
        return sentence
    lost = Message.objects.filter(client=conversation.client_id, chunk=conversation.disclosed_in)
    lost = lost.filter(status__in=[S.FAILED, S.CANCELLED])
    return sentence if lost.exists() else ""


def before(text: str, sentence: str) -> str:
    """Return the text with the sentence before it, as a paragraph of its own."""
    return f"{sentence}\n\n{text}" if sentence else text


def metadata(sentence: str) -> dict[str, Any]:
    """Return the metadata of the chunk that begins with the sentence."""
    return {DISCLOSURE: sentence} if sentence else {}


def note(conversation: Conversation, chunk: Chunk, sentence: str) -> None:
    """Note on the locked conversation, and in the ledger, that the chunk says the sentence, if there is one.

    Call it within `locking.saving`.
    """
    if sentence:
        conversation.disclosed_in = chunk.pk
        actor = assistant_actor(conversation.assistant)
        said: dict[str, Any] = {"sentence": sentence, "chunk_id": chunk.pk, "position": chunk.position}
        record(conversation, "disclosed", actor, cause=sentence[:200], **said)
