"""Calls the LLM: chat completions and embeddings of OpenAI, or of any server with the same protocol.

`openai` and `httpx2` are imported inside the functions: they take half a second and 40 MB that the web process, which
imports this module on its way to the models, never needs. `memory/event_loop.py` keeps each call to its deadline.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from django.conf import settings

from memory import event_loop
from memory.text import storable

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAIError

OPENAI_API_URL = "https://api.openai.com/v1"
LONGEST_WAIT = 86_400.0  # seconds; a Retry-After beyond a day is a mistake

# Statuses that can be retried, beside 429 and every 5xx. Any other 4xx says that the request itself is wrong.
_RETRYABLE = {408, 409, 425}
_UNAUTHORIZED = {401, 403}
# A 429 with one of these codes is no rate limit: waiting does not help, the account must be paid for.
_OUT_OF_QUOTA = {"insufficient_quota", "billing_hard_limit_reached"}
# A 400 with one of these codes comes from the provider's content filter (Azure), not from a malformed request.
_REFUSED = {"content_filter", "content_policy_violation"}


@dataclass(frozen=True, slots=True)
class RequestedToolCall:
    """A tool call that the model asks for. `arguments` is the model's JSON, which nothing has checked yet."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Completion:
    """The model's answer to one request.

    text            fits a PostgreSQL text column; blank only if there are `tool_calls`
    model           the model that answered, as the server names it
    finish_reason   `stop`, or `length` if the answer was cut off at `max_tokens`
    confidence      the geometric mean of its tokens' probabilities, from 0 to 1; None if the server gave none
    """

    text: str
    model: str
    tokens_in: int = 0
    tokens_out: int = 0
    finish_reason: str = "stop"
    tool_calls: tuple[RequestedToolCall, ...] = ()
    confidence: float | None = None


