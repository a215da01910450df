"""The requests that OpenAI's Responses API refuses, with the errors that public reports show.

The pairs of reasoning and function_call items are of cline/cline#12242 and earendil-works/pi#886, items that are not
stored of vercel/ai#7543, calls without outputs of microsoft/vscode#320060 and tjardoo/openai-client#124, logprobs of
vllm-project/vllm#23319, encrypted content of pydantic/pydantic-ai#2865. OpenAI takes a function_call without its
reasoning item where the call's id is left out; the fake never does, since a reasoning model then starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.fakes.model_server import Refusal
from tests.fakes.openai_models import Model, effort_refusal, unsupported

FIELDS = {"model", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "max_output_tokens"}
FIELDS |= {"max_tool_calls", "temperature", "top_p", "top_logprobs", "reasoning", "text", "include", "store", "stream"}
FIELDS |= {"stream_options", "previous_response_id", "conversation", "metadata", "truncation", "user", "background"}
FIELDS |= {"prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "safety_identifier", "service_tier"}
INCLUDABLE = {"reasoning.encrypted_content", "message.output_text.logprobs", "message.input_image.image_url"}
REASONING = {"effort", "summary", "context", "mode"}
CHOICES = {"auto", "none", "required"}
LEAST_OUTPUT = 16
# The fields and the beginning of the id of each type of item.
ITEMS = {
    "message": ({"type", "role", "content", "id", "status", "phase"}, "msg"),
    "reasoning": ({"type", "id", "summary", "content", "encrypted_content", "status"}, "rs"),
    "function_call": ({"type", "id", "call_id", "name", "arguments", "status", "namespace"}, "fc"),
    "function_call_output": ({"type", "id", "call_id", "output", "status"}, "fc"),
    "item_reference": ({"type", "id"}, ""),
}
REQUIRED = {
    "message": ("role", "content"),
    "reasoning": ("id", "summary"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "item_reference": ("id",),
}
TOOL = {"type", "name", "description", "parameters", "strict"}
SPOKEN_PARTS = {"output_text", "refusal"}
ASKED_PARTS = {"input_text", "input_image", "input_file"}


@dataclass
class Memory:
    """The items that the server gave.

    stored          by id, if the request allowed it
    encrypted       the encrypted content of each reasoning item, by its id
    reasoning_of    the id of the reasoning item that came before a function call, by its call_id
    responses       the input and output of each stored response, by its id
    """

    stored: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    encrypted: dict[str, str] = field(default_factory=dict)
    reasoning_of: dict[str, str] = field(default_factory=dict)
    responses: dict[str, list[Mapping[str, Any]]] = field(default_factory=dict)


def items_of(body: Mapping[str, Any]) -> list[Any]:
    """Return the input as a list of items; those with a role have the type message."""
    given = body.get("input")
    if isinstance(given, str):
        return [{"type": "message", "role": "user", "content": given}]
    return [{"type": "message", **item} if isinstance(item, dict) else item for item in given or ()]


def request_refusal(body: Mapping[str, Any]) -> Refusal | None:
    """Return what is refused whatever the model is."""
    if unknown := sorted(set(body) - FIELDS):
        return _unknown(unknown[0])
    if not isinstance(body.get("model"), str) or not body["model"]:
        return _missing("model")
    if not isinstance(body.get("input"), str | list) or not body["input"]:
        return _missing("input")
    return _numbers_refusal(body) or _tools_refusal(body) or _options_refusal(body)


def model_refusal(body: Mapping[str, Any], model: Model) -> Refusal | None:
    """Return what the model does not take."""
    include, reasoning = body.get("include") or (), body.get("reasoning") or {}
    if not model.reasons:
        if reasoning:
            return unsupported(f"reasoning.{min(reasoning)}")
        if "reasoning.encrypted_content" in include:
            return Refusal("Encrypted content is not supported with this model.", param="include")
        return None
    for name in ("temperature", "top_p", "top_logprobs"):
        if body.get(name) is not None:
            return Refusal(f"Unsupported parameter: '{name}' is not supported with this model.", param=name)
    if "message.output_text.logprobs" in include:
        return unsupported("include", "logprobs are not supported with reasoning models.")
    effort = reasoning.get("effort")
    return effort_refusal("reasoning.effort", effort, model) if effort not in {None, *model.efforts} else None


def input_refusal(items: Sequence[Any], model: Model, memory: Memory) -> Refusal | None:
    """Return what is wrong with the items."""
    ids = [item["id"] for item in items if isinstance(item, dict) and item.get("id")]
    if twice := [name for name in ids if ids.count(name) > 1]:
        sentence = f"Duplicate item found with id {twice[0]}. Remove duplicate items from your input and try again."
        return Refusal(sentence, param="input")
    for index, item in enumerate(items):
        wrong = _shape_refusal(item, index) or _pair_refusal(items, index, model, memory)
        if wrong:
            return wrong
    return None


def _unknown(name: str) -> Refusal:
    return Refusal(f"Unknown parameter: '{name}'.", 400, "unknown_parameter", name)


def _missing(name: str) -> Refusal:
    return Refusal(f"Missing required parameter: '{name}'.", 400, "missing_required_parameter", name)


def _invalid(name: str, value: Any, values: set[str]) -> Refusal:
    known = ", ".join(f"'{each}'" for each in sorted(values))
    return Refusal(f"Invalid value: '{value}'. Supported values are: {known}.", 400, "invalid_value", name)


def _numbers_refusal(body: Mapping[str, Any]) -> Refusal | None:
    most = body.get("max_output_tokens")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int)):
        sentence = "Invalid type for 'max_output_tokens': expected an integer."
        return Refusal(sentence, 400, "invalid_type", "max_output_tokens")
    if most is not None and most < LEAST_OUTPUT:
        sentence = "Invalid 'max_output_tokens': integer below minimum value. "
        sentence += f"Expected a value >= {LEAST_OUTPUT}, but got {most} instead."
        return Refusal(sentence, 400, "integer_below_min_value", "max_output_tokens")
    heat = body.get("temperature")
    if heat is not None and (isinstance(heat, bool) or not isinstance(heat, int | float) or not 0 <= heat <= 2):
        return Refusal("Invalid 'temperature'.", 400, "decimal_above_max_value", "temperature")
    return None


def _tools_refusal(body: Mapping[str, Any]) -> Refusal | None:
    for index, tool in enumerate(body.get("tools") or ()):
        if not isinstance(tool, dict) or tool.get("type") != "function":
            return _invalid(f"tools[{index}].type", dict(tool).get("type"), {"function"})
        if not tool.get("name"):
            return _missing(f"tools[{index}].name")
        if unknown := sorted(set(tool) - TOOL):
            return _unknown(f"tools[{index}].{unknown[0]}")
        if wrong := _schema_problem(tool):
            sentence = f"Invalid schema for function '{tool['name']}': {wrong}"
            return Refusal(sentence, 400, "invalid_function_parameters", f"tools[{index}].parameters")
    choice = body.get("tool_choice", "auto")
    if isinstance(choice, str) and choice not in CHOICES:
        return _invalid("tool_choice", choice, CHOICES)
    if choice not in ("auto", "none") and not body.get("tools"):
        return Refusal(f"Tool choice '{choice}' must be specified with 'tools' parameter.", param="tool_choice")
    return None


def _schema_problem(tool: Mapping[str, Any]) -> str:
    schema = tool.get("parameters") or {}
    if schema.get("type", "object") != "object":
        return f"schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{schema['type']}\"'."
    if not tool.get("strict"):
        return ""
    if schema.get("additionalProperties") is not False:
        return "In context=(), 'additionalProperties' is required to be supplied and to be false."
    if set(schema.get("properties") or ()) - set(schema.get("required") or ()):
        return "In context=(), 'required' is required to be supplied and to be an array including every key."
    return ""


def _options_refusal(body: Mapping[str, Any]) -> Refusal | None:
    for index, value in enumerate(body.get("include") or ()):
        if value not in INCLUDABLE:
            return _invalid(f"include[{index}]", value, INCLUDABLE)
    if unknown := sorted(set(body.get("reasoning") or ()) - REASONING):
        return _unknown(f"reasoning.{unknown[0]}")
    if unknown := sorted(set(body.get("stream_options") or ()) - {"include_obfuscation"}):
        return _unknown(f"stream_options.{unknown[0]}")
    return None


def _shape_refusal(item: Any, index: int) -> Refusal | None:
    if not isinstance(item, dict) or item.get("type") not in ITEMS:
        return _invalid(f"input[{index}]", item.get("type") if isinstance(item, dict) else item, set(ITEMS))
    fields, prefix = ITEMS[item["type"]]
    if unknown := sorted(set(item) - fields):
        return _unknown(f"input[{index}].{unknown[0]}")
    if lacking := [name for name in REQUIRED[item["type"]] if name not in item]:
        return _missing(f"input[{index}].{lacking[0]}")
    if item.get("id") is not None and not str(item["id"]).startswith(prefix):
        name = f"input[{index}].id"
        sentence = f"Invalid '{name}': '{item['id']}'. Expected an ID that begins with '{prefix}'."
        return Refusal(sentence, 400, "invalid_value", name)
    if "call_id" in fields and not item["call_id"]:
        name = f"input[{index}].call_id"
        return Refusal(f"Invalid '{name}': empty string.", 400, "empty_string", name)
    if item["type"] == "function_call" and not isinstance(item["arguments"], str):
        name = f"input[{index}].arguments"
        return Refusal(f"Invalid type for '{name}': expected a string.", 400, "invalid_type", name)
    return _content_refusal(item, index) if item["type"] == "message" else None


def _content_refusal(item: Mapping[str, Any], index: int) -> Refusal | None:
    roles = {"user", "assistant", "system", "developer"}
    if item["role"] not in roles:
        return _invalid(f"input[{index}].role", item["role"], roles)
    if isinstance(item["content"], str):
        return None
    if not isinstance(item["content"], list):
        name = f"input[{index}].content"
        return Refusal(f"Invalid type for '{name}'.", 400, "invalid_type", name)
    parts = SPOKEN_PARTS if item["role"] == "assistant" else ASKED_PARTS
    for number, part in enumerate(item["content"]):
        if not isinstance(part, dict) or part.get("type") not in parts:
            return _invalid(f"input[{index}].content[{number}]", dict(part).get("type"), parts)
    return None


def _pair_refusal(items: Sequence[Any], index: int, model: Model, memory: Memory) -> Refusal | None:
    check = PAIRS.get(items[index]["type"])
    return check(items, index, model, memory) if check else None


def _call_refusal(items: Sequence[Any], index: int, model: Model, memory: Memory) -> Refusal | None:
    call = items[index]
    answered = {each.get("call_id") for each in items[index:] if each.get("type") == "function_call_output"}
    if call["call_id"] not in answered:
        return Refusal(f"No tool output found for function call {call['call_id']}.", param="input")
    reasoning = memory.reasoning_of.get(call["call_id"])
    given = {each.get("id") for each in items[:index] if isinstance(each, dict)}
    if model.reasons and reasoning and reasoning not in given:
        sentence = f"Item '{call.get('id')}' of type 'function_call' was provided without its required "
        return Refusal(f"{sentence}'reasoning' item: '{reasoning}'.", param="input")
    return None


def _output_refusal(items: Sequence[Any], index: int, model: Model, memory: Memory) -> Refusal | None:
    name = items[index]["call_id"]
    called = {each.get("call_id") for each in items[:index] if each.get("type") == "function_call"}
    if name not in called:
        return Refusal(f"No tool call found for function call output with call_id {name}.", param="input")
    return None


def _reasoning_refusal(items: Sequence[Any], index: int, model: Model, memory: Memory) -> Refusal | None:
    item = items[index]
    if not model.reasons:
        sentence = "Reasoning input items can only be provided to a reasoning or computer use model. "
        return Refusal(sentence + "Remove reasoning items from your input and try again.", param="input")
    if not item.get("encrypted_content"):
        if item["id"] not in memory.stored:
            return _not_found(item["id"])
    elif memory.encrypted.get(item["id"]) != item["encrypted_content"]:
        sentence = f"The encrypted content for item {item['id']} could not be verified."
        return Refusal(sentence, 400, "invalid_encrypted_content")
    after = items[index + 1] if index + 1 < len(items) else {}
    follows = after.get("type") in {"function_call", "reasoning"} or after.get("role") == "assistant"
    if not follows:
        sentence = f"Item '{item['id']}' of type 'reasoning' was provided without its required following item."
        return Refusal(sentence, param="input")
    return None


def _reference_refusal(items: Sequence[Any], index: int, model: Model, memory: Memory) -> Refusal | None:
    return None if items[index]["id"] in memory.stored else _not_found(items[index]["id"])


def _not_found(name: str) -> Refusal:
    sentence = f"Item with id '{name}' not found. Items are not persisted when `store` is set to false. "
    sentence += "Try again with `store` set to true, or remove this item from your input."
    return Refusal(sentence, 404, param="input")


PAIRS: dict[str, Callable[[Sequence[Any], int, Model, Memory], Refusal | None]] = {
    "function_call": _call_refusal,
    "function_call_output": _output_refusal,
    "reasoning": _reasoning_refusal,
    "item_reference": _reference_refusal,
}
