"""What a model takes and what it does not, learned from its provider's answers and never guessed from a name or host.

omits.<parameter>   true: the request is sent without the parameter
max_tokens_name     the parameter for the longest answer: max_tokens or max_completion_tokens
effort_with_tools   the reasoning effort that has to be sent with tools ("none")
tools               false: the model has no tools
system_role         false: the model takes no system message; its text goes before the person's first words
pictures            false: the model takes no pictures
output_factor       the answer's cap is multiplied by it: the model spends a small one on reasoning
token_ratio         the server's own count of tokens for each token that we estimate
context_window      the most tokens of a prompt and its answer
reasons_unmarked    true: its text begins with reasoning that ends with a mark and does not begin with one
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from memory.language_models import catalogue
from memory.language_models.contract import Fact, Kind, ModelAccess

API, RESPONSES = "api", "responses"
OMITS = "omits."
PROBABILITIES = "message.output_text.logprobs"  # as the Responses API names them in `include`
MAX_TOKENS_NAME = "max_tokens_name"
EFFORT_WITH_TOOLS = "effort_with_tools"
TOOLS = "tools"
SYSTEM_ROLE = "system_role"
PICTURES = "pictures"
MOST_OUTPUT = "most_output"
OUTPUT_FACTOR = "output_factor"
TOKEN_RATIO = "token_ratio"  # noqa: S105 - no password
CONTEXT_WINDOW = "context_window"
REASONS_UNMARKED = "reasons_unmarked"

LARGER = 4  # the factor of an answer's cap that was spent on reasoning
LARGEST_RATIO = 8.0
WORTH_LEARNING = 1.1  # a ratio that differs by less is noise
FEWEST_TOKENS = 200  # of a prompt: with fewer, what the server adds to each prompt counts too much

_SAFE = re.compile(r"[A-Za-z0-9_.\[\]]{1,60}")
_CAPS = {"max_tokens", "max_completion_tokens", "max_output_tokens"}
_EFFORTS = ("reasoning_effort", "output_config", "reasoning")
_RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}
# Parameters without which a request still asks the same.
_OPTIONAL = {
    *_RENAMED,
    "max_output_tokens",
    "temperature",
    "top_p",
    "logprobs",
    "top_logprobs",
    "stream_options",
    "tool_choice",
    "parallel_tool_calls",
    "reasoning_effort",
    "reasoning",
    "include",
    "store",
    "output_config",
    "thinking",
    "cache_control",
}


def safe(word: object) -> str:
    """Return a provider's code or parameter if it is safe to keep; '' otherwise."""
    return word if isinstance(word, str) and _SAFE.fullmatch(word) else ""


def lesson(parameter: str, sentence: str, sent: Mapping[str, Any], access: ModelAccess) -> Fact | None:
    """Return what a refused request teaches: how the next one must differ. None if it teaches nothing.

    parameter   the parameter that the provider names; '' if it names none
    sentence    the provider's sentence, in which the names of the parameters that were sent are looked for
    sent        the refused request's body
    access      its model; the parameters that the provider's row adds are never left out
    """
    for name in (_top(parameter), *(found for found in _named_in(sentence, sent) if not parameter)):
        if name and name not in access.body and (fact := _about(name, sentence, sent, access.kind, safe(parameter))):
            return fact
    if "system" in parameter.lower() or re.search(r"\bsystem (role|message|prompt)\b", sentence, re.IGNORECASE):
        return Fact(SYSTEM_ROLE, False, "system_role") if _has_system(sent) else None
    return None


def _about(name: str, sentence: str, sent: Mapping[str, Any], kind: Kind, why: str) -> Fact | None:
    why = why or name
    if name == "reasoning_effort" and sent.get("tools") and sent.get(name) != "none":
        return Fact(EFFORT_WITH_TOOLS, "none", why)
    if name not in sent:
        return None
    if name == "include" and PROBABILITIES in sent[name]:
        return Fact(OMITS + "logprobs", True, why)
    if name == "tools":
        return Fact(TOOLS, False, why)
    if name in _CAPS and (most := _smaller_number(sentence, sent[name])):
        return Fact(MOST_OUTPUT, most, why)
    if name in _RENAMED:
        return Fact(MAX_TOKENS_NAME, _RENAMED[name], why) if kind is Kind.COMPATIBLE else None
    return Fact(OMITS + name, True, why) if name in _OPTIONAL else None


