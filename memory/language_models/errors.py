"""Failures of the providers, as LLMErrors: by status, by their own codes, and by what they teach of the model."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from memory.language_models import capabilities
from memory.language_models.contract import Fact, LLMError, ModelAccess
from memory.language_models.lessons import lesson

LONGEST_WAIT = 86_400.0  # seconds; a Retry-After beyond a day is a mistake
LONGEST_SENTENCE = 2_000  # characters of a provider's sentence that are read; none are kept

_RETRYABLE = {408, 409, 425}
_UNAUTHORIZED = {401, 403}
# A 429 with one of these codes is no rate limit: waiting does not help, the account must be paid for.
_OUT_OF_QUOTA = {"insufficient_quota", "billing_hard_limit_reached", "billing_error"}
# A 400 with one of these codes comes from the provider's content filter (Azure), not from a malformed request.
_REFUSED = {"content_filter", "content_policy_violation"}
_NO_MODEL = {"model_not_found", "not_found_error", "deploymentnotfound", "model_not_available"}
_TOO_LONG = {"context_length_exceeded", "exceed_context_size_error"}
# Groq, issue tracker of groq-python: the model wrote a tool call that its server could not read. Another try may do.
_BAD_CALL = {"tool_use_failed"}
_TOO_LONG_IN_WORDS = re.compile(
    r"context (length|window|size)|prompt is too long|maximum context|too many (input )?tokens", re.IGNORECASE
)
_NO_BUDGET = re.compile(r"credit balance", re.IGNORECASE)  # Anthropic says it with a 400 and no code of its own
_NO_MODEL_IN_WORDS = re.compile(r"\bmodel\b.{0,200}\b(not found|does not exist|not exist)", re.IGNORECASE | re.DOTALL)
_ELSEWHERE = "v1/responses"  # OpenAI, of a model that chat completions do not have
_WINDOWS = (
    re.compile(r"maximum context length\D{0,30}?(\d{3,9})", re.IGNORECASE),
    re.compile(r"context (?:length|window|size)(?: limit)?\D{0,40}?(\d{3,9})", re.IGNORECASE),
    re.compile(r">\s*(\d{3,9}) maximum", re.IGNORECASE),
)
SMALLEST_WINDOW = 256  # tokens; a smaller number in a refusal is another one


def of_status(
    status: int, body: object, headers: Mapping[str, str], sent: Mapping[str, Any], access: ModelAccess
) -> LLMError:
    """Return the error for an answer of status 3xx to 5xx.

    body    the answer's JSON, or its text
    sent    the body of the request
    """
    error = _error_object(body)
    codes = {str(error.get(name)).lower() for name in ("code", "type", "status") if error.get(name)}
    parameter = error["param"] if isinstance(error.get("param"), str) else ""
    sentence = str(error.get("message") or "")[:LONGEST_SENTENCE]
    learned: tuple[Fact, ...] = ()
    code = _passing(status, codes)
    retryable = bool(code)
    code = code or _lasting(status, codes, sentence, parameter)
    if code == "context_too_long":
        learned = _window(error, sentence)
    elif not code and (status in (400, 403, 404, 422) or any(each.startswith("unsupported") for each in codes)):
        fact = lesson(parameter, codes, sentence, sent, access)
        if fact is None and _ELSEWHERE in sentence and capabilities.API not in access.known:
            fact = Fact(capabilities.API, capabilities.RESPONSES, _ELSEWHERE)
        learned = (fact,) if fact else ()
        code = "no_tools" if fact and fact.name == capabilities.TOOLS else "parameter_refused" if fact else ""
    if not code:
        code = "unauthorized" if status in _UNAUTHORIZED else "parameter_refused" if parameter else "bad_request"
    return LLMError(
        f"The model provider answered with status {status}.",
        code=code,
        retryable=retryable,
        retry_after=retry_after(headers, now=time.time()) if retryable else None,
        detail=_detail(code, error.get("code"), parameter),
        learned=learned,
    )


def _detail(code: str, providers_code: object, parameter: str) -> str:
    """Return what tells staff most: the parameter that was refused, else the provider's own code."""
    words = [capabilities.safe(providers_code), capabilities.safe(parameter)]
    if code == "parameter_refused":
        words.reverse()
    return words[0] or words[1]


