"""The one door to the LLM: chat completions and embeddings of OpenAI, or of any server that speaks the same protocol.

`openai` and `httpx2` are imported inside the functions: they take half a second and 40 MB that the web process, which
imports this module on its way to the models, never needs. How a call is kept to its deadline: `memory/waiting.py`.
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

from memory import waiting
from memory.text import storable

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAIError

OPENAI_ITSELF = "https://api.openai.com/v1"
LONGEST_WAIT = 86_400.0  # seconds; a Retry-After beyond a day is a mistake

# Statuses that say "later", beside 429 and every 5xx. Other 4xx say that the request itself is wrong.
_LATER = {408, 409, 425}
_UNAUTHORIZED = {401, 403}
# A 429 with one of these words is not about the rate: no waiting helps, somebody must pay.
_OUT_OF_QUOTA = {"insufficient_quota", "billing_hard_limit_reached"}
# A 400 with one of these words is the provider's content filter (Azure says it so), not a malformed request.
_REFUSED = {"content_filter", "content_policy_violation"}


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that the model calls: `arguments` is JSON as the model wrote it, checked by nobody yet."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model answered. `text` fits a PostgreSQL text column, and is blank only beside `tool_calls`;
    `finish_reason` is `stop`, or `length` where it ran into `max_tokens`; `model` is the one that answered, as the
    server names it; `confidence` is the geometric mean of the probabilities of its words, where it gave them."""

    text: str
    model: str
    tokens_in: int = 0
    tokens_out: int = 0
    finish_reason: str = "stop"
    tool_calls: tuple[Call, ...] = ()
    confidence: float | None = None


class LLMError(Exception):
    """No completion. The sentence is ours and holds nothing of the request, the answer or the key.

    code         bad_request, unauthorized, insufficient_quota, refused (content filter): permanent;
                 rate_limited, http_503 (and its like), timeout, connect (never left), cut_off (the connection broke
                 afterwards), bad_answer (nonsense, or nothing said): retryable
    retryable    trying again can help
    retry_after  seconds the server asked us to wait, if it said so
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
    """One completion of chat `messages` (`role` and `content`; those of tools as `as_messages` makes them), in one try,
    within `seconds` in all, None for `OPENAI_TIMEOUT_SECONDS`.

    '' and None stand for `OPENAI_MODEL` and the server's defaults. `tools` are what the model may call, unless not
    `may_call`: then it must speak. Key and base URL are read from the settings on every call; a server of one's own
    needs no key. Safe to call from many threads. Raises LLMError.
    """
    body = request_body(messages, model=model, temperature=temperature, max_tokens=max_tokens)
    if tools:
        body |= {"tools": list(tools), "tool_choice": "auto" if may_call else "none"}
    if confidence:
        body["logprobs"] = True
    answer = _ask("/chat/completions", body, settings.OPENAI_TIMEOUT_SECONDS if seconds is None else seconds)
    return _read(answer, asked=body["model"], calls=bool(tools) and may_call)


def as_messages(completion: Completion, answers: Sequence[str]) -> list[dict[str, Any]]:
    """The completion and the answers to its tool calls, in their order, for the next request."""
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
    """What each of `texts` means, as a vector, in their order: one call, in one try.

    By `OPENAI_EMBEDDING_MODEL`, of `OPENAI_EMBEDDING_DIMENSIONS` numbers (0: as many as the model makes). No text may
    be blank; OpenAI takes up to 2,048 texts of up to 8,192 tokens. Within `seconds` in all, None for
    `OPENAI_TIMEOUT_SECONDS`. Raises LLMError.
    """
    body: dict[str, Any] = {
        "model": settings.OPENAI_EMBEDDING_MODEL,
        "input": list(texts),
        "encoding_format": "float",
    }
    if settings.OPENAI_EMBEDDING_DIMENSIONS:
        body["dimensions"] = settings.OPENAI_EMBEDDING_DIMENSIONS
    answer = _ask("/embeddings", body, settings.OPENAI_TIMEOUT_SECONDS if seconds is None else seconds)
    return _read_vectors(answer, count=len(texts))


def is_configured() -> bool:
    """Whether there is a model to ask."""
    return bool(settings.OPENAI_API_KEY or settings.OPENAI_BASE_URL)


def request_body(
    messages: Sequence[Mapping[str, Any]], *, model: str, temperature: float | None, max_tokens: int | None
) -> dict[str, Any]:
    """The JSON of a request for a chat completion; see `complete`."""
    body: dict[str, Any] = {
        "model": model or settings.OPENAI_MODEL,
        "messages": [dict(message) for message in messages],
    }
    if temperature is not None:
        body["temperature"] = temperature
    if max_tokens is not None:
        body[_limit_name(settings.OPENAI_BASE_URL)] = max_tokens
    return body


def _limit_name(base_url: str) -> str:
    """OpenAI's newer models refuse `max_tokens`, many compatible servers ignore its successor."""
    elsewhere = base_url and not base_url.startswith("https://api.openai.com/")
    return "max_tokens" if elsewhere else "max_completion_tokens"


