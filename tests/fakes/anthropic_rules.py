"""The requests that Anthropic's Messages API refuses, with the sentences that public reports show.

Thinking blocks that were changed: anthropics/claude-code#26314. Results without their calls and calls without results:
anthropics/claude-code#13460 and #8210. Empty texts: #59812 and #23369. A last message of the assistant:
agenticloops-ai/agentic-ai-engineering#43. Temperature: RooCodeInc/Roo-Code#12162. Breakpoints of the cache:
tghamm/Anthropic.SDK#50. The API joins messages of one role in a row, so that it takes tool results in several messages;
the fake does not, since its documentation asks for all of them in one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FIELDS = {"model", "messages", "max_tokens", "system", "tools", "tool_choice", "thinking", "output_config", "stream"}
FIELDS |= {"temperature", "top_p", "top_k", "stop_sequences", "metadata", "service_tier", "cache_control"}
# The fields of each type of block, by role.
TEXT, IMAGE = {"type", "text", "cache_control", "citations"}, {"type", "source", "cache_control"}
BLOCKS: dict[str, dict[str, set[str]]] = {
    "user": {
        "text": TEXT,
        "image": IMAGE,
        "document": IMAGE | {"title", "context", "citations"},
        "tool_result": {"type", "tool_use_id", "content", "is_error", "cache_control"},
    },
    "assistant": {
        "text": TEXT,
        "thinking": {"type", "thinking", "signature"},
        "redacted_thinking": {"type", "data"},
        "tool_use": {"type", "id", "name", "input", "cache_control", "caller"},
    },
}
TOOL = {"type", "name", "description", "input_schema", "cache_control", "strict", "input_examples"}
TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
CHOICES = {"auto", "any", "tool", "none"}
EFFORTS = {"low", "medium", "high", "xhigh", "max"}
MOST_BREAKPOINTS = 4
LEAST_BUDGET = 1_024
CHANGED = "blocks in the latest assistant message cannot be modified. "
CHANGED += "These blocks must remain as they were in the original response."


@dataclass(frozen=True)
class Model:
    """A model of Anthropic's.

    adaptive    thinks by effort: refuses a budget of thinking, temperature, top_p and top_k
    window      the most tokens that a prompt may have
    most_out    the most that max_tokens may be
    cache_from  the tokens from which a prompt is cached
    retires_at  as the list of models says it; None if no date is set
    """

    adaptive: bool = False
    window: int = 200_000
    most_out: int = 64_000
    cache_from: int = 1_024
    retires_at: str | None = None


@dataclass
class Memory:
    """The thinking that the server gave: each block by its signature or data, and those of each message by the id of
    each of its tool calls."""

    blocks: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    of_call: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)


def problem_with(body: Mapping[str, Any], model: Model, memory: Memory) -> str:
    """Return what Anthropic would refuse in the request's JSON; '' if nothing."""
    return (
        _problem_with_numbers(body, model)
        or _problem_with_system(body)
        or _problem_with_tools(body)
        or _problem_with_thinking(body, model)
        or _problem_with_messages(body["messages"])
        or _problem_with_pairs(body["messages"])
        or _problem_with_given_thinking(body, memory)
        or _problem_with_breakpoints(body)
    )


def problem_with_fields(body: Mapping[str, Any]) -> str:
    """Return what is missing or unknown; '' if nothing."""
    for name in ("model", "max_tokens", "messages"):
        if name not in body:
            return f"{name}: Field required"
    if unknown := sorted(set(body) - FIELDS):
        return f"{unknown[0]}: Extra inputs are not permitted"
    if not isinstance(body["messages"], list) or not body["messages"]:
        return "messages: at least one message is required"
    return ""


