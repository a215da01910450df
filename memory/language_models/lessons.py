"""The lessons of refused requests: how the next one must differ, and whether that holds for the model for good.

A refusal may mean that the model does not have the parameter, or only that this value of it was wrong. The first is
kept; the second changes the request that was refused and nothing else, so that one assistant's mistake stays its own.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from memory.language_models.capabilities import (
    EFFORT_WITH_TOOLS,
    LEAST_OUTPUT,
    MAX_TOKENS_NAME,
    MOST_OUTPUT,
    OMITS,
    OMITS_TOOL,
    PROBABILITIES,
    RENAMED,
    SYSTEM_ROLE,
    TOOLS,
    safe,
    tool_name,
)
from memory.language_models.contract import Fact, Kind, ModelAccess

_CAPS = {"max_tokens", "max_completion_tokens", "max_output_tokens"}
_EFFORTS = ("reasoning_effort", "output_config", "reasoning")
# Parameters without which a request still asks the same. A cap is not among them: without one an answer may cost much.
_OPTIONAL = {
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
_UNKNOWN = re.compile(
    r"unsupported|unknown|unrecogni[sz]ed|not supported|not support|not permitted|not allowed|forbidden|deprecated"
    r"|only the default|may only be set",
    re.IGNORECASE,
)
_VALUE = re.compile(r"supported values are|must be one of|valid values|expected one of|input should be", re.IGNORECASE)
_NO_TOOLS = re.compile(
    r"(?:not|n't|cannot|no) (?:\w+ ){0,3}?(?:support\w*|use|have|call\w*|enabled?)\b[^.]{0,40}\b(?:tools?|functions?)\b"
    r"|\b(?:tools?|function calling|tool use|functions?)\b[^.]{0,60}\bnot (?:be )?(?:supported|available|enabled|used)"
    r"|\btool choice requires",
    re.IGNORECASE,
)
_ONE_TOOL = re.compile(r"\btools[.\[](\d{1,3})\b")
_AT_LEAST = re.compile(r"at least|>=|greater than|minimum|below", re.IGNORECASE)


def lesson(parameter: str, codes: set[str], sentence: str, sent: Mapping[str, Any], access: ModelAccess) -> Fact | None:
    """Return what a refused request teaches; None if it teaches nothing.

    parameter   the parameter that the provider names; '' if it names none
    codes       the provider's codes
    sentence    the provider's sentence, in which the names of the parameters that were sent are looked for
    sent        the refused request's body
    access      its model; the parameters that the provider's row adds are never left out
    """
    if one := _ONE_TOOL.search(parameter or sentence):
        return _without_tool(int(one[1]), sent)
    words = f"{' '.join(sorted(codes))} {sentence}"
    keep = bool(_UNKNOWN.search(words)) and not _VALUE.search(sentence)
    for name in [_top(parameter)] if parameter else _named_in(sentence, sent):
        if name and name not in access.body and (fact := _about(name, sentence, sent, access.kind, keep=keep)):
            return Fact(fact.name, fact.value, safe(parameter) or name, keep=fact.keep)
    if "system" in parameter.lower() or re.search(r"\bsystem (role|message|prompt)\b", sentence, re.IGNORECASE):
        return Fact(SYSTEM_ROLE, False, "system_role") if _has_system(sent) else None
    return None


def _without_tool(index: int, sent: Mapping[str, Any]) -> Fact | None:
    """Return the fact that one tool's schema is refused: the request goes without that tool, and others keep theirs."""
    tools = sent.get("tools") or []
    if index >= len(tools):
        return None
    return Fact(OMITS_TOOL + tool_name(tools[index]), True, "the provider refuses its schema", keep=False)


def _about(name: str, sentence: str, sent: Mapping[str, Any], kind: Kind, *, keep: bool) -> Fact | None:
    if name == "reasoning_effort" and sent.get("tools") and sent.get(name) != "none":
        return Fact(EFFORT_WITH_TOOLS, "none", "", keep=keep)
    if name not in sent:
        return None
    if name in ("tools", "tool_choice") and _NO_TOOLS.search(sentence):
        return Fact(TOOLS, False, "")
    if name == "include" and PROBABILITIES in sent[name]:
        return Fact(OMITS + "logprobs", True, "")
    if name in _CAPS:
        return _about_cap(name, sentence, sent[name], kind)
    return Fact(OMITS + name, True, "", keep=keep) if name in _OPTIONAL else None


def _about_cap(name: str, sentence: str, sent: Any, kind: Kind) -> Fact | None:
    """Return how the cap of an answer must differ: another name, or a value within the model's limits."""
    numbers = [int(number) for number in re.findall(r"\d{2,9}", sentence)] if isinstance(sent, int) else []
    if _AT_LEAST.search(sentence) and (larger := [number for number in numbers if number > sent]):
        return Fact(LEAST_OUTPUT, min(larger), "", keep=False)
    if smaller := [number for number in numbers if number < sent]:
        return Fact(MOST_OUTPUT, max(smaller), "")
    return Fact(MAX_TOKENS_NAME, RENAMED[name], "") if name in RENAMED and kind is Kind.COMPATIBLE else None


def _top(parameter: str) -> str:
    """Return the name of a body's parameter: `reasoning` of reasoning.effort, `include` of include[0]."""
    return re.split(r"[.\[]", parameter, maxsplit=1)[0]


def _named_in(sentence: str, sent: Mapping[str, Any]) -> list[str]:
    """Return the parameters that were sent and that the sentence names, the optional ones first."""
    words = set(re.findall(r"[a-z_]{4,40}", sentence.lower()))
    if _NO_TOOLS.search(sentence):
        words.add("tools")
    named = [name for name in sent if name in words]
    if words & {"effort", "reasoning_effort"}:
        named = [next((name for name in _EFFORTS if name in sent), "reasoning_effort"), *named]
    return sorted(named, key=lambda name: name == "tools")


def _has_system(sent: Mapping[str, Any]) -> bool:
    return any(message.get("role") == "system" for message in sent.get("messages") or ())
