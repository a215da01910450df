"""The facts of a model: learned from its provider's answers, never guessed from a name or host.

omits.<parameter>   true: the request is sent without the parameter
max_tokens_name     the parameter for the longest answer: max_tokens or max_completion_tokens
effort_with_tools   the reasoning effort that has to be sent with tools ("none")
tools               false: the model has no tools
system_role         false: the model takes no system message; its text goes before the person's first words
pictures            false: the model takes no pictures
output_factor       the answer's cap is multiplied by it: the model spends a small one on reasoning
token_ratio         the server's own count of tokens for each token that we estimate
context_window      the most tokens of a prompt and its answer
reasons_unmarked    above 0: its text may begin with reasoning that ends with a mark and does not begin with one; each
                    answer without such reasoning counts it down
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.utils.translation import gettext

from memory.language_models import catalogue
from memory.language_models.contract import Fact, ModelAccess

API, RESPONSES = "api", "responses"
OMITS = "omits."
OMITS_TOOL = "omits_tool."  # and the tool's name: the provider refuses its schema; never kept
LEAST_OUTPUT = "least_output"  # never kept
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

SIGHTINGS_LAST = 3  # answers without unmarked reasoning until a model is trusted again
LARGER = 4  # the factor of an answer's cap that was spent on reasoning
LARGEST_RATIO = 8.0
WORTH_RISING, WORTH_FALLING = 1.1, 1.5  # a ratio that differs by less is noise
RISES, FALLS = 0.5, 0.2  # the share of the difference that one prompt moves it
FEWEST_TOKENS = 1_000  # of a prompt: with fewer, what the server adds to each prompt counts too much

_SAFE = re.compile(r"[A-Za-z0-9_.\[\]]{1,60}")
RENAMED = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


def safe(word: object) -> str:
    """Return a provider's code or parameter if it is safe to keep; '' otherwise."""
    return word if isinstance(word, str) and _SAFE.fullmatch(word) else ""


def adapted(body: Mapping[str, Any], known: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's body as the model takes it: what is `known` of it applied, then its provider's `own`."""
    wanted = dict(body)
    if name := known.get(MAX_TOKENS_NAME):
        for other in RENAMED:
            if other in wanted and other != name:
                wanted[name] = wanted.pop(other)
    if known.get(TOOLS) is False:
        for name in ("tools", "tool_choice", "parallel_tool_calls"):
            wanted.pop(name, None)
    if wanted.get("tools") and known.get(EFFORT_WITH_TOOLS):
        wanted["reasoning_effort"] = known[EFFORT_WITH_TOOLS]
    left = [tool for tool in wanted.get("tools") or () if not known.get(OMITS_TOOL + tool_name(tool))]
    if wanted.get("tools") and len(left) < len(wanted["tools"]):
        wanted["tools"] = left
        if not left:
            wanted = {name: value for name, value in wanted.items() if name not in ("tools", "tool_choice")}
    wanted = {name: value for name, value in wanted.items() if not known.get(OMITS + name)}
    return {**wanted, **own}


def unmarked_reasoning(known: Mapping[str, Any], *, seen: bool) -> tuple[Fact, ...]:
    """Return what an answer teaches by unmarked reasoning at its beginning, or by none (`seen`)."""
    before = int(known.get(REASONS_UNMARKED, 0))
    after = SIGHTINGS_LAST if seen else max(before - 1, 0)
    why = "an end of reasoning without a beginning" if seen else "an answer without"
    return (Fact(REASONS_UNMARKED, after, why),) if after != before else ()


def cap(max_tokens: int | None, known: Mapping[str, Any]) -> int | None:
    """Return the most tokens of an answer, with room for the reasoning that the model is known to spend."""
    if max_tokens is None:
        return None
    wanted = max(max_tokens * int(known.get(OUTPUT_FACTOR, 1)), int(known.get(LEAST_OUTPUT, 1)))
    return min(wanted, int(known.get(MOST_OUTPUT, wanted)))


def window(access: ModelAccess) -> int:
    """Return the most tokens of a prompt and its answer, as learned or published; 0 if that is not known."""
    return int(access.known.get(CONTEXT_WINDOW) or catalogue.context_window(access.model) or 0)


def ratio_learned(counted: int, estimated: int, known: Mapping[str, Any]) -> tuple[Fact, ...]:
    """Return the new ratio of the server's tokens to our estimate, if it differs much from what is known.

    It moves towards what a long prompt shows, up faster than down, so that one odd text changes little and none for
    ever.
    """
    if estimated < FEWEST_TOKENS or counted <= 0:
        return ()
    before, seen = float(known.get(TOKEN_RATIO, 1.0)), counted / estimated
    if before / WORTH_FALLING <= seen <= before * WORTH_RISING:
        return ()
    ratio = before + (seen - before) * (RISES if seen > before else FALLS)
    ratio = round(min(max(ratio, 1.0), LARGEST_RATIO), 2)
    return (Fact(TOKEN_RATIO, ratio, f"{counted} tokens counted, {estimated} estimated"),) if ratio != before else ()


def tool_name(tool: Mapping[str, Any]) -> str:
    """Return the name of a tool as any of the dialects sends it."""
    function = tool.get("function")
    return str(function["name"] if isinstance(function, dict) else tool.get("name", ""))


def describe(name: str, value: Any) -> str:
    """Return a fact in plain words, for staff."""
    if name.startswith(OMITS):
        return gettext("It does not take the parameter %(name)s.") % {"name": name.removeprefix(OMITS)}
    sentences = {
        API: gettext("It is asked by the Responses API."),
        MAX_TOKENS_NAME: gettext("The longest answer is named %(value)s."),
        EFFORT_WITH_TOOLS: gettext("With tools it wants the reasoning effort %(value)s."),
        TOOLS: gettext("It has no tools: it cannot move steps, ask for a person or look anything up."),
        SYSTEM_ROLE: gettext("It takes no system message. The instructions are sent before the person's first words."),
        PICTURES: gettext("It takes no pictures."),
        MOST_OUTPUT: gettext("An answer has at most %(value)s tokens."),
        OUTPUT_FACTOR: gettext("It spends tokens on reasoning: the cap of an answer is multiplied by %(value)s."),
        TOKEN_RATIO: gettext("It counts %(value)s tokens for each token that Convo estimates."),
        CONTEXT_WINDOW: gettext("A prompt and its answer have at most %(value)s tokens together."),
        REASONS_UNMARKED: gettext("Its text may begin with reasoning. Streams are held back until that has ended.")
        if value
        else gettext("Its text began with reasoning before, and does not any more."),
    }
    return sentences[name] % {"value": value} if name in sentences else f"{name}: {value}"
