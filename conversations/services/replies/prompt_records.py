"""The prompt that a turn keeps: the messages that the model got, and the list of their parts.

Here it is redacted, shown to staff, and run again.

{"messages": [{"role", "content"}…],
 "parts": [{"name", "tokens", "note", "message", "start", "end", "position", "mark"}…],     as memory.prompt.PromptPart
 "summary": {"version", "upto"}, "request": {"model", "temperature", "max_tokens", "tools", "budget"}}
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext

from channels_out.opt_out import OPT_OUT_CHANNELS
from conversations.engines.contract import EngineError, PendingStep, Reply, ReplyRequest
from conversations.engines.registry import ask
from conversations.models import Assistant, Turn
from conversations.services.core import redaction
from conversations.services.core.errors import ConflictError
from conversations.services.tenants import model_providers
from conversations.services.transitions import transfers
from memory.context import GAP, STAFF_RULE, Prompt, without_marks
from memory.notes import without_notes
from memory.redaction import REDACTED as REDACTED

# A shorter text is only removed where it stands alone: "ok" is part of many words.
SHORTEST_INSIDE = 4
# A prompt shortens long messages in their middle: so many characters of the beginning or the end identify one.
ENDS = 40
ATTEMPTS_SHOWN = 20
STEP_SHOWN = re.compile(r"^- (.*) \[step (\d{1,18})\]$", re.MULTILINE)  # as prompt_context.py writes it


# --- redaction -------------------------------------------------------------------------------------------------------
def redact_text(text: str, removed: Iterable[str]) -> str:
    """Return the text with every occurrence of the removed texts replaced by REDACTED."""
    for each in sorted(removed, key=len, reverse=True):
        if text == each:
            return REDACTED
        if len(each) >= SHORTEST_INSIDE:
            text = text.replace(each, REDACTED)
    return text


def redact_prompt(prompt: Any, texts: Iterable[str], position: int) -> Any:
    """Return a kept prompt without the message at `position`, a summary that includes it, and its `texts` elsewhere."""
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
            gap, of_entry = content[read : part["start"]], part["position"] == position
            clean += redact_text(without_notes(gap) if of_entry else gap, texts)
            if mark := part.get("mark"):
                part["mark"] = redact_text(without_notes(mark) if of_entry else mark, texts)
            text, read = content[part["start"] : part["end"]], part["end"]
            of_it = of_entry or (part["name"] == "summary" and position <= upto)
            part["start"] = len(clean)
            clean += REDACTED if of_it else _entry_without(text, texts)
            part["end"] = len(clean)
        message["content"] = clean + _entry_without(content[read:], texts)
    return {**prompt, "messages": messages, "parts": parts}


def _entry_without(content: str, texts: Iterable[str]) -> str:
    """Return a part of a prompt without the texts. The part is a message, perhaps shortened, or quotes one."""
    message = without_marks(content)
    for text in texts:
        shortened = len(text) > 2 * ENDS and (message.startswith(text[:ENDS]) or message.endswith(text[-ENDS:]))
        if message and (message == text or (shortened and text not in content)):
            return REDACTED
    return redact_text(content, texts)


# --- for staff -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class ShownPart:
    """One part of a kept prompt, with its text.

    role        the role of the prompt's message that has the part
    position    the position of the conversation's message that the part shows; 0 for other parts
    mark        what stood before the text: who wrote it, what became of it; '' in prompts of before
    """

    name: str
    role: str
    tokens: int
    note: str
    text: str
    position: int
    mark: str


def parts_shown(turn: Turn) -> list[ShownPart]:
    """Return the parts of the turn's prompt in their order; parts that were left out of it have no text."""
    prompt = turn.prompt or {}
    messages = prompt.get("messages", [])
    shown = []
    for part in prompt.get("parts", []):
        index = part.get("message", -1)
        message = messages[index] if 0 <= index < len(messages) else {}
        text = str(message.get("content", ""))[part.get("start", 0) : part.get("end", 0)]
        shown.append(
            ShownPart(
                name=part["name"],
                role=message.get("role", ""),
                tokens=part["tokens"],
                note=part["note"],
                text=text,
                position=part.get("position", 0),
                mark=part.get("mark", "").strip(),
            )
        )
    return shown


