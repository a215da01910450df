"""What a turn keeps of its prompt: the messages as the model got them, and an account of their parts.

{"messages": [{"role", "content"}…],
 "parts": [{"name", "tokens", "note", "message", "start", "end", "position"}…],     as memory.context.Part
 "summary": {"version", "upto"}, "request": {"model", "temperature", "max_tokens"}}
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from django.conf import settings

from conversations.models import Assistant, Conversation
from conversations.services import summaries
from memory.context import STAFF_MARK, Prompt

REDACTED = "[redacted]"
# A shorter text is only removed where it stands alone: "ok" is part of many words.
TELLING = 4
# A prompt shortens long entries in their middle: this much of the beginning or end gives one away.
ENDS = 40
MILLION = Decimal(1_000_000)


def as_kept(conversation: Conversation, assistant: Assistant | None, prompt: Prompt) -> dict[str, Any]:
    """The prompt as its turn keeps it."""
    rolling = summaries.of(conversation)
    return {
        "messages": list(prompt.messages),
        "parts": [asdict(part) for part in prompt.parts],
        "summary": {"version": rolling.version if rolling else 0, "upto": rolling.upto if rolling else 0},
        "request": {
            "model": assistant.model if assistant else "",
            "temperature": assistant.temperature if assistant else None,
            "max_tokens": assistant.max_tokens if assistant else None,
        },
    }


def cost(model: str, tokens_in: int, tokens_out: int) -> Decimal | None:
    """US dollars for the tokens by MODEL_PRICES; None where that knows no price, or nothing was counted.

    A price goes for the models whose name begins like it, the longest first: `gpt-4o` for `gpt-4o-2024-08-06`.
    """
    prices: Mapping[str, tuple[str, str]] = settings.MODEL_PRICES
    name = max((name for name in prices if model.startswith(name)), key=len, default="")
    if not name or not (tokens_in or tokens_out):
        return None
    a_million_in, a_million_out = prices[name]
    return (Decimal(a_million_in) * tokens_in + Decimal(a_million_out) * tokens_out) / MILLION


# --- redaction -------------------------------------------------------------------------------------------------------
def without(text: str, gone: Iterable[str]) -> str:
    """The text with what is gone replaced, wherever it occurs."""
    for each in sorted(gone, key=len, reverse=True):
        if text == each:
            return REDACTED
        if len(each) >= TELLING:
            text = text.replace(each, REDACTED)
    return text


def prompt_without(prompt: Any, texts: Iterable[str], position: int) -> Any:
    """A kept prompt without the entry at `position`, without a summary that was made of it, and without its `texts`
    wherever else they occur."""
    if not isinstance(prompt, dict):
        return prompt
    texts = list(texts)
    upto = prompt.get("summary", {}).get("upto", 0)
    messages = [{**message} for message in prompt.get("messages", [])]
    parts = [{**part} for part in prompt.get("parts", [])]
    for index, message in enumerate(messages):
        content = str(message.get("content", ""))
        inside = sorted((part for part in parts if part.get("message", -1) == index), key=lambda part: part["start"])
        clean, read = "", 0
        for part in inside:
            clean += without(content[read : part["start"]], texts)
            text, read = content[part["start"] : part["end"]], part["end"]
            of_it = part["position"] == position or (part["name"] == "summary" and position <= upto)
            part["start"] = len(clean)
            clean += REDACTED if of_it else _entry_without(text, texts)
            part["end"] = len(clean)
        message["content"] = clean + _entry_without(content[read:], texts)
    return {**prompt, "messages": messages, "parts": parts}


def _entry_without(content: str, texts: Iterable[str]) -> str:
    """One part of a prompt: an entry, perhaps shortened, or something that quotes it."""
    said = content.removeprefix(STAFF_MARK)
    for text in texts:
        shortened = len(text) > 2 * ENDS and (said.startswith(text[:ENDS]) or said.endswith(text[-ENDS:]))
        if said and (said == text or (shortened and text not in content)):
            return REDACTED
    return without(content, texts)