def _passing(status: int, codes: set[str]) -> str:
    """Return the code of a failure that may pass by itself; '' for another one."""
    if status == 402 or codes & _OUT_OF_QUOTA:
        return ""
    if status == 529 or "overloaded_error" in codes:
        return "overloaded"
    if status == 429:
        return "rate_limited"
    if status >= 500 or status in _RETRYABLE:
        return f"http_{status}"
    return "bad_answer" if codes & _BAD_CALL else ""


def _lasting(status: int, codes: set[str], sentence: str, parameter: str) -> str:
    """Return the code of a failure that the status and the provider's codes explain; '' for another one."""
    if status == 402 or codes & _OUT_OF_QUOTA:
        return "insufficient_quota"
    if _NO_BUDGET.search(sentence):
        return "insufficient_quota"
    if codes & _REFUSED:
        return "refused"
    if _ELSEWHERE in sentence:
        return ""
    if "string_above_max_length" in codes and parameter.startswith(("messages", "input")):
        return "context_too_long"
    if status == 413 or codes & _TOO_LONG or _TOO_LONG_IN_WORDS.search(sentence):
        return "context_too_long"
    if status == 404 and parameter not in ("", "model"):  # OpenAI, of an item that was not stored
        return "bad_request"
    if status == 404 or codes & _NO_MODEL or (status == 400 and _NO_MODEL_IN_WORDS.search(sentence)):
        return "model_not_found"
    return ""


def _error_object(body: object) -> Mapping[str, Any]:
    """Return the error in the answer: `error` of OpenAI and Anthropic, the object itself (vLLM), or a text (Ollama)."""
    if isinstance(body, bytes | str):
        try:
            body = json.loads(body)
        except (ValueError, RecursionError):
            return {"message": body if isinstance(body, str) else ""}
    if isinstance(body, list):  # Gemini puts its error into a list
        body = body[0] if body else {}
    if not isinstance(body, dict):
        return {}
    error = body.get("error", body)
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _window(error: Mapping[str, Any], sentence: str) -> tuple[Fact, ...]:
    """Return the model's context window as the refusal of a long prompt names it, in fields (llama.cpp) or in words."""
    window = error.get("n_ctx")
    if not isinstance(window, int) or isinstance(window, bool):
        found = next((match for pattern in _WINDOWS if (match := pattern.search(sentence))), None)
        window = int(found[1]) if found else 0
    return (Fact(capabilities.CONTEXT_WINDOW, window, "context_too_long"),) if window >= SMALLEST_WINDOW else ()


def in_answer(error: object) -> LLMError:
    """Return the error that a provider put into an answer of status 200, or into a stream."""
    found = _error_object(error)
    codes = {str(found.get(name)).lower() for name in ("code", "type") if found.get(name)}
    detail = capabilities.safe(found.get("code")) or capabilities.safe(found.get("type"))
    if codes & _REFUSED:
        return LLMError("The provider's content filter refused.", code="refused", retryable=False, detail=detail)
    if codes & _OUT_OF_QUOTA:
        return LLMError("The account is out of quota.", code="insufficient_quota", retryable=False, detail=detail)
    if codes & _TOO_LONG:
        return LLMError("The prompt is too long.", code="context_too_long", retryable=False, detail=detail)
    return LLMError("The provider reported an error.", code="provider_error", retryable=True, detail=detail)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Return the seconds that a server asks us to wait; None if its headers name no valid time.

    Source: `retry-after-ms` (OpenAI, Azure), else `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), measured
    from `now` (Unix time).
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    seconds = _number(headers.get("retry-after")) if milliseconds is None else milliseconds / 1000
    if seconds is None:
        try:
            seconds = parsedate_to_datetime(headers.get("retry-after") or "").timestamp() - now
        except (ValueError, TypeError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_WAIT)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None