def blocks_of(content: Any) -> list[Any]:
    """Return a message's content as blocks."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content or ())


def thinks(body: Mapping[str, Any]) -> bool:
    """Return whether the request lets the model think."""
    return (body.get("thinking") or {}).get("type", "disabled") in {"enabled", "adaptive"}


def _problem_with_numbers(body: Mapping[str, Any], model: Model) -> str:
    most = body["max_tokens"]
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        return "max_tokens: Input should be a valid integer, greater than or equal to 0"
    if most > model.most_out:
        limit = f"{most} > {model.most_out}, which is the maximum allowed number of output tokens"
        return f"max_tokens: {limit} for {body['model']}"
    for name in ("temperature", "top_p", "top_k"):
        if name in body and model.adaptive:
            return f"`{name}` is deprecated for this model."
    heat = body.get("temperature", 1)
    if isinstance(heat, bool) or not isinstance(heat, int | float) or not 0 <= heat <= 1:
        return "temperature: Input should be less than or equal to 1"
    if heat != 1 and thinks(body):
        return "`temperature` may only be set to 1 when thinking is enabled."
    if "temperature" in body and "top_p" in body:
        return "`temperature` and `top_p` cannot both be specified for this model. Please use only one."
    return ""


def _problem_with_system(body: Mapping[str, Any]) -> str:
    system = body.get("system", "")
    if isinstance(system, str):
        return ""
    if not isinstance(system, list):
        return "system: Input should be a valid list"
    for index, block in enumerate(system):
        if not isinstance(block, dict) or block.get("type") != "text":
            return f"system.{index}.type: Input should be 'text'"
        if unknown := sorted(set(block) - TEXT):
            return f"system.{index}.{unknown[0]}: Extra inputs are not permitted"
        if not block.get("text"):
            return "system: text content blocks must be non-empty"
    return ""


def _problem_with_tools(body: Mapping[str, Any]) -> str:
    names = []
    for index, tool in enumerate(body.get("tools") or ()):
        place = f"tools.{index}.custom"
        for name in ("name", "input_schema"):
            if not tool.get(name):
                return f"{place}.{name}: Field required"
        if unknown := sorted(set(tool) - TOOL):
            return f"{place}.{unknown[0]}: Extra inputs are not permitted"
        if not TOOL_NAME.fullmatch(tool["name"]):
            return f"{place}.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'"
        if tool["input_schema"].get("type") != "object":
            return f"{place}.input_schema.type: Input should be 'object'"
        names.append(tool["name"])
    if len(names) > len(set(names)):
        return "tools: Tool names must be unique."
    return _problem_with_choice(body)


def _problem_with_choice(body: Mapping[str, Any]) -> str:
    used = any(
        isinstance(block, dict) and block.get("type") in {"tool_use", "tool_result"}
        for message in body["messages"]
        for block in blocks_of(message.get("content"))
    )
    if used and not body.get("tools"):
        return "Requests which have `tool_use` or `tool_result` blocks in messages must define tools."
    choice = body.get("tool_choice")
    if choice is None:
        return ""
    if not isinstance(choice, dict) or choice.get("type") not in CHOICES:
        return "tool_choice: Input should be a valid dictionary or object to extract fields from"
    if not body.get("tools"):
        return "tool_choice: may only be specified while providing tools"
    if choice["type"] in {"any", "tool"} and thinks(body):
        return "Thinking may not be enabled when tool_choice forces tool use."
    return ""


def _problem_with_thinking(body: Mapping[str, Any], model: Model) -> str:
    effort = (body.get("output_config") or {}).get("effort")
    if effort is not None and not model.adaptive:
        return "This model does not support the effort parameter."
    if effort is not None and effort not in EFFORTS:
        return "output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'"
    thinking = body.get("thinking") or {}
    if thinking.get("type") == "adaptive" and not model.adaptive:
        return "adaptive thinking is not supported on this model"
    if thinking.get("type") != "enabled":
        return ""
    if model.adaptive:
        sentence = '"thinking.type.enabled" is not supported for this model. '
        return sentence + 'Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
    budget = thinking.get("budget_tokens", 0)
    if budget < LEAST_BUDGET:
        return f"thinking.enabled.budget_tokens: Input should be greater than or equal to {LEAST_BUDGET}"
    if budget >= body["max_tokens"]:
        return "`max_tokens` must be greater than `thinking.budget_tokens`."
    return ""


def _problem_with_messages(messages: Sequence[Any]) -> str:
    for index, message in enumerate(messages):
        if message.get("role") == "system":
            sentence = 'messages: Unexpected role "system". The Messages API accepts a top-level `system` parameter, '
            return sentence + 'not "system" as an input message role.'
        if message.get("role") not in BLOCKS:
            return f"messages.{index}.role: Input should be 'user' or 'assistant'"
        if unknown := sorted(set(message) - {"role", "content"}):
            return f"messages.{index}.{unknown[0]}: Extra inputs are not permitted"
        if wrong := _problem_with_blocks(message, index):
            return wrong
    if messages[0]["role"] != "user":
        return 'messages: first message must use the "user" role'
    if messages[-1]["role"] != "user":
        sentence = "This model does not support assistant message prefill. "
        return sentence + "The conversation must end with a user message."
    return ""


def _problem_with_blocks(message: Mapping[str, Any], index: int) -> str:
    blocks = blocks_of(message.get("content"))
    if not blocks:
        return f"messages.{index}: all messages must have non-empty content"
    for number, block in enumerate(blocks):
        place, known = f"messages.{index}.content.{number}", BLOCKS[message["role"]]
        if not isinstance(block, dict) or block.get("type") not in known:
            return f"{place}: Input tag does not match any of the expected tags: {', '.join(sorted(known))}"
        if unknown := sorted(set(block) - known[block["type"]]):
            return f"{place}.{block['type']}.{unknown[0]}: Extra inputs are not permitted"
        if block["type"] == "text" and not block.get("text"):
            return "messages: text content blocks must be non-empty"
        if block["type"] == "text" and not block["text"].strip():
            return "messages: text content blocks must contain non-whitespace text"
        if block["type"] == "tool_use" and not isinstance(block.get("input"), dict):
            return f"{place}.tool_use.input: Input should be a valid dictionary"
    return ""


def _problem_with_pairs(messages: Sequence[Any]) -> str:
    for index, message in enumerate(messages):
        called = _ids(messages[index - 1], "tool_use", "id") if index else []
        answered = _ids(message, "tool_result", "tool_use_id")
        for number, name in enumerate(answered):
            if name not in called or message["role"] != "user":
                sentence = f"messages.{index}.content.{number}: unexpected `tool_use_id` found in `tool_result` "
                sentence += f"blocks: {name}. Each `tool_result` block must have a corresponding `tool_use` block "
                return sentence + "in the previous message."
        if len(answered) > len(set(answered)):
            return f"messages.{index}: each tool_use must have a single result."
        first = [block["type"] for block in blocks_of(message["content"])][: len(called)]
        lacking = [name for name in called if name not in answered] or (called if set(first) - {"tool_result"} else [])
        if lacking:
            sentence = f"messages.{index - 1}: `tool_use` ids were found without `tool_result` blocks immediately "
            sentence += f"after: {', '.join(lacking)}. Each `tool_use` block must have a corresponding `tool_result` "
            return sentence + "block in the next message."
    return ""


def _ids(message: Mapping[str, Any], kind: str, name: str) -> list[str]:
    return [block[name] for block in blocks_of(message["content"]) if block["type"] == kind]


def _problem_with_given_thinking(body: Mapping[str, Any], memory: Memory) -> str:
    if not thinks(body):
        return ""
    for index, message in enumerate(body["messages"]):
        blocks = blocks_of(message["content"])
        given = [block for block in blocks if block["type"] in {"thinking", "redacted_thinking"}]
        for block in given:
            kept = memory.blocks.get(block.get("signature") or block.get("data") or "")
            place = f"messages.{index}.content.{blocks.index(block)}"
            if kept is None:
                return f"{place}: Invalid `signature` in `thinking` block"
            if kept != block:
                return f"{place}: `thinking` or `redacted_thinking` {CHANGED}"
        called = _ids(message, "tool_use", "id")
        expected = memory.of_call.get(called[0], []) if called else []
        if expected and not given:
            sentence = f"messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, "
            sentence += (
                f"but found `{blocks[0]['type']}`. When `thinking` is enabled, a final `assistant` message must "
            )
            return sentence + "start with a thinking block."
        if expected and given != expected:
            return f"messages.{index}.content.0: `thinking` or `redacted_thinking` {CHANGED}"
    return ""


def breakable(body: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Give every block of the prompt that can end a cached part, in the order in which the model reads them."""
    yield from (("tool", tool) for tool in body.get("tools") or ())
    yield from (("system", block) for block in blocks_of(body.get("system") or []))
    for message in body["messages"]:
        yield from ((message["role"], block) for block in blocks_of(message["content"]))


def _problem_with_breakpoints(body: Mapping[str, Any]) -> str:
    found = sum(bool(block.get("cache_control")) for _, block in breakable(body)) + bool(body.get("cache_control"))
    if found > MOST_BREAKPOINTS:
        return f"A maximum of 4 blocks with cache_control may be provided. Found {found}."
    return ""