# --- the call --------------------------------------------------------------------------------------------------------
def _ask(path: str, body: Mapping[str, Any], seconds: float) -> bytes:
    """The body of the server's answer of status 2xx. Raises LLMError."""
    from openai import OpenAIError

    client, options = client_and_options()

    async def post() -> bytes:
        # Not `client.chat.completions.create`: its typed layer, of which we use nothing, takes 2.6 ms of CPU for
        # twenty messages; all the rest of the call takes 0.7 ms.
        return await client.post(path, body=body, cast_to=bytes, options=options)

    try:
        return waiting.wait(post(), seconds)
    except TimeoutError:
        failure = LLMError(f"The LLM gave no answer within {seconds:g} s.", code="timeout", retryable=True)
    except UnicodeError:
        failure = LLMError("The request holds what cannot be encoded.", code="bad_request", retryable=False)
    except OpenAIError as error:
        failure = failure_of(error)
    # Raised out here, and not in the handler, so that no traceback shows the SDK's error: it quotes the server, which
    # may quote the request or the key.
    raise failure


def client_and_options() -> tuple[AsyncOpenAI, Any]:
    """The client for what the settings say now, and what to give to each of its requests. Raises LLMError."""
    from openai import Omit

    key, base_url = settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL or OPENAI_ITSELF
    if not is_configured():
        sentence = "Neither OPENAI_API_KEY nor OPENAI_BASE_URL is set."
        raise LLMError(sentence, code="unauthorized", retryable=False)
    client = _door.client(key, base_url, settings.OPENAI_TIMEOUT_SECONDS)
    return client, {} if key else {"headers": {"Authorization": Omit()}}


class _Door:
    """A client for each key, base URL and timeout (in practice one)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str, float], AsyncOpenAI] = {}

    def client(self, key: str, base_url: str, seconds: float) -> AsyncOpenAI:
        """The client, with its pool of connections. It never tries again by itself: our rows are the retry policy."""
        from openai import AsyncOpenAI

        with self._lock:
            if (key, base_url, seconds) not in self._clients:
                self._clients[key, base_url, seconds] = AsyncOpenAI(
                    api_key=key or "none", base_url=base_url, timeout=seconds, max_retries=0
                )
            return self._clients[key, base_url, seconds]


_door = _Door()


def _forget() -> None:
    global _door
    _door = _Door()


waiting.in_forked_process(_forget)


# --- what went wrong -------------------------------------------------------------------------------------------------
def failure_of(error: OpenAIError) -> LLMError:
    """The SDK's error in our words."""
    import httpx2
    from openai import APIConnectionError, APIStatusError, APITimeoutError

    if isinstance(error, APIStatusError):
        words = {str(error.code), str(error.type)}
        return _refusal(error.status_code, words, retry_after(error.response.headers, now=time.time()))
    if isinstance(error, APITimeoutError):
        return LLMError("The LLM gave no answer in time.", code="timeout", retryable=True)
    if isinstance(error.__cause__, httpx2.LocalProtocolError | httpx2.UnsupportedProtocol):
        return LLMError("The request cannot be sent as it is.", code="bad_request", retryable=False)
    if isinstance(error, APIConnectionError) and not isinstance(error.__cause__, httpx2.ConnectError):
        return LLMError("The connection to the LLM broke off.", code="cut_off", retryable=True)
    return LLMError("No connection to the LLM.", code="connect", retryable=True)


