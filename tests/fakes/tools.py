"""Tools and probabilities, as OpenAI's chat completions have them, for the fake."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

CHOICES = {"auto", "none", "required"}
# What a message may have, by role. An assistant's message may be given back as it came.
ALLOWED = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "tool": {"role", "content", "tool_call_id"},
    "assistant": {"role", "content", "name", "refusal", "tool_calls", "annotations", "audio", "function_call"},
}
CALL = {"id", "type", "function"}
PARTS = {"text", "image_url", "file", "refusal"}


def problem_with(body: Mapping[str, Any]) -> str:
    """Return what OpenAI would refuse in `tools` and `tool_choice`; '' if nothing."""
    for index, tool in enumerate(body.get("tools", [])):
        function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
        if not isinstance(function, dict) or not function.get("name"):
            return f"Invalid 'tools[{index}]'"
        if function.get("parameters", {}).get("type", "object") != "object":
            return f"Invalid schema for function '{function['name']}'"
    if "tools" in body and not body["tools"]:
        return "[] is too short - 'tools'"
    if "tool_choice" in body and (body["tool_choice"] not in CHOICES or "tools" not in body):
        return "'tool_choice' is only allowed when 'tools' are specified."
    return ""


def problem_with_message(messages: Sequence[Mapping[str, Any]], index: int) -> str:
    """Return what OpenAI would refuse in a message, which must fit those before it."""
    message = messages[index]
    called = {call.get("id") for each in messages[:index] for call in each.get("tool_calls") or ()}
    answered = {each.get("tool_call_id") for each in messages}
    unknown = sorted(set(message) - ALLOWED[message["role"]])
    if unknown:
        return f"Additional properties are not allowed ('{unknown[0]}' was unexpected) - 'messages.{index}'"
    if message["role"] == "tool" and message.get("tool_call_id") not in called:
        return "messages with role 'tool' must be a response to a preceding message with 'tool_calls'."
    if message.get("tool_calls"):
        if unknown := sorted({name for call in message["tool_calls"] for name in call} - CALL):
            return f"Unknown parameter: 'messages[{index}].tool_calls[0].{unknown[0]}'."
        if any(call.get("id") not in answered for call in message["tool_calls"]):
            return "An assistant message with 'tool_calls' must be followed by tool messages for each of them."
        return ""
    return problem_with_content(message.get("content"), index)


def problem_with_content(content: Any, index: int) -> str:
    """Return what OpenAI would refuse in a message's content, which is text or a list of parts."""
    if isinstance(content, str):
        return ""
    if not isinstance(content, list) or not content:
        return f"Invalid type for 'messages[{index}].content'"
    if any(not isinstance(part, dict) or part.get("type") not in PARTS for part in content):
        return f"Invalid value for 'messages[{index}].content'"
    return ""


def calls(wanted: Sequence[tuple[str, Any]], number: int) -> dict[str, Any]:
    """The tool calls of an answer, as part of its message."""
    made = [
        {
            "id": f"call_{number}_{index}",
            "type": "function",
            "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)},
        }
        for index, (name, given) in enumerate(wanted)
    ]
    return {"tool_calls": made} if made else {}


def probabilities(text: str, confidence: float, body: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of each word, all alike, where the request asks for them."""
    if not body.get("logprobs"):
        return None
    sure = {"logprob": math.log(confidence), "bytes": None, "top_logprobs": []}
    return {"content": [{"token": word, **sure} for word in text.split() or [""]]}
