"""What a turn keeps of its prompt: the messages as the model got them, and an account of their parts.

{"messages": [{"role", "content"}…],
 "parts": [{"name", "tokens", "note", "message", "start", "end", "position"}…],     as memory.context.Part
 "summary": {"version", "upto"}, "request": {"model", "temperature", "max_tokens", "tools", "budget"}}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from conversations.engines.contract import EngineError, PendingStep, Reply, ReplyRequest
from conversations.engines.registry import ask
from conversations.models import Assistant, Turn
from conversations.services.core import redaction
from conversations.services.core.errors import ConflictError
from memory.context import STAFF_MARK, STAFF_RULE, Prompt
from memory.redaction import REDACTED as REDACTED

# A shorter text is only removed where it stands alone: "ok" is part of many words.
TELLING = 4
# A prompt shortens long entries in their middle: this much of the beginning or end gives one away.
ENDS = 40
TRIES_SHOWN = 20
STEP_SHOWN = re.compile(r"^- (.*) \[step (\d{1,18})\]$", re.MULTILINE)  # as services/answering/context.py writes it


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


# --- looking at it ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ShownPart:
    """One part of a kept prompt, with its text. `role` is the message's; `position` that of the entry, 0 for others."""

    name: str
    role: str
    tokens: int
    note: str
    text: str
    position: int


def parts_of(turn: Turn) -> list[ShownPart]:
    """What the model was given for the turn, part by part in its order, and what was left out, with no text."""
    prompt = turn.prompt or {}
    messages = prompt.get("messages", [])
    shown = []
    for part in prompt.get("parts", []):
        index = part.get("message", -1)
        message = messages[index] if 0 <= index < len(messages) else {}
        text = str(message.get("content", ""))[part.get("start", 0) : part.get("end", 0)]
        shown.append(
            ShownPart(
                part["name"], message.get("role", ""), part["tokens"], part["note"], text, part.get("position", 0)
            )
        )
    return shown


def tries_of(turn: Turn) -> list[Turn]:
    """All the turns that it took to write this reply, oldest first, this one last."""
    before = Turn.objects.filter(conversation=turn.conversation_id, started_at__lt=turn.started_at)
    last = before.filter(status=Turn.Status.COMMITTED).order_by("-started_at").values_list("started_at", flat=True)
    since = last.first()
    tries = before.filter(started_at__gt=since) if since else before
    return [*tries.defer("prompt", "draft").order_by("-started_at")[:TRIES_SHOWN][::-1], turn]


# --- running it again ------------------------------------------------------------------------------------------------
RETELL = Assistant.EngineName.RETELL


def can_run_again(turn: Turn) -> bool:
    """Whether its engine was given all there was: Retell has a conversation and a prompt of its own."""
    return turn.engine != RETELL


def run_again(turn: Turn, *, current_prompt: bool, model: str = "") -> Reply:
    """What the model says to the turn's prompt today. Nothing is sent, and nothing is kept.

    current_prompt: with the assistant's system prompt as it is now, in the place of the one of then
    model: '' for the one that was asked then

    What it would do with tools is in the reply, and is not done. Raises ConflictError: `kept_elsewhere` (see
    can_run_again), or the engine's word, where nothing came of it. Not to be called in a transaction.
    """
    if not can_run_again(turn):
        raise ConflictError("Retell keeps this conversation: it cannot be run again here.", code="kept_elsewhere")
    kept = turn.prompt or {}
    asked = kept.get("request", {})
    messages = _with_current(turn) if current_prompt else list(kept.get("messages", []))
    request = ReplyRequest(
        conversation_id=str(turn.conversation_id),
        prompt=Prompt(tuple(messages), ()),
        goal=turn.conversation.goal,
        model=model or asked.get("model", ""),
        temperature=asked.get("temperature"),
        max_tokens=asked.get("max_tokens"),
        steps=tuple(_steps_shown(turn)),
        tools=bool(asked.get("tools")),
    )
    reply = ask("auto", request)
    if isinstance(reply, EngineError):
        raise ConflictError(f"The model gave no reply: {reply}", code=reply.code)
    return redaction.clean_reply(redaction.rules_of(turn.conversation.client), reply)


def _steps_shown(turn: Turn) -> Iterator[PendingStep]:
    """The steps that the model could move, by the numbers that its prompt gave them."""
    for part in parts_of(turn):
        if part.name in ("steps", "own_steps"):
            for words, number in STEP_SHOWN.findall(part.text):
                yield PendingStep(int(number), words)


def _with_current(turn: Turn) -> list[dict[str, str]]:
    """The kept messages, with the assistant's system prompt as it is now."""
    kept = turn.prompt or {}
    messages = [{**message} for message in kept.get("messages", [])]
    assistant = turn.conversation.assistant
    for part in kept.get("parts", []):
        if assistant and part["name"] == "system" and 0 <= part.get("message", -1) < len(messages):
            content = messages[part["message"]]["content"]
            told_then = content[part["start"] : part["end"]]
            rule = f"\n\n{STAFF_RULE}" if told_then.endswith(STAFF_RULE) else ""
            messages[part["message"]]["content"] = (
                content[: part["start"]] + assistant.system_prompt + rule + content[part["end"] :]
            )
    return messages