def _refusal(status: int, words: set[str], wait: float | None) -> LLMError:
    """An answer of status 3xx to 5xx; `words` are the machine words of its body."""
    sentence = f"The LLM answered with status {status}."
    if status == 402 or (status == 429 and words & _OUT_OF_QUOTA):
        return LLMError(sentence, code="insufficient_quota", retryable=False)
    if status == 429:
        return LLMError(sentence, code="rate_limited", retryable=True, retry_after=wait)
    if status >= 500 or status in _LATER:
        return LLMError(sentence, code=f"http_{status}", retryable=True, retry_after=wait)
    if status in _UNAUTHORIZED:
        return LLMError(sentence, code="unauthorized", retryable=False)
    if words & _REFUSED:
        return LLMError(sentence, code="refused", retryable=False)
    return LLMError(sentence, code="bad_request", retryable=False)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """The seconds a server asks us to wait: `retry-after-ms` (OpenAI, Azure), else `Retry-After` in seconds or as a
    date (RFC 9110, 10.2.3) measured from `now` (Unix time). None where it says nothing that can be understood."""
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


# --- what was answered -----------------------------------------------------------------------------------------------
def _read(answer: bytes, *, asked: str, calls: bool = False) -> Completion:
    """The completion in the server's JSON, of which nothing is taken for granted. Raises LLMError."""
    try:
        data = json.loads(answer)
        choice = data["choices"][0]
        text, finish_reason = choice["message"].get("content"), choice.get("finish_reason")
        called = _calls(choice["message"].get("tool_calls")) if calls else ()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        data = None
    if data is None:
        raise LLMError("The LLM's answer is no chat completion.", code="bad_answer", retryable=True)
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
        tokens_in=count_of(usage, "prompt_tokens"),
        tokens_out=count_of(usage, "completion_tokens"),
        finish_reason="length" if finish_reason == "length" else "stop",
        tool_calls=called,
        confidence=_confidence(choice),
    )


def _calls(given: Any) -> tuple[Call, ...]:
    """The tool calls among what the server gives for them."""
    found = []
    for each in given if isinstance(given, list) else []:
        function = each.get("function") if isinstance(each, dict) else None
        name, arguments = (function.get("name"), function.get("arguments")) if isinstance(function, dict) else ("", "")
        if name and isinstance(name, str) and isinstance(each.get("id"), str):
            found.append(Call(each["id"], name, arguments if isinstance(arguments, str) else ""))
    return tuple(found)


def _confidence(choice: Mapping[str, Any]) -> float | None:
    """From 0 to 1; None where the server gives no probabilities, or nonsense."""
    try:
        logarithms = [float(each["logprob"]) for each in choice["logprobs"]["content"]]
        return min(math.exp(sum(logarithms) / len(logarithms)), 1.0)
    except (LookupError, TypeError, ValueError, ArithmeticError):
        return None


def count_of(usage: Any, name: str) -> int:
    """A count of tokens as the server gives it; 0 where it gives none, or nonsense."""
    count = usage.get(name) if isinstance(usage, dict) else None
    return count if isinstance(count, int) and not isinstance(count, bool) and 0 <= count < 2**31 else 0


def _read_vectors(answer: bytes, *, count: int) -> list[list[float]]:
    """The vectors in the server's JSON, in the order of the texts, all of one length. Raises LLMError."""
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