def _smaller_number(sentence: str, sent: Any) -> int:
    """Return the largest number in the sentence that is smaller than the cap that was sent; 0 if there is none."""
    numbers = (int(number) for number in re.findall(r"\d{2,9}", sentence))
    return max((number for number in numbers if isinstance(sent, int) and number < sent), default=0)


def _top(parameter: str) -> str:
    """Return the name of a body's parameter: `reasoning` of reasoning.effort, `include` of include[0]."""
    return re.split(r"[.\[]", parameter, maxsplit=1)[0]


def _named_in(sentence: str, sent: Mapping[str, Any]) -> list[str]:
    """Return the parameters that were sent and that the sentence names, the optional ones first."""
    words = set(re.findall(r"[a-z_]{4,40}", sentence.lower()))
    if words & {"tool", "function", "functions", "tool_calls"}:
        words.add("tools")
    named = [name for name in sent if name in words]
    if words & {"effort", "reasoning_effort"}:
        named = [next((name for name in _EFFORTS if name in sent), "reasoning_effort"), *named]
    return sorted(named, key=lambda name: name == "tools")


def _has_system(sent: Mapping[str, Any]) -> bool:
    return any(message.get("role") == "system" for message in sent.get("messages") or ())


def adapted(body: Mapping[str, Any], known: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's body as the model takes it: what is `known` of it applied, then its provider's `own`."""
    wanted = dict(body)
    if name := known.get(MAX_TOKENS_NAME):
        for other in _RENAMED:
            if other in wanted and other != name:
                wanted[name] = wanted.pop(other)
    if known.get(TOOLS) is False:
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            wanted.pop(name, None)
    if wanted.get("tools") and known.get(EFFORT_WITH_TOOLS):
        wanted["reasoning_effort"] = known[EFFORT_WITH_TOOLS]
    wanted = {name: value for name, value in wanted.items() if not known.get(OMITS + name)}
    return {**wanted, **own}


def cap(max_tokens: int | None, known: Mapping[str, Any]) -> int | None:
    """Return the most tokens of an answer, with room for the reasoning that the model is known to spend."""
    if max_tokens is None:
        return None
    wanted = max_tokens * int(known.get(OUTPUT_FACTOR, 1))
    return min(wanted, int(known.get(MOST_OUTPUT, wanted)))


def window(access: ModelAccess) -> int:
    """Return the most tokens of a prompt and its answer, as learned or published; 0 if that is not known."""
    return int(access.known.get(CONTEXT_WINDOW) or catalogue.context_window(access.model) or 0)


def ratio_learned(counted: int, estimated: int, known: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Return the fact that the server counts more tokens than we estimate, if that is new and worth knowing."""
    if estimated < FEWEST_TOKENS or counted <= estimated * float(known.get(TOKEN_RATIO, 1.0)) * WORTH_LEARNING:
        return ()
    ratio = min(round(counted / estimated, 2), LARGEST_RATIO)
    return (Fact(TOKEN_RATIO, ratio, f"{counted} tokens counted, {estimated} estimated"),)


def describe(name: str, value: Any) -> str:
    """Return a fact in plain words, for staff."""
    if name.startswith(OMITS):
        return f"It does not take the parameter {name.removeprefix(OMITS)}."
    sentences = {
        API: "It is asked by the Responses API.",
        MAX_TOKENS_NAME: f"The longest answer is named {value}.",
        EFFORT_WITH_TOOLS: f"With tools it wants the reasoning effort {value}.",
        TOOLS: "It has no tools: it cannot move steps, ask for a person or look anything up.",
        SYSTEM_ROLE: "It takes no system message. The instructions are sent before the person's first words.",
        PICTURES: "It takes no pictures.",
        MOST_OUTPUT: f"An answer has at most {value} tokens.",
        OUTPUT_FACTOR: f"It spends tokens on reasoning: the cap of an answer is multiplied by {value}.",
        TOKEN_RATIO: f"It counts {value} tokens for each token that Convo estimates.",
        CONTEXT_WINDOW: f"A prompt and its answer have at most {value} tokens together.",
        REASONS_UNMARKED: "Its text begins with reasoning, which is removed.",
    }
    return sentences.get(name, f"{name}: {value}")
