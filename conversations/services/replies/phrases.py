"""What people's own words call for, by the phrases of the assistant: a person, or the end of the session."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from django.db.models import Max

from conversations.models import Assistant, Conversation, Role, corrected_text
from conversations.services.core.appending import SPOKEN_BY_PEOPLE

HUMAN = "human"
GOODBYE = "goodbye"
BURST = 50  # of a longer one, the newest
_WORDS = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")  # noqa: RUF001 - as people type it


def met(conversation: Conversation) -> str:
    """Which rule the unanswered messages meet: HUMAN, GOODBYE, or ''. Nothing is read where there are no phrases."""
    assistant = conversation.assistant
    if not assistant or not assistant.has_phrases:
        return ""
    return rule_for(assistant, unanswered(conversation))


def rule_for(assistant: Assistant, said: Sequence[str]) -> str:
    """The same for these messages, oldest first: a phrase for a person counts wherever it is said, in any of them; one
    that says goodbye where the last message says nothing else."""
    heard = [_plain(text) for text in said]
    wanted = [_plain(phrase) for phrase in assistant.human_phrases.splitlines()]
    if any(phrase and f" {phrase} " in f" {words} " for phrase in wanted for words in heard):
        return HUMAN
    farewells = {_plain(phrase) for phrase in assistant.goodbye_phrases.splitlines()} - {""}
    return GOODBYE if heard and heard[-1] in farewells else ""


def unanswered(conversation: Conversation) -> list[str]:
    """What the person said since anybody last answered, oldest first; what a colleague saw before the hand-back is not
    asked for again."""
    answered = conversation.chunks.filter(role=Role.AI).aggregate(last=Max("position"))["last"] or 0
    said = conversation.chunks.filter(role__in=SPOKEN_BY_PEOPLE, position__gt=answered)
    if conversation.handed_back_at:
        said = said.filter(created_at__gt=conversation.handed_back_at)
    newest = said.annotate(words=corrected_text()).order_by("-position").values_list("words", flat=True)
    return list(newest[:BURST])[::-1]


def _plain(text: str) -> str:
    """The words alone, as everybody writes them: "¿Hablar con un HUMANO?" is "hablar con un humano"."""
    return " ".join(_WORDS.findall(unicodedata.normalize("NFKC", text).casefold()))