class LLMError(Exception):
    """A call to the LLM failed. The message contains nothing of the request, the answer or the key.

    code         bad_request, unauthorized, insufficient_quota, refused (content filter): permanent;
                 rate_limited, http_503 (and other 5xx), timeout, connect (the request was not sent), cut_off (the
                 connection broke afterwards), bad_answer (malformed or empty): retryable
    retryable    True if another attempt can succeed
    retry_after  seconds to wait, if the server named them
    """

    def __init__(self, message: str, *, code: str, retryable: bool, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after


def complete(
    messages: Sequence[Mapping[str, Any]],
    *,
    model: str = "",
    temperature: float | None = None,
    max_tokens: int | None = None,
    tools: Sequence[Mapping[str, Any]] = (),
    may_call: bool = True,
    confidence: bool = False,
    seconds: float | None = None,
) -> Completion:
    """Return one completion of the chat `messages`, in one attempt.

    messages     dicts with `role` and `content`; tool calls and their answers as `as_messages` returns them
    model, temperature, max_tokens   '' and None mean `OPENAI_MODEL` and the server's defaults
    tools        the tools that the model may call; with `may_call` False it must answer in text
    confidence   ask for the probabilities of the answer's tokens
    seconds      the time for the whole call; None means `OPENAI_TIMEOUT_SECONDS`

    Key and base URL are read from the settings on every call; a base URL of your own needs no key. Safe to call from
    many threads. Raises LLMError.
    """
    body = request_body(messages, model=model, temperature=temperature, max_tokens=max_tokens)
    if tools:
        body |= {"tools": list(tools), "tool_choice": "auto" if may_call else "none"}
    if confidence:
        body["logprobs"] = True
    answer = _post("/chat/completions", body, settings.OPENAI_TIMEOUT_SECONDS if seconds is None else seconds)
    return _parse_completion(answer, asked=body["model"], calls=bool(tools) and may_call)


def as_messages(completion: Completion, answers: Sequence[str]) -> list[dict[str, Any]]:
    """Return chat messages of the completion and the answers to its tool calls, for the next request."""
    calls = [
        {
            "id": storable(call.id),
            "type": "function",
            "function": {"name": storable(call.name), "arguments": storable(call.arguments)},
        }
        for call in completion.tool_calls
    ]
    said = {"role": "assistant", "content": completion.text or None, "tool_calls": calls}
    answered = zip(completion.tool_calls, answers, strict=True)
    return [
        said,
        *({"role": "tool", "tool_call_id": storable(call.id), "content": answer} for call, answer in answered),
    ]


def embed(texts: Sequence[str], *, seconds: float | None = None) -> list[list[float]]:
    """Return the embedding of each of `texts`, in their order, from one call in one attempt.

    The vectors come from `OPENAI_EMBEDDING_MODEL` and have `OPENAI_EMBEDDING_DIMENSIONS` numbers (0: the model's own
    length). No text may be blank; OpenAI takes up to 2,048 texts of up to 8,192 tokens. `seconds` is the time for the
    whole call; None means `OPENAI_TIMEOUT_SECONDS`. Raises LLMError.
    """
    body: dict[str, Any] = {
        "model": settings.OPENAI_EMBEDDING_MODEL,
        "input": list(texts),
        "encoding_format": "float",
    }
    if settings.OPENAI_EMBEDDING_DIMENSIONS:
        body["dimensions"] = settings.OPENAI_EMBEDDING_DIMENSIONS
    answer = _post("/embeddings", body, settings.OPENAI_TIMEOUT_SECONDS if seconds is None else seconds)
    return _parse_vectors(answer, count=len(texts))


def warm_up() -> None:
    """Load the SDK, which takes seconds, so that the first reply does not wait for it."""
    if is_configured():
        client_and_options()


def is_configured() -> bool:
    """Return whether an LLM is configured."""
    return bool(settings.OPENAI_API_KEY or settings.OPENAI_BASE_URL)


def request_body(
    messages: Sequence[Mapping[str, Any]], *, model: str, temperature: float | None, max_tokens: int | None
) -> dict[str, Any]:
    """Return the JSON body of a request for a chat completion; the arguments are those of `complete`."""
    body: dict[str, Any] = {
        "model": model or settings.OPENAI_MODEL,
        "messages": [dict(message) for message in messages],
    }
    if temperature is not None:
        body["temperature"] = temperature
    if max_tokens is not None:
        body[_max_tokens_parameter(settings.OPENAI_BASE_URL)] = max_tokens
    return body


def _max_tokens_parameter(base_url: str) -> str:
    """Return the parameter's name: OpenAI's newer models refuse `max_tokens`, many compatible servers know no other."""
    elsewhere = base_url and not base_url.startswith("https://api.openai.com/")
    return "max_tokens" if elsewhere else "max_completion_tokens"


# --- the call --------------------------------------------------------------------------------------------------------
def _post(path: str, body: Mapping[str, Any], seconds: float) -> bytes:
    """Return the body of the server's answer of status 2xx. Raises LLMError."""
    from openai import OpenAIError

    client, options = client_and_options()

    async def post() -> bytes:
        # Not `client.chat.completions.create`: its typed layer, which we do not use, takes 2.6 ms of CPU for twenty
        # messages; the rest of the call takes 0.7 ms.
        return await client.post(path, body=body, cast_to=bytes, options=options)

    try:
        return event_loop.run(post(), seconds)
    except TimeoutError:
        failure = LLMError(f"The LLM gave no answer within {seconds:g} s.", code="timeout", retryable=True)
    except UnicodeError:
        failure = LLMError("The request holds what cannot be encoded.", code="bad_request", retryable=False)
    except OpenAIError as error:
        failure = as_llm_error(error)
    # Raised here and not in the handler, so that no traceback shows the SDK's error: that quotes the server, which may
    # quote the request or the key.
    raise failure


def client_and_options() -> tuple[AsyncOpenAI, Any]:
    """Return the SDK's client for the current settings, and the options for each of its requests. Raises LLMError."""
    from openai import Omit

    key, base_url = settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL or OPENAI_API_URL
    if not is_configured():
        sentence = "No LLM is configured. Set OPENAI_API_KEY or OPENAI_BASE_URL."
        raise LLMError(sentence, code="unauthorized", retryable=False)
    client = _clients.client(key, base_url, settings.OPENAI_TIMEOUT_SECONDS)
    return client, {} if key else {"headers": {"Authorization": Omit()}}


class _ClientCache:
    """One client for each key, base URL and timeout (in practice one)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str, float], AsyncOpenAI] = {}

    def client(self, key: str, base_url: str, seconds: float) -> AsyncOpenAI:
        """Return the client, with its pool of connections. It never retries: our rows hold the retry policy."""
        from openai import AsyncOpenAI

        with self._lock:
            if (key, base_url, seconds) not in self._clients:
                self._clients[key, base_url, seconds] = AsyncOpenAI(
                    api_key=key or "none", base_url=base_url, timeout=seconds, max_retries=0
                )
            return self._clients[key, base_url, seconds]


_clients = _ClientCache()


def _reset() -> None:
    global _clients
    _clients = _ClientCache()


event_loop.after_fork(_reset)


# --- errors ----------------------------------------------------------------------------------------------------------
def as_llm_error(error: OpenAIError) -> LLMError:
    """Return the LLMError that stands for the SDK's error."""
    import httpx2
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error, APIStatusError):
        codes = {str(error.code), str(error.type)}
        return _status_error(error.status_code, codes, retry_after(error.response.headers, now=time.time()))
    if isinstance(error, APITimeoutError):
        return LLMError("The LLM gave no answer in time.", code="timeout", retryable=True)
    if isinstance(error.__cause__, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
        return LLMError("The request cannot be sent as it is.", code="bad_request", retryable=False)
    if isinstance(error, APIConnectionError) and not isinstance(error.__cause__, httpx2.ConnectError):
        return LLMError("The connection to the LLM broke off.", code="cut_off", retryable=True)
    return LLMError("No connection to the LLM.", code="connect", retryable=True)


def _status_error(status: int, codes: set[str], wait: float | None) -> LLMError:
    """Return the error for an answer of status 3xx to 5xx; `codes` are the error codes in its body."""
    sentence = f"The LLM answered with status {status}."
    if status == 402 or (status == 429 and codes & _OUT_OF_QUOTA):
        return LLMError(sentence, code="insufficient_quota", retryable=False)
    if status == 429:
        return LLMError(sentence, code="rate_limited", retryable=True, retry_after=wait)
    if status >= 500 or status in _RETRYABLE:
        return LLMError(sentence, code=f"http_{status}", retryable=True, retry_after=wait)
    if status in _UNAUTHORIZED:
        return LLMError(sentence, code="unauthorized", retryable=False)
    if codes & _REFUSED:
        return LLMError(sentence, code="refused", retryable=False)
    return LLMError(sentence, code="bad_request", retryable=False)


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


# --- answers ---------------------------------------------------------------------------------------------------------
def _parse_completion(answer: bytes, *, asked: str, calls: bool = False) -> Completion:
    """Return the completion in the server's JSON, every part of which is checked. Raises LLMError."""
    try:
        data = json.loads(answer)
        choice = data["choices"][0]
        text, finish_reason = choice["message"].get("content"), choice.get("finish_reason")
        called = _parse_tool_calls(choice["message"].get("tool_calls")) if calls else ()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        data = None
    if data is None:
        raise LLMError("The LLM's answer is not a chat completion.", code="bad_answer", retryable=True)
    if finish_reason == "content_filter":
        raise LLMError("The LLM's content filter refused.", code="refused", retryable=False)
    if not isinstance(text, str):
        text = ""
    if not storable(text).strip() and not called:
        raise LLMError("The LLM answered nothing.", code="bad_answer", retryable=True)
    model, usage = data.get("model"), data.get("usage")
    return Completion(
        text=storable(text).strip(),
        model=storable(model)[:100] if isinstance(model, str) and model else asked,
        tokens_in=token_count(usage, "prompt_tokens"),
        tokens_out=token_count(usage, "completion_tokens"),
        finish_reason="length" if finish_reason == "length" else "stop",
        tool_calls=called,
        confidence=confidence_of(probabilities_in(choice)),
    )


def _parse_tool_calls(given: Any) -> tuple[RequestedToolCall, ...]:
    """Return the well-formed tool calls in the server's `tool_calls`."""
    found = []
    for each in given if isinstance(given, list) else []:
        function = each.get("function") if isinstance(each, dict) else None
        name, arguments = (function.get("name"), function.get("arguments")) if isinstance(function, dict) else ("", "")
        if name and isinstance(name, str) and isinstance(each.get("id"), str):
            found.append(RequestedToolCall(each["id"], name, arguments if isinstance(arguments, str) else ""))
    return tuple(found)


def probabilities_in(choice: Mapping[str, Any]) -> list[Any]:
    """Return the server's log probabilities of the words in a choice, whole or streamed; none of them is checked."""
    given = choice.get("logprobs")
    content = given.get("content") if isinstance(given, dict) else None
    return content if isinstance(content, list) else []


def confidence_of(probabilities: Sequence[Any]) -> float | None:
    """Return the confidence from 0 to 1: the geometric mean; None if the server gave no valid probabilities."""
    try:
        logarithms = [float(each["logprob"]) for each in probabilities]
        return min(math.exp(sum(logarithms) / len(logarithms)), 1.0)
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return None


def token_count(usage: Any, name: str) -> int:
    """Return the number of tokens that `usage` has under `name`; 0 if it has no valid one."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**31 else 0


def _parse_vectors(answer: bytes, *, count: int) -> list[list[float]]:
    """Return the vectors in the server's JSON, in the order of the texts, all of one length. Raises LLMError."""
    try:
        rows = sorted(json.loads(answer)["data"], key=lambda row: row["index"])
        vectors = [[float(number) for number in row["embedding"]] for row in rows]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        vectors = []
    lengths = {len(vector) for vector in vectors}
    finite = all(math.isfinite(number) for vector in vectors for number in vector)
    if len(vectors) != count or len(lengths) != 1 or 0 in lengths or not finite:
        raise LLMError("The LLM's answer is not one vector for each text.", code="bad_answer", retryable=True)
    return vectors
