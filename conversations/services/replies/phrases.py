"""Phrases of the assistant that people use to ask for a person or to say goodbye."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from django.db.models import Max

from conversations.models import Assistant, Conversation, Role, corrected_text
from conversations.services.core.appending import SPOKEN_BY_PEOPLE

HUMAN = "human"
GOODBYE = "goodbye"
MOST_MESSAGES = 50  # of more unanswered messages, the newest are read
_WORDS = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # noqa: RUF001 - as people type it


def rule_for(assistant: Assistant, messages: Sequence[str]) -> str:
    """Return the rule that these messages, oldest first, meet: HUMAN, GOODBYE, or ''.

    A phrase that asks for a person counts anywhere in any of the messages. A phrase that says goodbye counts only where
    the last message says nothing else.
    """
    texts = [_plain(text) for text in messages]
    wanted = [_plain(phrase) for phrase in assistant.human_phrases.splitlines()]
    if any(phrase and f" {phrase} " in f" {text} " for phrase in wanted for text in texts):
        return HUMAN
    farewells = {_plain(phrase) for phrase in assistant.goodbye_phrases.splitlines()} - {""}
    return GOODBYE if texts and texts[-1] in farewells else ""


def unanswered(conversation: Conversation) -> list[str]:
    """Return the texts of the person's messages since the last answer, oldest first, MOST_MESSAGES at most.

    Messages from before a hand-back are left out: a colleague has seen them.
    """
    answered = conversation.chunks.filter(role=Role.AI).aggregate(last=Max("position"))["last"] or 0
    chunks = conversation.chunks.filter(role__in=SPOKEN_BY_PEOPLE, position__gt=answered)
    if conversation.handed_back_at:
        chunks = chunks.filter(created_at__gt=conversation.handed_back_at)
    newest = (
        chunks.annotate(words=corrected_text(conversation.client_id))
        .order_by("-position")
        .values_list("words", flat=True)
    )
    return list(newest[:MOST_MESSAGES])[::-1]


def _plain(text: str) -> str:
    """Return the words alone in lower case: "¿Hablar con un HUMANO?" becomes "hablar con un humano"."""
    return " ".join(_WORDS.findall(unicodedata.normalize("NFKC", text).casefold()))