def attempts_of_reply(turn: Turn) -> list[Turn]:
    """Return all the turns that it took to write this reply, oldest first, this one last."""
    before = Turn.objects.filter(
        client=turn.client_id, conversation=turn.conversation_id, started_at__lt=turn.started_at
    )
    last = before.filter(status=Turn.Status.COMMITTED).order_by("-started_at").values_list("started_at", flat=True)
    since = last.first()
    tries = before.filter(started_at__gt=since) if since else before
    return [*tries.defer("prompt", "draft").order_by("-started_at")[:ATTEMPTS_SHOWN][::-1], turn]


# --- running a prompt again ------------------------------------------------------------------------------------------
KEPT_ELSEWHERE = (Assistant.EngineName.RETELL, Assistant.EngineName.AGENT)


def can_run_again(turn: Turn) -> bool:
    """Return whether the turn's prompt can be run again. Retell and a client's own agent have prompts of their own."""
    return turn.engine not in KEPT_ELSEWHERE


def run_again(turn: Turn, *, current_prompt: bool, model: str = "") -> Reply:
    """Return what the model replies to the turn's prompt now. Nothing is sent or stored, and no tool action is done.

    current_prompt: use the assistant's present system prompt instead of the kept one
    model: '' for the model that was asked then

    Raises ConflictError: `kept_elsewhere` (see can_run_again), or the engine's code if it gave no reply. Do not call
    it in a transaction: it waits for the network.
    """
    if not can_run_again(turn):
        raise ConflictError(
            gettext("The prompt of this reply is kept elsewhere: it cannot be run again here."), code="kept_elsewhere"
        )
    kept = turn.prompt or {}
    asked = kept.get("request", {})
    messages = _with_current_system_prompt(turn) if current_prompt else list(kept.get("messages", []))
    request = ReplyRequest(
        conversation_id=str(turn.conversation_id),
        prompt=Prompt(tuple(_joined(messages)), ()),
        goal=turn.conversation.goal,
        models=model_providers.accesses_of(turn.conversation.assistant, model=model or asked.get("model", "")),
        temperature=asked.get("temperature"),
        max_tokens=asked.get("max_tokens"),
        steps=tuple(_steps_shown(turn)),
        tools=bool(asked.get("tools")),
        may_transfer=bool(transfers.number_of(turn.conversation)),
        may_opt_out=turn.conversation.channel in OPT_OUT_CHANNELS,
    )
    reply = ask("auto", request)
    if isinstance(reply, EngineError):
        raise ConflictError(gettext("The model gave no reply: %(reply)s") % {"reply": reply}, code=reply.code)
    return redaction.clean_reply(redaction.rules_of(turn.conversation.client), reply)


def _joined(messages: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the messages with adjacent ones of one role joined, as prompts that were kept long ago have them."""
    joined: list[dict[str, str]] = []
    for message in messages:
        if joined and joined[-1]["role"] == message["role"]:
            joined[-1] = {**message, "content": f"{joined[-1]['content']}{GAP}{message['content']}"}
        else:
            joined.append(message)
    return joined


def _steps_shown(turn: Turn) -> Iterator[PendingStep]:
    """Yield the steps that the model could complete or cancel, by the numbers in its prompt."""
    for part in parts_shown(turn):
        if part.name in ("steps", "own_steps"):
            for words, number in STEP_SHOWN.findall(part.text):
                yield PendingStep(int(number), words)


def _with_current_system_prompt(turn: Turn) -> list[dict[str, str]]:
    kept = turn.prompt or {}
    messages = [{**message} for message in kept.get("messages", [])]
    assistant = turn.conversation.assistant
    for part in kept.get("parts", []):
        if assistant and part["name"] == "system" and 0 <= part.get("message", -1) < len(messages):
            content = messages[part["message"]]["content"]
            kept_then = content[part["start"] : part["end"]]
            # In prompts of before, the rule is the end of this part.
            rule = f"\n\n{STAFF_RULE}" if kept_then.endswith(STAFF_RULE) else ""
            messages[part["message"]]["content"] = (
                content[: part["start"]] + assistant.system_prompt + rule + content[part["end"] :]
            )
    return messages
