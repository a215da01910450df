"""Reads the messages that a model was given as the conversation's entries again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from memory.context import BACKGROUND_NOTE, CONTINUED, GAP, NOTHING_SAID, PERSON_MARK, UNANSWERED

STAND_INS = (CONTINUED, UNANSWERED, NOTHING_SAID)


def heard(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the person's entries, oldest first. An entry of several paragraphs counts as several."""
    texts = [str(message["content"]) for message in messages if message["role"] == "user"]
    theirs = [text.rpartition(PERSON_MARK)[2] for text in texts if PERSON_MARK in text or BACKGROUND_NOTE not in text]
    return [entry for text in theirs for entry in text.split(GAP) if entry not in STAND_INS]


def spoken(messages: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the assistant's entries with their marks, oldest first."""
    texts = [str(message["content"] or "") for message in messages if message["role"] == "assistant"]
    return [entry for text in texts for entry in text.split(GAP)]
